#include "sandbox/metrics.h"

#include <algorithm>

#include "sandbox/limits.h"

namespace wrenn::sandbox {
namespace {

void append(std::deque<MetricSample>* ring, const MetricSample& sample, std::size_t limit) {
  ring->push_back(sample);
  if (ring->size() > limit) ring->pop_front();
}

// Stands at the time of the last of them.
MetricSample average(const std::vector<MetricSample>& samples) {
  MetricSample sum;
  for (const MetricSample& sample : samples) {
    sum.cpu_pct += sample.cpu_pct;
    sum.mem_bytes += sample.mem_bytes;
    sum.disk_bytes += sample.disk_bytes;
  }
  const auto count = static_cast<std::int64_t>(samples.size());
  return {.time_ms = samples.back().time_ms,
          .cpu_pct = sum.cpu_pct / static_cast<float>(count),
          .mem_bytes = sum.mem_bytes / count,
          .disk_bytes = sum.disk_bytes / count};
}

}  // namespace

void Metrics::record(std::int64_t now_ms, std::uint64_t cpu_time_us, std::int64_t mem_bytes,
                     std::int64_t disk_bytes) {
  const auto before = std::exchange(before_, Base{now_ms, cpu_time_us});
  if (!before || now_ms <= before->time_ms || cpu_time_us < before->cpu_time_us) return;
  const auto wall_us = static_cast<double>(now_ms - before->time_ms) * 1000;
  const auto used_us = static_cast<double>(cpu_time_us - before->cpu_time_us);
  push({.time_ms = now_ms,
        .cpu_pct = static_cast<float>(100 * used_us / wall_us),
        .mem_bytes = mem_bytes,
        .disk_bytes = disk_bytes});
}

void Metrics::push(MetricSample sample) {
  append(&fine_, sample, kFineSamples);
  for_middle_.push_back(sample);
  if (for_middle_.size() < kSamplesPerMiddle) return;
  const MetricSample middle = average(for_middle_);
  for_middle_.clear();
  append(&middle_, middle, kMiddleSamples);
  for_coarse_.push_back(middle);
  if (for_coarse_.size() < kMiddlesPerCoarse) return;
  append(&coarse_, average(for_coarse_), kCoarseSamples);
  for_coarse_.clear();
}

std::vector<MetricSample> Metrics::points(model::MetricRange range, std::int64_t now_ms) const {
  using model::MetricRange;
  const bool fine = range <= MetricRange::k10m;
  const std::deque<MetricSample>& ring = fine ? fine_ : range <= MetricRange::k2h ? middle_ : coarse_;
  const std::int64_t since = now_ms - Milliseconds(model::metric_span(range)).count();
  std::vector<MetricSample> points;
  std::ranges::copy_if(ring, std::back_inserter(points),
                       [since](const MetricSample& sample) { return sample.time_ms >= since; });
  return points;
}

}  // namespace wrenn::sandbox
