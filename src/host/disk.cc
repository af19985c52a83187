#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "host/host.h"
#include "host/limits.h"
#include "sys/file.h"
#include "sys/process.h"

namespace wrenn::host {

Result<> make_overlay_disk(async::Blocking blocking, const std::string& path, std::uint64_t size_bytes) {
  {
    const auto file = TRY(sys::open_file(path, O_WRONLY | O_CREAT | O_EXCL, 0600));
    if (::ftruncate(file.get(), static_cast<off_t>(size_bytes)) != 0) return fail_errno("size " + path);
  }
  // A new file is zeros, so nothing need be zeroed: not by us, and not by each guest's kernel behind its
  // back. With a small journal a fresh disk takes a few hundred KiB of the host's.
  sys::SpawnSpec spec;
  spec.argv = {"mke2fs",
               "-q",
               "-t",
               "ext4",
               "-F",
               "-m",
               "0",
               "-J",
               "size=4",
               "-E",
               "assume_storage_prezeroed=1,nodiscard",
               "-O",
               "^resize_inode",
               path};
  const auto made = sys::run_checked(blocking, std::move(spec), kCommandLimit);
  if (made) return {};
  (void)sys::remove_file(blocking, path);
  return fail(Error(made.error()).in("make an overlay disk"));
}

Result<std::uint64_t> free_bytes(const std::string& path) {
  struct statvfs info{};
  if (::statvfs(path.c_str(), &info) != 0) return fail_errno("statvfs " + path);
  return static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize;
}

}  // namespace wrenn::host
