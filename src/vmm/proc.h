#pragma once

#include <string_view>

#include "vmm/vmm.h"

namespace wrenn::vmm {

enum class RamKind {
  kFile,       // a private mapping of a memory file
  kAnonymous,  // of nothing
};
// Finds guest RAM in the text of /proc/PID/maps: the one private writable mapping of this kind and `size`
// bytes. The name of a file does not matter, it may have been renamed or deleted. kInternal unless there is
// exactly one.
Result<RamRegion> find_ram(std::string_view maps, std::uint64_t size, RamKind kind = RamKind::kFile);

// CPU time and resident memory from /proc. kNotFound when the process is gone.
Result<VmStats> read_stats(pid_t pid);

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
