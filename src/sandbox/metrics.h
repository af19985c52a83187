#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "model/sandbox.h"

// What one sandbox used, sampled by the agent: rings that hold 10 minutes of samples, 2 hours of 30 s
// averages and a day of 5 min averages.
namespace wrenn::sandbox {

struct MetricSample {
  std::int64_t time_ms = 0;  // Unix time
  float cpu_pct = 0;         // of one CPU
  std::int64_t mem_bytes = 0;
  std::int64_t disk_bytes = 0;
};

class Metrics {
 public:
  // What the VM's process has used by now. The first of a VM only sets the base for the CPU's share.
  void record(std::int64_t now_ms, std::uint64_t cpu_time_us, std::int64_t mem_bytes,
              std::int64_t disk_bytes);
  // Another VM process comes next.
  void restart() { before_.reset(); }
  // Oldest first.
  std::vector<MetricSample> points(model::MetricRange range, std::int64_t now_ms) const;

 private:
  struct Base {
    std::int64_t time_ms = 0;
    std::uint64_t cpu_time_us = 0;
  };
  void push(MetricSample sample);

  std::optional<Base> before_;
  std::deque<MetricSample> fine_, middle_, coarse_;
  std::vector<MetricSample> for_middle_, for_coarse_;  // not averaged yet
};

}  // namespace wrenn::sandbox
