#include "sandbox/recovery.h"

#include <gtest/gtest.h>

namespace wrenn::sandbox {
namespace {

RecoveryDecision decide(Phase phase, bool alive, std::optional<std::uint64_t> snapshot) {
  Record record;
  record.phase = phase;
  record.generation = 3;
  return decide_recovery(record, Found{alive, snapshot});
}

TEST(Recovery, ARunningVmIsAdoptedAndADeadOneDiscarded) {
  EXPECT_EQ(decide(Phase::kRunning, true, std::nullopt).action, Recovery::kAdopt);
  EXPECT_EQ(decide(Phase::kRunning, false, std::nullopt).action, Recovery::kDiscard);
}

TEST(Recovery, AConsumedSnapshotIsNeverResumed) {
  EXPECT_EQ(decide(Phase::kRunning, false, 3).action, Recovery::kDiscard);
  EXPECT_EQ(decide(Phase::kPausing, false, 3).action, Recovery::kDiscard);
}

TEST(Recovery, APauseIsFinishedIfPublishedElseRolledBack) {
  for (const bool alive : {false, true}) {
    const auto published = decide(Phase::kPausing, alive, 4);
    EXPECT_EQ(published.action, Recovery::kPaused);
    EXPECT_EQ(published.generation, 4u);
  }
  EXPECT_EQ(decide(Phase::kPausing, true, 3).action, Recovery::kAdopt);
  EXPECT_EQ(decide(Phase::kPausing, true, std::nullopt).action, Recovery::kAdopt);
}

TEST(Recovery, AResumeThatDidNotRunLeavesThePausedState) {
  for (const bool alive : {false, true}) {
    EXPECT_EQ(decide(Phase::kResuming, alive, 3).action, Recovery::kPaused);
    EXPECT_EQ(decide(Phase::kPaused, alive, 3).action, Recovery::kPaused);
    EXPECT_EQ(decide(Phase::kPaused, alive, 2).action, Recovery::kDiscard);
  }
}

TEST(Recovery, UnfinishedBirthsAndDeathsAreCleared) {
  for (const Phase phase : {Phase::kCreating, Phase::kBuilding, Phase::kDestroying}) {
    const auto decision = decide(phase, true, 3);
    EXPECT_EQ(decision.action, Recovery::kDiscard);
    EXPECT_FALSE(decision.reason.empty());
  }
}

}  // namespace
}  // namespace wrenn::sandbox
