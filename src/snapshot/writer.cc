#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

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

// Undoes put_in_place.
Result<> take_back(const std::string& from, const std::string& to) {
  const unsigned flags = sys::exists(from) ? RENAME_EXCHANGE : RENAME_NOREPLACE;
  if (::renameat2(AT_FDCWD, to.c_str(), AT_FDCWD, from.c_str(), flags) == 0) return {};
  return fail_errno("take back " + to);
}

// Removes what is no snapshot any more.
void remove_or_warn(async::Blocking blocking, const std::string& path) {
  const Result<> removed = sys::remove_tree(blocking, path);
  if (!removed) log::warn("left to the next sweep: {}", removed.error().to_string());
}

std::string temporary_name(const std::string& dir) {
  constexpr std::size_t kRandomCharacters = 12;
  return dir + std::string(kTmpMark) + random_id("").substr(0, kRandomCharacters);
}

// Fsyncs and digests the file, unless it is known; an entry that names a digest must agree.
Result<> seal(async::Blocking blocking, const std::string& dir, const std::string& name,
              const VerifiedFiles& verified, Manifest* manifest) {
  const std::string path = dir + "/" + name;
  auto known = verified.find(path);
  if (!known) {
    TRY(sys::fsync_path(blocking, path));
    known = TRY(file_digest(blocking, path));
  }
  auto entry = std::ranges::find(manifest->files, name, &Manifest::File::name);
  if (entry == manifest->files.end()) {
    entry = manifest->files.insert(entry, {.name = name, .size = 0, .digest = *known});
  }
  if (entry->digest != *known) {
    return fail(Error(Code::kDataLoss, path + " is not what it was when it was last verified")
                    .with_reason("snapshot_corrupt"));
  }
  entry->size = TRY(sys::file_size(path));
  return {};
}

}  // namespace

Result<Writer> Writer::create(async::Blocking /*blocking*/, std::string final_dir) {
  std::string dir = temporary_name(final_dir);
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

Result<Manifest> Writer::publish(async::Blocking blocking, Manifest manifest, const VerifiedFiles& verified) {
  manifest.format = kFormatVersion;
  for (const std::string& name : TRY(sys::list_dir(blocking, dir_)))
    TRY(seal(blocking, dir_, name, verified, &manifest));
  const std::string text = manifest_json(manifest);
  // What could not be read back must not be published.
  TRY(parse_manifest(text, path(kManifestName)));
  TRY(sys::write_file_atomic(blocking, path(kManifestName), text, 0600));
  TRY(put_in_place(dir_, final_dir_));
  // A rename that may not be on the disk is taken back, so that the caller's roll-back finds nothing of it.
  const Result<> synced = sys::fsync_path(blocking, parent_of(final_dir_));
  if (!synced) {
    const Result<> back = take_back(dir_, final_dir_);
    if (back) return fail(synced.error());
    log::error("{} stays published: {}; {}", final_dir_, synced.error().to_string(),
               back.error().to_string());
  }
  remove_or_warn(blocking, std::exchange(dir_, {}));
  return manifest;
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

Result<> verify(async::Blocking blocking, const std::string& dir, const Manifest& manifest,
                VerifiedFiles* verified) {
  for (const Manifest::File& file : manifest.files) {
    const std::string path = dir + "/" + file.name;
    const bool shared = manifest.kind == "template" || file.name == "memory";
    if (shared) {
      TRY(verified->verify(blocking, path, file.size, file.digest));
    } else {
      TRY(verify_file(blocking, path, file.size, file.digest));
    }
  }
  return {};
}

Result<> remove(async::Blocking blocking, const std::string& dir) {
  const std::string trash = temporary_name(dir);
  if (::rename(dir.c_str(), trash.c_str()) != 0) {
    return errno == ENOENT ? Result<>{} : Result<>(fail_errno("remove " + dir));
  }
  remove_or_warn(blocking, trash);
  return {};
}

Result<> sweep_unpublished(async::Blocking blocking, const std::string& root) {
  if (!sys::is_directory(root)) return {};
  for (const std::string& name : TRY(sys::list_dir(blocking, root))) {
    if (name.find(kTmpMark) != std::string::npos) remove_or_warn(blocking, root + "/" + name);
  }
  return {};
}

}  // namespace wrenn::snapshot
