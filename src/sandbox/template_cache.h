#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "async/blocking.h"
#include "base/result.h"

// Which template snapshots a host keeps. Each is as big as what its guest wrote while booting, and every
// shape has its own, so without bounds clients who ask for many shapes would fill the disk.
namespace wrenn::sandbox {

// True for the sizes of memory that get template snapshots: multiples of 128 MiB up to 1 GiB, of 256 MiB up
// to 4 GiB, of 1 GiB above. A sandbox of another size boots its guest.
bool is_template_size(int memory_mib);

struct CachedSnapshot {
  std::string dir;
  std::uint64_t bytes = 0;   // that it occupies
  std::int64_t used_ns = 0;  // Unix time of its last use
  bool current = false;      // a create on this host, from today's image, could use it
};

// What there is below `images_dir`. `host_key_of(version of an image)` is how the keys of its snapshots end.
Result<std::vector<CachedSnapshot>> cached_snapshots(
    async::Blocking blocking, const std::string& images_dir,
    const std::function<std::string(std::string)>& host_key_of);
// The folders to remove so that the others fit into `budget` bytes: first those that are of no use any more,
// then those used longest ago, none of `keep`.
std::vector<std::string> choose_evicted(std::vector<CachedSnapshot> found, std::uint64_t budget,
                                        const std::set<std::string>& keep);
// `wanted`, or for 0 a tenth of the filesystem of `dir`.
Result<std::uint64_t> cache_budget(const std::string& dir, std::uint64_t wanted);
// Says that the snapshot is used now.
void mark_used(const std::string& dir);

}  // namespace wrenn::sandbox
