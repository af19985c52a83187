#include "sandbox/recovery.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace wrenn::sandbox {
namespace {

constexpr std::uint64_t kGeneration = 3;

enum class Vm : std::uint8_t { kReachable, kDead, kUnknown };

// Of this very process under another start time: another process has the number, so the one meant is dead.
vmm::DeathProof proof() {
  const auto answer = vmm::DeathProof::of(vmm::ProcessIdentity{.pid = ::getpid(), .start_time = 1});
  EXPECT_TRUE(answer && *answer);
  return **answer;
}

Found found(Vm vm, SnapshotState snapshot, std::uint64_t generation) {
  Found out;
  out.vm_reachable = vm == Vm::kReachable;
  if (vm == Vm::kDead) out.death = proof();
  out.snapshot = snapshot;
  out.snapshot_generation = generation;
  return out;
}

RecoveryDecision decide(Phase phase, const Found& facts) {
  Record record;
  record.phase = phase;
  record.generation = kGeneration;
  return decide_recovery(record, facts);
}

constexpr Phase kPhases[] = {Phase::kCreating, Phase::kRunning,    Phase::kPausing, Phase::kPaused,
                             Phase::kResuming, Phase::kDestroying, Phase::kBuilding};
constexpr Vm kVms[] = {Vm::kReachable, Vm::kDead, Vm::kUnknown};
constexpr SnapshotState kSnapshots[] = {SnapshotState::kMissing, SnapshotState::kPresent,
                                        SnapshotState::kUnreadable};

template <class Check>
void for_all(Check check) {
  for (const Phase phase : kPhases) {
    for (const Vm vm : kVms) {
      for (const SnapshotState snapshot : kSnapshots) {
        for (std::uint64_t generation = kGeneration - 1; generation <= kGeneration + 2; ++generation) {
          SCOPED_TRACE(std::string(phase_name(phase)) + ", VM " + std::to_string(static_cast<int>(vm)) +
                       ", snapshot " + std::to_string(static_cast<int>(snapshot)) + " of generation " +
                       std::to_string(generation));
          check(phase, vm, snapshot, generation, decide(phase, found(vm, snapshot, generation)));
        }
      }
    }
  }
}

bool nobody_has_it(Phase phase) {
  return phase == Phase::kCreating || phase == Phase::kBuilding || phase == Phase::kDestroying;
}

TEST(Recovery, NothingIsDiscardedWithoutProof) {
  for_all([](Phase phase, Vm vm, SnapshotState snapshot, std::uint64_t, const RecoveryDecision& decision) {
    EXPECT_EQ(decision.action == Recovery::kDiscard, decision.grounds.has_value());
    if (decision.action != Recovery::kDiscard || nobody_has_it(phase)) return;
    EXPECT_EQ(vm, Vm::kDead);
    if (phase == Phase::kRunning) return;  // whatever snapshot there is, it is consumed
    EXPECT_EQ(phase, Phase::kPausing);
    EXPECT_EQ(snapshot, SnapshotState::kMissing);
  });
}

TEST(Recovery, WhatIsKeptSaysWhy) {
  for_all([](Phase, Vm, SnapshotState, std::uint64_t, const RecoveryDecision& decision) {
    EXPECT_EQ(decision.action == Recovery::kKeep, !decision.fault.reason.empty());
  });
}

TEST(Recovery, OnlyAReachableVmIsAdoptedAndOnlyTheRightSnapshotIsResumed) {
  for_all([](Phase phase, Vm vm, SnapshotState snapshot, std::uint64_t generation,
             const RecoveryDecision& decision) {
    if (decision.action == Recovery::kAdopt) {
      EXPECT_EQ(vm, Vm::kReachable);
      EXPECT_TRUE(phase == Phase::kRunning || phase == Phase::kPausing);
    }
    if (decision.action != Recovery::kPaused) return;
    EXPECT_EQ(snapshot, SnapshotState::kPresent);
    EXPECT_EQ(generation, phase == Phase::kPausing ? kGeneration + 1 : kGeneration);
    EXPECT_EQ(decision.generation, generation);
    EXPECT_NE(phase, Phase::kRunning) << "a consumed snapshot is never resumed";
  });
}

TEST(Recovery, ARunningVmIsAdoptedADeadOneDiscardedAndAnUnreachableOneKept) {
  const auto running = [](Vm vm) {
    return decide(Phase::kRunning, found(vm, SnapshotState::kPresent, kGeneration));
  };
  EXPECT_EQ(running(Vm::kReachable).action, Recovery::kAdopt);
  EXPECT_EQ(running(Vm::kDead).action, Recovery::kDiscard);
  EXPECT_EQ(running(Vm::kUnknown).fault.reason, kVmUnreachable);
  EXPECT_TRUE(may_pass(running(Vm::kUnknown).fault));
}

TEST(Recovery, APauseIsFinishedIfPublishedElseRolledBack) {
  const auto pausing = [](Vm vm, SnapshotState snapshot, std::uint64_t generation) {
    return decide(Phase::kPausing, found(vm, snapshot, generation));
  };
  for (const Vm vm : kVms) {
    EXPECT_EQ(pausing(vm, SnapshotState::kPresent, kGeneration + 1).action, Recovery::kPaused);
  }
  EXPECT_EQ(pausing(Vm::kReachable, SnapshotState::kPresent, kGeneration).action, Recovery::kAdopt);
  EXPECT_EQ(pausing(Vm::kReachable, SnapshotState::kUnreadable, 0).action, Recovery::kAdopt);
  EXPECT_EQ(pausing(Vm::kDead, SnapshotState::kMissing, 0).action, Recovery::kDiscard);
  EXPECT_EQ(pausing(Vm::kDead, SnapshotState::kUnreadable, 0).fault.reason, kManifestUnreadable);
}

TEST(Recovery, APausedSandboxIsKeptWhateverItsSnapshotIs) {
  for (const Phase phase : {Phase::kPaused, Phase::kResuming}) {
    const auto with = [phase](SnapshotState snapshot, std::uint64_t generation) {
      return decide(phase, found(Vm::kDead, snapshot, generation));
    };
    EXPECT_EQ(with(SnapshotState::kPresent, kGeneration).action, Recovery::kPaused);
    EXPECT_EQ(with(SnapshotState::kPresent, kGeneration - 1).fault.reason, kSnapshotMismatch);
    EXPECT_EQ(with(SnapshotState::kMissing, 0).fault.reason, kSnapshotMissing);
    EXPECT_EQ(with(SnapshotState::kUnreadable, 0).fault.reason, kManifestUnreadable);
    EXPECT_FALSE(may_pass(with(SnapshotState::kMissing, 0).fault));
  }
}

TEST(Recovery, UnfinishedBirthsAndDeathsAreCleared) {
  for (const Phase phase : {Phase::kCreating, Phase::kBuilding, Phase::kDestroying}) {
    const auto decision = decide(phase, found(Vm::kUnknown, SnapshotState::kUnreadable, 0));
    ASSERT_EQ(decision.action, Recovery::kDiscard);
    EXPECT_FALSE(decision.grounds->why().empty());
  }
}

}  // namespace
}  // namespace wrenn::sandbox
