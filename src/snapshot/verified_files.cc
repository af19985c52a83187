#include "snapshot/verified_files.h"

#include <fmt/format.h>

#include "snapshot/digest.h"
#include "snapshot/limits.h"

namespace wrenn::snapshot {
namespace {

std::unexpected<Error> corrupt(const std::string& path, const std::string& why) {
  return fail(
      Error(Code::kDataLoss, fmt::format("snapshot file {} {}", path, why)).with_reason("snapshot_corrupt"));
}

// A file that is not there is damage of its snapshot; one that cannot be read now may be read later.
std::unexpected<Error> unreadable(const Error& error, const std::string& path) {
  if (error.code() == Code::kNotFound) return corrupt(path, "is missing");
  return fail(error);
}

}  // namespace

Result<> verify_file(async::Blocking blocking, const std::string& path, std::uint64_t size,
                     const std::string& digest) {
  const auto found = sys::file_size(path);
  if (!found) return unreadable(found.error(), path);
  if (*found != size) return corrupt(path, fmt::format("has {} bytes instead of {}", *found, size));
  const auto content = file_digest(blocking, path);
  if (!content) return unreadable(content.error(), path);
  if (*content != digest) return corrupt(path, "differs from its checksum");
  return {};
}

std::optional<std::string> VerifiedFiles::find(const std::string& path) const {
  const auto file = sys::file_identity(path);
  if (!file) return std::nullopt;
  const std::lock_guard lock(mutex_);
  const auto it = digests_.find(*file);
  return it == digests_.end() ? std::nullopt : std::optional(it->second);
}

Result<> VerifiedFiles::verify(async::Blocking blocking, const std::string& path, std::uint64_t size,
                               const std::string& digest) {
  // Taken before the file is read: what changes meanwhile is another file.
  const auto file = sys::file_identity(path);
  if (!file) return unreadable(file.error(), path);
  if (find(path) == digest && file->size == size) return {};
  TRY(verify_file(blocking, path, size, digest));
  remember(*file, digest);
  return {};
}

void VerifiedFiles::remember(const sys::FileIdentity& file, const std::string& digest) {
  const std::lock_guard lock(mutex_);
  // Forgetting costs one more reading of what is still in use.
  if (digests_.size() >= kMaxVerifiedFiles) digests_.clear();
  digests_[file] = digest;
}

}  // namespace wrenn::snapshot
