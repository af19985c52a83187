#include "sandbox/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>

#include "base/bytes.h"
#include "sys/fd.h"
#include "sys/file.h"

namespace wrenn::sandbox {

Result<> replace_file(async::Blocking blocking, const std::string& path, std::string_view content) {
  const std::string temporary = random_id(path + ".new-");
  Result<> written = sys::write_file(blocking, temporary, content, 0600);
  if (written) written = sys::rename_file(temporary, path);
  if (!written) ::unlink(temporary.c_str());
  return written;
}

Result<> link_or_copy(async::Blocking blocking, const std::string& from, const std::string& to) {
  TRY(sys::remove_file(blocking, to));
  if (::link(from.c_str(), to.c_str()) == 0) return {};
  if (errno != EXDEV && errno != EPERM && errno != EMLINK) return fail_errno("link " + from);
  return sys::copy_sparse(blocking, from, to);
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

Result<std::string> file_identity(const std::string& path) {
  struct stat st{};
  if (::stat(path.c_str(), &st) != 0) return fail_errno("stat " + path);
  return fmt::format("{}-{}.{:09}", st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

}  // namespace wrenn::sandbox
