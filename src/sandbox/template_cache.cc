#include "sandbox/template_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <tuple>

#include "base/log.h"
#include "sandbox/files.h"
#include "sandbox/limits.h"
#include "sys/file.h"

namespace wrenn::sandbox {

bool is_template_size(int memory_mib) {
  if (memory_mib <= 1024) return memory_mib % 128 == 0;
  if (memory_mib <= 4096) return memory_mib % 256 == 0;
  return memory_mib % 1024 == 0;
}

Result<std::vector<CachedSnapshot>> cached_snapshots(
    async::Blocking blocking, const std::string& images_dir,
    const std::function<std::string(std::string)>& host_key_of) {
  std::vector<CachedSnapshot> found;
  if (!sys::is_directory(images_dir)) return found;
  for (const std::string& name : TRY(sys::list_dir(blocking, images_dir))) {
    const std::string snapshots = images_dir + "/" + name + "/snapshots";
    if (!sys::is_directory(snapshots)) continue;
    const auto version = image_version(images_dir + "/" + name + "/rootfs.ext4");
    const std::string ending = version ? host_key_of(*version) : "";
    for (const std::string& key : TRY(sys::list_dir(blocking, snapshots))) {
      CachedSnapshot each{.dir = snapshots + "/" + key};
      const auto folder = sys::file_identity(each.dir);
      if (!folder) continue;
      each.bytes = allocated_bytes(blocking, each.dir);
      each.used_ns = folder->modified_ns;
      each.current = !ending.empty() && key.ends_with(ending);
      found.push_back(std::move(each));
    }
  }
  return found;
}

std::vector<std::string> choose_evicted(std::vector<CachedSnapshot> found, std::uint64_t budget,
                                        const std::set<std::string>& keep) {
  std::ranges::sort(
      found, {}, [](const CachedSnapshot& each) { return std::tuple(each.current, each.used_ns, each.dir); });
  std::uint64_t total = 0;
  for (const CachedSnapshot& each : found) total += each.bytes;
  std::vector<std::string> evicted;
  for (const CachedSnapshot& each : found) {
    if (total <= budget) break;
    if (keep.contains(each.dir)) continue;
    total -= each.bytes;
    evicted.push_back(each.dir);
  }
  return evicted;
}

Result<std::uint64_t> cache_budget(const std::string& dir, std::uint64_t wanted) {
  if (wanted != 0) return wanted;
  struct statvfs info{};
  if (::statvfs(dir.c_str(), &info) != 0) return fail_errno("statvfs " + dir);
  return static_cast<std::uint64_t>(info.f_blocks) * info.f_frsize / kTemplateCacheShare;
}

void mark_used(const std::string& dir) {
  if (::utimensat(AT_FDCWD, dir.c_str(), nullptr, 0) == 0) return;
  log::warn("{}", fail_errno("set the time of " + dir).error().to_string());
}

}  // namespace wrenn::sandbox
