#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "vmm/vmm.h"

namespace wrenn::vmm {

// A private mapping to read and write.
struct Mapping {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint64_t offset = 0;
  std::string file;  // device and inode, since a name may change; empty: of nothing
};
// From the text of /proc/PID/maps. Lines that are none, or of another kind, are left out.
std::vector<Mapping> private_mappings(std::string_view maps);

// Finds guest RAM in the text of /proc/PID/maps: the one file mapped privately with `size` bytes. kInternal
// unless there is exactly one.
Result<sys::ProcessMemory> find_ram(std::string_view maps, pid_t pid, std::uint64_t size);

// CPU time and resident memory from /proc. kNotFound when the process is gone.
Result<VmStats> read_stats(pid_t pid);

// How many packets the network has handed to `interface`, from the text of /proc/PID/net/dev: of a TAP, those
// that its program has read. 0 when there is none.
std::uint64_t packets_sent(std::string_view net_dev, std::string_view interface);

// Measures how fast the processor's time stamp counter runs, which is what an emulated guest sees as its own.
class TscClock {
 public:
  TscClock();
  // kHz since construction; waits until the measurement is long enough to be good to a few parts per million.
  Task<std::uint64_t> khz() const;

 private:
  struct Sample {
    std::uint64_t ticks = 0;
    std::uint64_t nanoseconds = 0;
  };
  static Sample take();
  Sample first_;
};

}  // namespace wrenn::vmm
