#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/async.h"

// What a host lends a VM: network slots, cgroups, disks.
namespace wrenn::host {

// Slot N (1..32767): netns wrenn-N; in it tap0 (169.254.0.22/30, peer of every guest's 169.254.0.21) and
// eth0, one end of a veth pair out of 10.12.0.0/16 (/31 at offset 2N); on the host wrenn-vN and a route for
// host_ip = 10.11.(N/256).(N%256) to it. nftables tables `wrenn` in the namespace and `wrenn_agent` on the
// host drop by default: IPv6, guest to host, to other guests, to private, link-local and metadata ranges, and
// spoofed sources. Only the agent reaches the guest, at host_ip. The VM's monitor runs as user and group
// `uid`, to whom tap0 belongs.
struct Slot {
  int index = 0;
  std::string netns;
  std::string host_ip;
  std::uint32_t uid = 0;
};

struct NetworkOptions {
  int ready_slots = 4;   // kept prepared ahead of use, 0..64
  int max_slots = 4096;  // 1..32767
  bool internet = true;  // guests may reach public addresses
  // A guest's traffic each way beyond this is dropped; a second's worth may pass at once. 0: no limit.
  std::uint64_t bytes_per_sec = 0;
  // A guest's connections beyond these are dropped, those of UDP, ICMP and all else counted too: the kernel
  // keeps track of each, in a table that the whole host shares. How many it may have, and how many it may
  // begin a second, of which a second's worth may pass at once. 0: no limit.
  int connections = 2048;
  int connections_per_sec = 500;
};

class SlotPool {
 public:
  SlotPool(asio::any_io_executor executor, asio::thread_pool* pool, NetworkOptions options);
  ~SlotPool();
  // Checks or sets ip_forward, installs the host's tables, sweeps slots not in `in_use` left by an earlier
  // agent, starts filling. A slot in which a process lives is swept only after that process has ended.
  Task<> start(std::vector<int> in_use);
  // For a slot that start() left for the process in it, whose owner has been found: true, and release() gives
  // it back. False when the index is free, or another's by now.
  bool claim(int index);
  // A ready slot, or one made now. kResourceExhausted reason "no_network_slots".
  Task<Slot> acquire();
  // Removed in the background, not before the last process in it has ended; never fails the caller. Without
  // effect on a slot that is being removed already.
  void release(int index);
  // The description of a slot in use (after a restart).
  static Slot describe(int index);
  // Removes every unused slot; slots in use stay with their VMs, and the host's table stays with them.
  Task<> stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// None has a default: one that does not fit would end the VM.
struct CgroupLimits {
  int vcpus = 0;                   // CPU quota: this many CPUs
  std::uint64_t memory_bytes = 0;  // hard limit, VMM overhead included
  std::uint64_t max_pids = 0;      // processes and threads
};

// A cgroup per VM on cgroup v2, or on v1's cpu, memory and pids hierarchies.
class CgroupManager {
 public:
  // Finds the hierarchies. kFailedPrecondition with the fix when none is usable.
  static Result<CgroupManager> detect(async::Blocking blocking, std::string parent = "wrenn");
  std::string version() const;  // "v1" or "v2"
  // kInvalidArgument if a limit is 0.
  Result<> create(async::Blocking blocking, const std::string& id, const CgroupLimits& limits);
  // cgroup.procs files that a process writes itself into.
  std::vector<std::string> procs_files(const std::string& id) const;
  // Kills what is left inside and removes it; ok when absent.
  Result<> remove(async::Blocking blocking, const std::string& id);
  // As remove, but fails while a process lives inside.
  Result<> remove_empty(async::Blocking blocking, const std::string& id);
  // True while a process lives inside; false when it is absent.
  Result<bool> populated(async::Blocking blocking, const std::string& id) const;
  Result<std::vector<std::string>> list(async::Blocking blocking) const;
  struct Usage {
    std::uint64_t cpu_time_us = 0;
    std::uint64_t memory_bytes = 0;
  };
  Result<Usage> usage(const std::string& id) const;

 private:
  bool unified_ = false;
  std::vector<std::string> roots_;
};

// A sparse file with an empty ext4 inside, made by mke2fs.
Result<> make_overlay_disk(async::Blocking blocking, const std::string& path, std::uint64_t size_bytes);
// Free bytes of the filesystem that holds `path`.
Result<std::uint64_t> free_bytes(const std::string& path);

}  // namespace wrenn::host
