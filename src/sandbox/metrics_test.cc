#include "sandbox/metrics.h"

#include <gtest/gtest.h>

#include "sandbox/limits.h"

namespace wrenn::sandbox {
namespace {

using model::MetricRange;

TEST(Metrics, AverageOverTimeAndForgetWhatIsOld) {
  Metrics metrics;
  EXPECT_TRUE(metrics.points(MetricRange::k10m, 0).empty());
  constexpr std::int64_t kStart = 1'000'000;
  constexpr int kSamples = 60 * 10 * 12 + 1;  // an hour, every half second
  std::int64_t now = kStart;
  std::uint64_t cpu = 0;
  for (int i = 0; i < kSamples; ++i) {
    metrics.record(now, cpu, i, 2 * i);
    now += kSamplePeriod.count();
    cpu += 125'000;  // a quarter of one CPU
  }
  const auto fine = metrics.points(MetricRange::k10m, now);
  ASSERT_EQ(fine.size(), kFineSamples);
  EXPECT_FLOAT_EQ(fine.front().cpu_pct, 25);
  EXPECT_EQ(fine.back().mem_bytes, kSamples - 1);
  EXPECT_EQ(metrics.points(MetricRange::k5m, now).size(), kFineSamples / 2);
  const auto middle = metrics.points(MetricRange::k1h, now);
  ASSERT_EQ(middle.size(), 120U);
  EXPECT_EQ(middle.front().mem_bytes, 30);  // of 1 to 60
  EXPECT_EQ(middle[1].time_ms - middle[0].time_ms, 30'000);
  const auto coarse = metrics.points(MetricRange::k24h, now);
  ASSERT_EQ(coarse.size(), 12U);
  EXPECT_FLOAT_EQ(coarse.back().cpu_pct, 25);
  EXPECT_TRUE(metrics.points(MetricRange::k10m, now + 3'600'000).empty());
}

TEST(Metrics, AnotherProcessStartsAnew) {
  Metrics metrics;
  metrics.record(1000, 5'000'000, 1, 1);
  metrics.restart();
  metrics.record(2000, 100, 1, 1);
  EXPECT_TRUE(metrics.points(MetricRange::k5m, 2000).empty()) << "no base yet";
  metrics.record(3000, 500'100, 1, 1);
  ASSERT_EQ(metrics.points(MetricRange::k5m, 3000).size(), 1U);
  EXPECT_FLOAT_EQ(metrics.points(MetricRange::k5m, 3000)[0].cpu_pct, 50);
  metrics.record(2500, 600'000, 1, 1);
  EXPECT_EQ(metrics.points(MetricRange::k5m, 3000).size(), 1U) << "the clock went back";
}

TEST(Metrics, RangesHaveNames) {
  EXPECT_EQ(model::parse_metric_range("2h"), MetricRange::k2h);
  EXPECT_EQ(model::parse_metric_range("3h").error().field(), "range");
}

}  // namespace
}  // namespace wrenn::sandbox
