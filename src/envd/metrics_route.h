#pragma once

#include <cstdint>
#include <memory>

#include "net/http.h"

namespace wrenn::envd {

// MemFree of /proc/meminfo, bytes.
Result<std::uint64_t> free_memory();

// Busy and total time of all CPUs since boot, in clock ticks.
struct CpuTimes {
  std::uint64_t busy = 0;
  std::uint64_t total = 0;
};
// Of the text of /proc/stat; kInternal when it has no such line. For tests too.
Result<CpuTimes> parse_cpu_times(std::string_view proc_stat);

// GET /metrics: what the guest uses. CPU is the share of all CPUs since the request before, 0 to 100.
class Metrics {
 public:
  Task<> serve(std::shared_ptr<net::Exchange> exchange);

 private:
  CpuTimes before_;
};

}  // namespace wrenn::envd
