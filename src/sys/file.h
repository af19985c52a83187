#pragma once

#include <sys/types.h>

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "async/blocking.h"
#include "base/result.h"
#include "sys/fd.h"

// File helpers. Those that may wait for a disk or a pipe take an async::Blocking; the others touch metadata,
// or read files as small as a journal or those of /proc. Errors carry errno (Error::sys_errno) and name the
// path.
namespace wrenn::sys {

inline constexpr std::size_t kDefaultReadLimit = std::size_t{16} * 1024 * 1024;

// open(2) with O_CLOEXEC added.
Result<Fd> open_file(const std::string& path, int flags, mode_t mode = 0600);
// The whole of a small file, also of /proc; kResourceExhausted reason "too_large" above `limit`.
Result<std::string> read_file(const std::string& path, std::size_t limit = kDefaultReadLimit);
// Creates or truncates and writes in place: for /proc, /sys and files that need no durability.
Result<> write_file(async::Blocking blocking, const std::string& path, std::string_view data,
                    mode_t mode = 0644);
// Writes to an existing file without creating or truncating it (kernel control files).
Result<> write_existing(const std::string& path, std::string_view data);
// What is on the disk when a file's replacement returns, should the host lose its power then.
enum class Durability : std::uint8_t {
  kAtomic,   // the old content or the new
  kDurable,  // the new content
};
// The only way to replace a file: temporary file, fsync, rename, and for kDurable fsync of the folder. At
// every moment, after a power cut too, the file has the old or the new content, never a part and never
// nothing.
Result<> write_file_atomic(async::Blocking blocking, const std::string& path, std::string_view data,
                           mode_t mode = 0644, Durability durability = Durability::kDurable);
Result<> write_all(async::Blocking blocking, int fd, std::string_view data);
Result<> pwrite_all(async::Blocking blocking, int fd, std::string_view data, std::uint64_t offset);
// Exactly `size` bytes into `out`; kDataLoss when the file ends before.
Result<> pread_all(async::Blocking blocking, int fd, char* out, std::size_t size, std::uint64_t offset);

bool exists(const std::string& path);
bool is_directory(const std::string& path);
// Tells one version of a file's content from another without reading it.
struct FileIdentity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size = 0;
  std::int64_t modified_ns = 0;
  auto operator<=>(const FileIdentity&) const = default;
};
Result<FileIdentity> file_identity(const std::string& path);
// Bytes of the file (not blocks).
Result<std::uint64_t> file_size(const std::string& path);
// mkdir -p; ok when it exists already.
Result<> mkdirs(const std::string& path, mode_t mode = 0755);
// rm -rf, never following symlinks; ok when absent.
Result<> remove_tree(async::Blocking blocking, const std::string& path);
// unlink; ok when absent.
Result<> remove_file(async::Blocking blocking, const std::string& path);
Result<> rename_file(const std::string& from, const std::string& to);
Result<> fsync_path(async::Blocking blocking, const std::string& path);
// The names in a folder (without . and ..), sorted.
Result<std::vector<std::string>> list_dir(async::Blocking blocking, const std::string& path);
// Copies data extents only, so holes stay holes; shares blocks (reflink) where the filesystem can. The copy
// has the source's time of modification. `to` must not exist; it is removed again on failure. Not fsynced.
Result<> copy_sparse(async::Blocking blocking, const std::string& from, const std::string& to,
                     mode_t mode = 0600);
// Moves at most `limit` bytes from where `from` stands to where `to` stands, inside the kernel where it can;
// answers how many, 0 at the end.
Result<std::size_t> append_some(async::Blocking blocking, int from, int to, std::size_t limit);
// An exclusive flock held as long as the Fd lives; kFailedPrecondition when another process holds it.
Result<Fd> lock_file(const std::string& path);

// A unix socket's address holds 107 characters: `path` by a shorter name that is good as long as `folder` is.
struct ShortPath {
  Fd folder;
  std::string path;
};
Result<ShortPath> shorten(const std::string& path);

// A listening unix socket at `path` (any length), mode 0600; a stale socket file is replaced. A client can
// connect before anybody accepts.
Result<Fd> listen_unix(const std::string& path);

// A fresh folder below $TMPDIR or /tmp, removed when destroyed: let it end where it was made, off the loop.
class TempDir {
 public:
  static Result<TempDir> make(async::Blocking blocking, std::string_view prefix = "wrenn");
  TempDir(TempDir&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  TempDir& operator=(TempDir&&) = delete;
  ~TempDir();
  const std::string& path() const { return path_; }

 private:
  explicit TempDir(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace wrenn::sys
