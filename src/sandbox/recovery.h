#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "sandbox/journal.h"

// What to do with a sandbox found on disk by a newly started agent. Pure.
namespace wrenn::sandbox {

enum class Recovery : std::uint8_t {
  kAdopt,    // the VM goes on; resume it if it stands still
  kPaused,   // ends paused with the published snapshot; what is left of a VM is killed
  kDiscard,  // everything of it is removed
};

struct Found {
  bool vm_alive = false;
  std::optional<std::uint64_t> snapshot_generation;  // of the published snapshot, if there is one
};

struct RecoveryDecision {
  Recovery action = Recovery::kDiscard;
  std::uint64_t generation = 0;  // for kPaused
  std::string reason;            // for kDiscard
};

RecoveryDecision decide_recovery(const Record& record, const Found& found);

}  // namespace wrenn::sandbox
