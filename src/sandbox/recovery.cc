#include "sandbox/recovery.h"

#include <fmt/format.h>

namespace wrenn::sandbox {
namespace {

RecoveryDecision discard(Grounds grounds) {
  return {.action = Recovery::kDiscard, .generation = 0, .grounds = std::move(grounds), .fault = {}};
}

RecoveryDecision keep(const char* reason, std::string message) {
  return {.action = Recovery::kKeep, .generation = 0, .grounds = {}, .fault = {reason, std::move(message)}};
}

RecoveryDecision paused(std::uint64_t generation) {
  return {.action = Recovery::kPaused, .generation = generation, .grounds = {}, .fault = {}};
}

RecoveryDecision adopt() { return {.action = Recovery::kAdopt, .generation = 0, .grounds = {}, .fault = {}}; }

RecoveryDecision keep_mismatch(std::uint64_t generation, std::uint64_t wanted) {
  return keep(kSnapshotMismatch, fmt::format("its snapshot is of generation {}, not {}", generation, wanted));
}

// The state is in the VM alone.
RecoveryDecision recover_running(const Found& found) {
  if (found.vm_reachable) return adopt();
  if (found.death) return discard(Grounds::vm_ended(*found.death, "its VM ended while no agent ran"));
  return keep(kVmUnreachable, "its VM cannot be taken over: " + found.vm_problem);
}

// The state is in the VM, and in the next snapshot once that is published.
RecoveryDecision recover_pausing(std::uint64_t next, const Found& found) {
  const bool present = found.snapshot == SnapshotState::kPresent;
  if (present && found.snapshot_generation == next) return paused(next);
  if (found.vm_reachable) return adopt();
  if (!found.death) return keep(kVmUnreachable, "its VM cannot be taken over: " + found.vm_problem);
  if (present) return keep_mismatch(found.snapshot_generation, next);
  if (found.snapshot == SnapshotState::kUnreadable) return keep(kManifestUnreadable, found.snapshot_problem);
  return discard(Grounds::vm_ended(*found.death, "its VM ended during a pause"));
}

// The state is in the snapshot. A resuming VM has not run yet: the journal says kRunning before it may.
RecoveryDecision recover_paused(std::uint64_t generation, const Found& found) {
  switch (found.snapshot) {
    case SnapshotState::kPresent:
      if (found.snapshot_generation == generation) return paused(generation);
      return keep_mismatch(found.snapshot_generation, generation);
    case SnapshotState::kMissing:
      return keep(kSnapshotMissing, "its snapshot is not there");
    case SnapshotState::kUnreadable:
      break;
  }
  return keep(kManifestUnreadable, found.snapshot_problem);
}

}  // namespace

bool may_pass(const Fault& fault) {
  return fault.reason == kVmUnreachable || fault.reason == kGuestUnreachable || fault.reason == kVmNotKilled;
}

RecoveryDecision decide_recovery(const Record& record, const Found& found) {
  switch (record.phase) {
    case Phase::kCreating:
      return discard(Grounds::unfinished("its creation did not finish"));
    case Phase::kBuilding:
      return discard(Grounds::unfinished("its template build did not finish"));
    case Phase::kDestroying:
      return discard(Grounds::owner_asked());
    case Phase::kRunning:
      return recover_running(found);
    case Phase::kPausing:
      return recover_pausing(record.generation + 1, found);
    case Phase::kPaused:
    case Phase::kResuming:
      return recover_paused(record.generation, found);
  }
  return keep(kJournalUnreadable, "its journal names an unknown phase");
}

}  // namespace wrenn::sandbox
