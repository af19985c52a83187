#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "snapshot/digest.h"
#include "snapshot/manifest.h"
#include "snapshot/snapshot.h"
#include "sys/file.h"

namespace wrenn::snapshot {
namespace {

constexpr std::string_view kTmpMark = ".tmp-";
constexpr const char* kManifestName = "manifest.json";

std::string parent_of(const std::string& path) { return path.substr(0, path.find_last_of('/')); }

// Puts `from` in the place of `to`; what was there ends up at `from`.
Result<> put_in_place(const std::string& from, const std::string& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return {};
  if (errno != EEXIST) return fail_errno("publish " + to);
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) != 0) {
    return fail_errno("replace " + to);
  }
  return {};
}

}  // namespace

Result<Writer> Writer::create(async::Blocking /*blocking*/, std::string final_dir) {
  std::string dir = final_dir + std::string(kTmpMark) + random_id("").substr(0, 12);
  TRY(sys::mkdirs(parent_of(final_dir)));
  if (::mkdir(dir.c_str(), 0700) != 0) return fail_errno("mkdir " + dir);
  return Writer(std::move(dir), std::move(final_dir));
}

Writer::Writer(std::string dir, std::string final_dir)
    : dir_(std::move(dir)), final_dir_(std::move(final_dir)) {}

Writer::Writer(Writer&& other) noexcept
    : dir_(std::exchange(other.dir_, {})), final_dir_(std::move(other.final_dir_)) {}

Writer::~Writer() {
  if (!dir_.empty()) log::warn("{} was neither published nor discarded", dir_);
}

std::string Writer::path(const std::string& name) const { return dir_ + "/" + name; }

Result<> Writer::publish(async::Blocking blocking, Manifest manifest) {
  manifest.format = kFormatVersion;
  manifest.files.clear();
  for (const std::string& name : TRY(sys::list_dir(blocking, dir_))) {
    // A link to the template's memory is durable and checked with the template.
    if (manifest.kind == "sandbox" && name == "memory") continue;
    TRY(sys::fsync_path(blocking, path(name)));
    const std::uint64_t size = TRY(sys::file_size(path(name)));
    std::string digest = TRY(file_digest(blocking, path(name)));
    manifest.files.push_back({.name = name, .size = size, .digest = std::move(digest)});
  }
  TRY(sys::write_file_atomic(blocking, path(kManifestName), manifest_json(manifest), 0600));
  TRY(sys::fsync_path(blocking, dir_));
  TRY(put_in_place(dir_, final_dir_));
  const std::string replaced = std::exchange(dir_, {});
  TRY(sys::fsync_path(blocking, parent_of(final_dir_)));
  return sys::remove_tree(blocking, replaced);
}

Result<> Writer::discard(async::Blocking blocking) {
  const std::string dir = std::exchange(dir_, {});
  return dir.empty() ? Result<>{} : sys::remove_tree(blocking, dir);
}

Result<Manifest> read_manifest(async::Blocking /*blocking*/, const std::string& dir) {
  const std::string path = dir + "/" + kManifestName;
  const std::string text = TRY(sys::read_file(path, kMaxManifestBytes));
  return parse_manifest(text, path);
}

Result<> verify(async::Blocking blocking, const std::string& dir, const Manifest& manifest) {
  for (const Manifest::File& file : manifest.files) {
    const std::string path = dir + "/" + file.name;
    const auto size = sys::file_size(path);
    const auto digest =
        size ? file_digest(blocking, path) : Result<std::string>(std::unexpected(size.error()));
    if (digest && *size == file.size && *digest == file.digest) continue;
    const std::string why = digest ? "differs from its checksum" : digest.error().message();
    return fail(Error(Code::kDataLoss, fmt::format("snapshot file {} {}", path, why))
                    .with_reason("snapshot_corrupt"));
  }
  return {};
}

Result<> sweep_unpublished(async::Blocking blocking, const std::string& root) {
  if (!sys::is_directory(root)) return {};
  for (const std::string& name : TRY(sys::list_dir(blocking, root))) {
    if (name.find(kTmpMark) != std::string::npos) TRY(sys::remove_tree(blocking, root + "/" + name));
  }
  return {};
}

}  // namespace wrenn::snapshot
