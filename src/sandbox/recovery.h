#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "sandbox/grounds.h"
#include "sandbox/journal.h"

// What to do with a sandbox found on disk by a newly started agent, or kept in error and looked at again.
// Pure.
namespace wrenn::sandbox {

// Why a sandbox can be neither run nor resumed as it is: a stable word for programs, a sentence for its
// owner.
struct Fault {
  std::string reason;
  std::string message;
};
inline constexpr char kJournalUnreadable[] = "journal_unreadable";
inline constexpr char kManifestUnreadable[] = "manifest_unreadable";
inline constexpr char kSnapshotMissing[] = "snapshot_missing";
inline constexpr char kSnapshotMismatch[] = "snapshot_mismatch";  // another generation's
inline constexpr char kVmUnreachable[] = "vm_unreachable";
inline constexpr char kGuestUnreachable[] = "guest_unreachable";  // the VM runs, its guest does not answer
inline constexpr char kVmNotKilled[] = "vm_not_killed";

// True for a fault that may pass by itself.
bool may_pass(const Fault& fault);

enum class Recovery : std::uint8_t {
  kAdopt,    // the VM goes on; resume it if it stands still
  kPaused,   // ends paused with the published snapshot; what is left of a VM is killed
  kDiscard,  // everything of it is removed
  kKeep,     // nothing is touched
};

enum class SnapshotState : std::uint8_t {
  kMissing,     // its folder is not there, on a filesystem that is known to be the right one
  kPresent,     // its manifest is read, and it is this sandbox's
  kUnreadable,  // anything else
};

struct Found {
  bool vm_reachable = false;             // its process lives and its monitor answers
  std::optional<vmm::DeathProof> death;  // neither: the VM may be alive
  std::string vm_problem;                // why it is neither
  SnapshotState snapshot = SnapshotState::kUnreadable;
  std::uint64_t snapshot_generation = 0;  // with kPresent
  std::string snapshot_problem;           // with kUnreadable
};

struct RecoveryDecision {
  Recovery action = Recovery::kKeep;
  std::uint64_t generation = 0;    // for kPaused
  std::optional<Grounds> grounds;  // for kDiscard
  Fault fault;                     // for kKeep
};

RecoveryDecision decide_recovery(const Record& record, const Found& found);

}  // namespace wrenn::sandbox
