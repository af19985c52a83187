#include "sandbox/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>

#include "host/host.h"
#include "sandbox/limits.h"
#include "sys/fd.h"
#include "sys/file.h"

namespace wrenn::sandbox {

Result<> check_space(const std::string& dir, std::uint64_t needed) {
  const std::uint64_t available = TRY(host::free_bytes(dir));
  if (available >= needed + kDiskReserveBytes) return {};
  return fail(
      Error(Code::kResourceExhausted, fmt::format("{} MiB are needed and {} MiB are free",
                                                  (needed + kDiskReserveBytes) / kMiB, available / kMiB))
          .with_reason("disk_full"));
}

Result<bool> present(const std::string& path) {
  struct stat st{};
  if (::lstat(path.c_str(), &st) == 0) return true;
  if (errno == ENOENT) return false;
  return fail_errno("stat " + path);
}

Result<> link_or_copy(async::Blocking blocking, const std::string& from, const std::string& to) {
  TRY(sys::remove_file(blocking, to));
  if (::link(from.c_str(), to.c_str()) == 0) return {};
  if (errno != EXDEV && errno != EPERM && errno != EMLINK) return fail_errno("link " + from);
  return sys::copy_sparse(blocking, from, to);
}

Result<> sync_copy(async::Blocking blocking, const std::string& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return fail_errno("stat " + path);
  return info.st_nlink > 1 ? Result<>{} : sys::fsync_path(blocking, path);
}

Result<> link_image(async::Blocking blocking, const std::string& from, const std::string& version,
                    const std::string& to) {
  TRY(link_or_copy(blocking, from, to));
  if (TRY(image_version(to)) == version) return {};
  return fail(Error(Code::kAborted, from + " was replaced meanwhile").with_reason(kImageReplaced));
}

Result<> reserve_on_tmpfs(async::Blocking /*blocking*/, const std::string& path) {
  const sys::Fd file = TRY(sys::open_file(path, O_RDWR));
  struct statfs system{};
  struct stat info{};
  if (::fstatfs(file.get(), &system) != 0 || ::fstat(file.get(), &info) != 0)
    return fail_errno("stat " + path);
  if (system.f_type != TMPFS_MAGIC) return {};
  const int failed = ::posix_fallocate(file.get(), 0, info.st_size);
  if (failed != 0) return fail(Error::from_errno(failed, "allocate " + path));
  return {};
}

std::uint64_t allocated_bytes(async::Blocking blocking, const std::string& dir) {
  std::uint64_t total = 0;
  const auto names = sys::list_dir(blocking, dir);
  if (!names) return 0;
  for (const auto& name : *names) {
    struct stat st{};
    if (::lstat((dir + "/" + name).c_str(), &st) == 0)
      total += static_cast<std::uint64_t>(st.st_blocks) * 512;
  }
  return total;
}

Result<std::string> image_version(const std::string& path) {
  constexpr std::int64_t kNanosPerSecond = 1'000'000'000;
  const sys::FileIdentity file = TRY(sys::file_identity(path));
  return fmt::format("{}-{}.{:09}", file.size, file.modified_ns / kNanosPerSecond,
                     file.modified_ns % kNanosPerSecond);
}

}  // namespace wrenn::sandbox
