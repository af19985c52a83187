#include "sandbox/disk_reserve.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/log.h"
#include "sandbox/files.h"
#include "sandbox/limits.h"
#include "sys/file.h"

namespace wrenn::sandbox {
namespace {

std::string reserve_path(const std::string& sandboxes_dir) { return sandboxes_dir + "/.reserve"; }

}  // namespace

bool use_disk_reserve(async::Blocking /*blocking*/, const std::string& sandboxes_dir) {
  if (::unlink(reserve_path(sandboxes_dir).c_str()) != 0) return false;
  log::warn("the disk of {} is full; the space reserved for journals is used now", sandboxes_dir);
  return true;
}

Result<> keep_disk_reserve(async::Blocking blocking, const std::string& sandboxes_dir) {
  const std::string path = reserve_path(sandboxes_dir);
  if (sys::exists(path) || !check_space(sandboxes_dir, kJournalReserveBytes)) return {};
  const auto file = TRY(sys::open_file(path, O_WRONLY | O_CREAT | O_EXCL, 0600));
  const int failed = ::posix_fallocate(file.get(), 0, static_cast<off_t>(kJournalReserveBytes));
  if (failed == 0) return {};
  TRY(sys::remove_file(blocking, path));
  return fail(Error::from_errno(failed, "allocate " + path));
}

}  // namespace wrenn::sandbox
