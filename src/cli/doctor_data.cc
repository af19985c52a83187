#include "cli/doctor_data.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "cli/doctor_checks.h"
#include "cli/up.h"
#include "sys/file.h"

namespace wrenn::cli {
namespace {

constexpr std::uint64_t kWantedDiskMib = 5 * 1024;
constexpr std::uint64_t kNeededDiskMib = 1024;
constexpr std::uint64_t kMib = std::uint64_t{1024} * 1024;
constexpr std::size_t kReflinkBytes = 4096;

constexpr Check kDisk{"disk", "each sandbox has a disk, and each pause stores its memory"};
constexpr Check kReflink{"reflink", "disks of new sandboxes share blocks instead of being copied"};
constexpr Check kLinks{"hard links", "sandboxes share images and memory with their template by hard links"};
constexpr Check kGuest{"guest image", "there is nothing to boot without it"};

// A new file without a name.
Result<sys::Fd> nameless_file(const std::string& folder) {
  std::string path = folder + "/.wrenn-doctor-XXXXXX";
  sys::Fd fd(::mkostemp(path.data(), O_CLOEXEC));
  if (!fd) return fail_errno("make a file in " + folder);
  TRY(sys::remove_file(async::Blocking::without_loop(), path));
  return fd;
}

Finding check_disk(const std::string& place) {
  struct statvfs status{};
  if (::statvfs(place.c_str(), &status) != 0) return kDisk.bad("cannot look at " + place, "check the path");
  return judge_disk(status.f_bavail * status.f_frsize / kMib, place);
}

Finding check_reflink(const std::string& place) {
  const auto can = can_reflink(place);
  if (!can) return kReflink.warn("not known: " + can.error().message(), "sudo wrenn doctor");
  if (*can) return kReflink.ok("works below " + place);
  return kReflink.warn("not below " + place + ": written blocks are copied",
                       "keep it on XFS (mkfs.xfs -m reflink=1) or btrfs");
}

Finding check_links(const Places& places) {
  std::vector<FileSystem> folders;
  for (const std::string& folder : {places.images, places.snapshots, places.sandboxes, places.kernels}) {
    struct statx info{};
    const std::string there = nearest_folder(folder);
    if (::statx(AT_FDCWD, there.c_str(), 0, STATX_BASIC_STATS | STATX_MNT_ID, &info) != 0) {
      return kLinks.warn("cannot look at " + there, "check the path");
    }
    const std::uint64_t device = (std::uint64_t{info.stx_dev_major} << 32U) | info.stx_dev_minor;
    folders.push_back({folder, device, (info.stx_mask & STATX_MNT_ID) != 0 ? info.stx_mnt_id : 0});
  }
  return judge_links(folders);
}

Finding check_guest(const std::string& dir) {
  const auto missing = missing_guest_files(dir);
  if (missing.empty()) return kGuest.ok("kernel and template minimal below " + dir);
  return kGuest.bad(missing.front() + " is missing", "scripts/build-guest.sh");
}

}  // namespace

Finding judge_disk(std::uint64_t free_mib, const std::string& place) {
  const std::string detail = size_text(free_mib * kMib) + " free below " + place;
  if (free_mib < kNeededDiskMib) return kDisk.bad(detail, "free at least 1 GiB, or set WRENN_DIR");
  if (free_mib < kWantedDiskMib) return kDisk.warn(detail, "5 GiB or more leave room for snapshots");
  return kDisk.ok(detail);
}

Finding judge_links(const std::vector<FileSystem>& folders) {
  for (const auto& other : folders) {
    const FileSystem& first = folders.front();
    if (other.device == first.device && other.mount == first.mount) continue;
    return kLinks.warn(first.folder + " and " + other.folder + " are not in one mount: files are copied",
                       "keep all folders of Wrenn in one file system and mount");
  }
  return kLinks.ok("images, snapshots, sandboxes and kernels are in one mount");
}

Result<bool> can_reflink(const std::string& folder) {
  const sys::Fd from = TRY(nameless_file(folder));
  const sys::Fd to = TRY(nameless_file(folder));
  const std::string data(kReflinkBytes, 'w');
  TRY(sys::pwrite_all(async::Blocking::without_loop(), from.get(), data, 0));
  if (::ioctl(to.get(), FICLONE, from.get()) != 0) {
    constexpr std::array kCannot{EOPNOTSUPP, ENOTTY, EINVAL, ENOSYS, EXDEV};
    if (std::find(kCannot.begin(), kCannot.end(), errno) != kCannot.end()) return false;
    return fail_errno("share blocks in " + folder);
  }
  std::string copy(kReflinkBytes, '\0');
  TRY(sys::pread_all(async::Blocking::without_loop(), to.get(), copy.data(), copy.size(), 0));
  return copy == data;
}

std::vector<Finding> check_data(const Places& places) {
  const std::string place = nearest_folder(places.dir);
  return {check_guest(places.dir), check_disk(place), check_reflink(place), check_links(places)};
}

}  // namespace wrenn::cli
