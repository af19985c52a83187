#include "sandbox/recovery.h"

namespace wrenn::sandbox {
namespace {

RecoveryDecision discard(std::string reason) { return {Recovery::kDiscard, 0, std::move(reason)}; }

RecoveryDecision recover_paused(const Record& record, const Found& found) {
  if (found.snapshot_generation == record.generation) return {Recovery::kPaused, record.generation, ""};
  return discard("its snapshot is missing");
}

}  // namespace

RecoveryDecision decide_recovery(const Record& record, const Found& found) {
  switch (record.phase) {
    case Phase::kCreating:
      return discard("its creation did not finish");
    case Phase::kBuilding:
      return discard("its template build did not finish");
    case Phase::kDestroying:
      return discard("it was being destroyed");
    case Phase::kRunning:
      if (found.vm_alive) return {Recovery::kAdopt, record.generation, ""};
      return discard("its VM ended while no agent ran");
    case Phase::kPausing:
      if (found.snapshot_generation == record.generation + 1) {
        return {Recovery::kPaused, record.generation + 1, ""};
      }
      if (found.vm_alive) return {Recovery::kAdopt, record.generation, ""};
      return discard("its VM ended during a pause");
    case Phase::kPaused:
    case Phase::kResuming:
      // A resuming VM has not run yet: the journal says kRunning before it may.
      return recover_paused(record, found);
  }
  return discard("unknown phase");
}

}  // namespace wrenn::sandbox
