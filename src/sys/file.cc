#include "sys/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include "base/bytes.h"
#include "base/log.h"

namespace wrenn::sys {
namespace {

constexpr int kListenBacklog = 8;

constexpr std::size_t kCopyChunk = std::size_t{1024} * 1024;
constexpr int kMaxDepth = 4096;

std::unexpected<Error> fail_path(std::string_view call, const std::string& path) {
  return fail_errno(fmt::format("{} {}", call, path));
}

std::string parent_of(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

struct DirCloser {
  void operator()(DIR* dir) const { ::closedir(dir); }
};
using Dir = std::unique_ptr<DIR, DirCloser>;

bool is_dot(const char* name) {
  const std::string_view text(name);
  return text == "." || text == "..";
}

Result<> remove_entry(int parent, const char* name, const std::string& path, int depth);

Result<> remove_children(int parent, const char* name, const std::string& path, int depth) {
  if (depth > kMaxDepth) return fail(Code::kInvalidArgument, "folders too deep: " + path);
  Fd fd(::openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return errno == ENOENT ? Result<>{} : fail_path("open", path);
  Dir dir(::fdopendir(fd.get()));
  if (!dir) return fail_path("fdopendir", path);
  fd.release();
  // Names are collected first: unlinking while reading may skip entries.
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(dir.get())) {
    if (!is_dot(entry->d_name)) names.emplace_back(entry->d_name);
  }
  for (const auto& child : names) {
    TRY(remove_entry(::dirfd(dir.get()), child.c_str(), path + "/" + child, depth + 1));
  }
  return {};
}

Result<> remove_entry(int parent, const char* name, const std::string& path, int depth) {
  if (::unlinkat(parent, name, 0) == 0 || errno == ENOENT) return {};
  if (errno != EISDIR && errno != EPERM) return fail_path("unlink", path);
  TRY(remove_children(parent, name, path, depth));
  if (::unlinkat(parent, name, AT_REMOVEDIR) != 0 && errno != ENOENT) return fail_path("rmdir", path);
  return {};
}

Result<> copy_range(async::Blocking blocking, int from, int to, std::uint64_t begin, std::uint64_t end,
                    const std::string& path) {
  auto offset_in = static_cast<off_t>(begin);
  auto offset_out = static_cast<off_t>(begin);
  std::vector<char> buffer;
  while (static_cast<std::uint64_t>(offset_in) < end) {
    const std::size_t want = std::min<std::uint64_t>(end - static_cast<std::uint64_t>(offset_in), kCopyChunk);
    const ssize_t moved =
        buffer.empty() ? ::copy_file_range(from, &offset_in, to, &offset_out, want, 0) : ssize_t{-1};
    if (moved > 0) continue;
    if (moved == 0) break;
    // Not between these filesystems: copy through memory.
    if (buffer.empty() && errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS) {
      return fail_path("copy", path);
    }
    buffer.resize(kCopyChunk);
    const ssize_t got = ::pread(from, buffer.data(), want, offset_in);
    if (got < 0) return fail_path("read", path);
    if (got == 0) break;
    TRY(pwrite_all(blocking, to, {buffer.data(), static_cast<std::size_t>(got)},
                   static_cast<std::uint64_t>(offset_out)));
    offset_in += got;
    offset_out += got;
  }
  return {};
}

Result<> copy_extents(async::Blocking blocking, int from, int to, off_t size, const std::string& path) {
  if (::ioctl(to, FICLONE, from) == 0) return {};
  if (::ftruncate(to, size) != 0) return fail_path("truncate", path);
  off_t data = 0;
  while (data < size) {
    data = ::lseek(from, data, SEEK_DATA);
    if (data < 0) return errno == ENXIO ? Result<>{} : fail_path("seek", path);
    const off_t hole = ::lseek(from, data, SEEK_HOLE);
    if (hole < 0) return fail_path("seek", path);
    TRY(copy_range(blocking, from, to, static_cast<std::uint64_t>(data), static_cast<std::uint64_t>(hole),
                   path));
    data = hole;
  }
  return {};
}

Result<> write_bytes(int fd, std::string_view data) {
  while (!data.empty()) {
    const ssize_t put = ::write(fd, data.data(), data.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail_errno("write");
    if (put == 0) return fail(Code::kUnavailable, "write: nothing can be written any more");
    data.remove_prefix(static_cast<std::size_t>(put));
  }
  return {};
}

}  // namespace

Result<Fd> open_file(const std::string& path, int flags, mode_t mode) {
  Fd fd(::open(path.c_str(), flags | O_CLOEXEC, mode));
  if (!fd) return fail_path("open", path);
  return fd;
}

Result<std::string> read_file(const std::string& path, std::size_t limit) {
  const Fd fd = TRY(open_file(path, O_RDONLY));
  std::string out;
  struct stat info{};
  if (::fstat(fd.get(), &info) == 0 && info.st_size > 0) {
    out.reserve(std::min<std::size_t>(static_cast<std::size_t>(info.st_size), limit) + 1);
  }
  std::array<char, 16 * 1024> buffer;
  while (true) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_path("read", path);
    if (got == 0) return out;
    if (out.size() + static_cast<std::size_t>(got) > limit) {
      return fail(Error(Code::kResourceExhausted, fmt::format("{} is longer than {} bytes", path, limit))
                      .with_reason("too_large"));
    }
    out.append(buffer.data(), static_cast<std::size_t>(got));
  }
}

Result<> write_all(async::Blocking /*blocking*/, int fd, std::string_view data) {
  return write_bytes(fd, data);
}

Result<> pwrite_all(async::Blocking /*blocking*/, int fd, std::string_view data, std::uint64_t offset) {
  while (!data.empty()) {
    const ssize_t put = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail_errno("pwrite");
    // So does the memory of a process that has ended answer.
    if (put == 0) return fail(Code::kUnavailable, "pwrite: nothing can be written any more");
    data.remove_prefix(static_cast<std::size_t>(put));
    offset += static_cast<std::uint64_t>(put);
  }
  return {};
}

Result<> pread_all(async::Blocking /*blocking*/, int fd, char* out, std::size_t size, std::uint64_t offset) {
  while (size > 0) {
    const ssize_t got = ::pread(fd, out, size, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno("pread");
    if (got == 0) return fail(Code::kDataLoss, "pread: the file ends early");
    out += got;
    size -= static_cast<std::size_t>(got);
    offset += static_cast<std::uint64_t>(got);
  }
  return {};
}

Result<> write_file(async::Blocking /*blocking*/, const std::string& path, std::string_view data,
                    mode_t mode) {
  const Fd fd = TRY(open_file(path, O_WRONLY | O_CREAT | O_TRUNC, mode));
  const Result<> written = write_bytes(fd.get(), data);
  if (!written) return fail(Error(written.error()).in(path));
  return {};
}

Result<> write_existing(const std::string& path, std::string_view data) {
  const Fd fd = TRY(open_file(path, O_WRONLY));
  const Result<> written = write_bytes(fd.get(), data);
  if (!written) return fail(Error(written.error()).in(path));
  return {};
}

Result<> write_file_atomic(async::Blocking blocking, const std::string& path, std::string_view data,
                           mode_t mode, Durability durability) {
  const std::string temporary = path + random_id(".tmp-");
  const auto attempt = [&]() -> Result<> {
    const Fd fd = TRY(open_file(temporary, O_WRONLY | O_CREAT | O_EXCL, mode));
    TRY(write_all(blocking, fd.get(), data));
    if (::fchmod(fd.get(), mode) != 0) return fail_path("chmod", temporary);
    if (::fsync(fd.get()) != 0) return fail_path("fsync", temporary);
    TRY(rename_file(temporary, path));
    return durability == Durability::kDurable ? fsync_path(blocking, parent_of(path)) : Result<>{};
  };
  Result<> result = attempt();
  if (!result) ::unlink(temporary.c_str());
  return result;
}

bool exists(const std::string& path) {
  struct stat info{};
  return ::lstat(path.c_str(), &info) == 0;
}

bool is_directory(const std::string& path) {
  struct stat info{};
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

Result<FileIdentity> file_identity(const std::string& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return fail_path("stat", path);
  constexpr std::int64_t kNanosPerSecond = 1'000'000'000;
  return FileIdentity{.device = info.st_dev,
                      .inode = info.st_ino,
                      .size = static_cast<std::uint64_t>(info.st_size),
                      .modified_ns = info.st_mtim.tv_sec * kNanosPerSecond + info.st_mtim.tv_nsec};
}

Result<std::uint64_t> file_size(const std::string& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return fail_path("stat", path);
  return static_cast<std::uint64_t>(info.st_size);
}

Result<> mkdirs(const std::string& path, mode_t mode) {
  for (std::size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string part = path.substr(0, slash);
    if (::mkdir(part.c_str(), mode) != 0 && errno != EEXIST) {
      // A read-only parent that exists answers EROFS instead of EEXIST on some filesystems.
      if (!is_directory(part)) return fail_path("mkdir", part);
    }
    if (slash == std::string::npos) break;
  }
  if (!is_directory(path)) return fail(Error::from_errno(ENOTDIR, "mkdir " + path));
  return {};
}

Result<> remove_tree(async::Blocking /*blocking*/, const std::string& path) {
  return remove_entry(AT_FDCWD, path.c_str(), path, 0);
}

Result<> remove_file(async::Blocking /*blocking*/, const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_path("unlink", path);
  return {};
}

Result<> rename_file(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return fail_path("rename", from + " to " + to);
  return {};
}

Result<> fsync_path(async::Blocking /*blocking*/, const std::string& path) {
  const Fd fd = TRY(open_file(path, O_RDONLY));
  if (::fsync(fd.get()) != 0) return fail_path("fsync", path);
  return {};
}

Result<std::vector<std::string>> list_dir(async::Blocking /*blocking*/, const std::string& path) {
  const Dir dir(::opendir(path.c_str()));
  if (!dir) return fail_path("opendir", path);
  std::vector<std::string> names;
  while (true) {
    errno = 0;
    const dirent* entry = ::readdir(dir.get());
    if (entry == nullptr) break;
    if (!is_dot(entry->d_name)) names.emplace_back(entry->d_name);
  }
  if (errno != 0) return fail_path("readdir", path);
  std::sort(names.begin(), names.end());
  return names;
}

Result<> copy_sparse(async::Blocking blocking, const std::string& from, const std::string& to, mode_t mode) {
  const Fd source = TRY(open_file(from, O_RDONLY));
  struct stat info{};
  if (::fstat(source.get(), &info) != 0) return fail_path("stat", from);
  const Fd target = TRY(open_file(to, O_RDWR | O_CREAT | O_EXCL, mode));
  Result<> copied = copy_extents(blocking, source.get(), target.get(), info.st_size, to);
  const std::array<timespec, 2> times{timespec{.tv_sec = 0, .tv_nsec = UTIME_OMIT}, info.st_mtim};
  if (copied && ::futimens(target.get(), times.data()) != 0) copied = fail_path("set the time of", to);
  if (!copied) ::unlink(to.c_str());
  return copied;
}

Result<std::size_t> append_some(async::Blocking blocking, int from, int to, std::size_t limit) {
  const ssize_t moved = ::copy_file_range(from, nullptr, to, nullptr, limit, 0);
  if (moved > 0) return static_cast<std::size_t>(moved);
  // Other filesystems, and files of /proc, which say they are empty.
  if (moved < 0 && errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP) return fail_errno("copy");
  std::string buffer(std::min(limit, kCopyChunk), '\0');
  const ssize_t got = ::read(from, buffer.data(), buffer.size());
  if (got < 0) return fail_errno("read");
  TRY(write_all(blocking, to, std::string_view(buffer).substr(0, static_cast<std::size_t>(got))));
  return static_cast<std::size_t>(got);
}

Result<Fd> lock_file(const std::string& path) {
  Fd fd = TRY(open_file(path, O_RDWR | O_CREAT, 0600));
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return fail(Code::kFailedPrecondition, path + " is locked by another process");
    return fail_path("flock", path);
  }
  return fd;
}

Result<TempDir> TempDir::make(async::Blocking /*blocking*/, std::string_view prefix) {
  const char* base = std::getenv("TMPDIR");
  std::string path = fmt::format("{}/{}-XXXXXX", base != nullptr && *base != '\0' ? base : "/tmp", prefix);
  if (::mkdtemp(path.data()) == nullptr) return fail_path("mkdtemp", path);
  return TempDir(std::move(path));
}

TempDir::~TempDir() {
  if (path_.empty()) return;
  const Result<> removed = remove_entry(AT_FDCWD, path_.c_str(), path_, 0);
  if (!removed) log::warn("temporary folder: {}", removed.error().to_string());
}

Result<ShortPath> shorten(const std::string& path) {
  const auto slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  Fd fd(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno("open " + folder);
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  std::string through = "/proc/self/fd/" + std::to_string(fd.get()) + "/" + name;
  if (through.size() >= sizeof(sockaddr_un::sun_path))
    return fail(Code::kInvalidArgument, path + ": name too long");
  return ShortPath{.folder = std::move(fd), .path = std::move(through)};
}

Result<Fd> listen_unix(const std::string& path) {
  const ShortPath place = TRY(shorten(path));
  ::unlink(place.path.c_str());
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno("socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  place.path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail_errno("bind " + path);
  }
  if (::chmod(place.path.c_str(), 0600) != 0) return fail_errno("chmod " + path);
  if (::listen(fd.get(), kListenBacklog) != 0) return fail_errno("listen " + path);
  return fd;
}

}  // namespace wrenn::sys
