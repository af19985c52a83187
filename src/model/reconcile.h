#pragma once

#include <map>
#include <string>
#include <vector>

#include "model/sandbox.h"

// What the control plane makes of its rows and a host's list. Pure, so the simulator in the tests runs the
// very rules that ship.
//
// Read the rows first and ask the host after; apply row changes only if the row's version is still the one
// read. Then a row that did not change meanwhile was stable while the host made its list, so the list is the
// truth about it.
namespace wrenn::model {

struct RowView {
  std::string id;
  Status status = Status::kPending;
  Transition transition = Transition::kNone;
  Time transition_at;  // last sign of life of the transition's owner
  EndReason end_reason = EndReason::kNone;
  std::int64_t version = 0;
  std::string host_ip;
  Time last_active_at;
  HostError error;  // of kError; without a reason its creation failed and nothing is left of it
};

struct HostView {
  std::string id;
  HostStatus status = HostStatus::kRunning;
  std::string host_ip;
  Time last_active_at;
  HostError error;  // with HostStatus::kError; then its reason is not empty
};

struct ReconcileInput {
  std::vector<RowView> rows;
  std::vector<HostView> host;
  std::vector<std::string> auto_paused;
  Time now;
  Time
      rows_at;  // before the rows were read; leases are judged by it, however long the host took for its list
};

// A transition whose owner showed no life for this long is taken over.
inline constexpr seconds kTransitionLease{20};
// How long the host must show a VM that should not be before it is destroyed.
inline constexpr seconds kSweepGrace{60};
// How long a paused sandbox must be absent before its state is taken as lost.
inline constexpr seconds kPausedAbsentGrace{60};

// What the reconciler remembers between passes.
struct ReconcileMemory {
  std::map<std::string, Time> unwanted_since;  // host VMs that no live row wants
  std::map<std::string, Time> absent_since;    // paused rows the host does not show
};

struct RowChange {
  std::string id;
  std::int64_t version = 0;  // apply only if the row still has it
  Status status = Status::kStopped;
  EndReason end_reason = EndReason::kNone;
  std::string host_ip;  // for kRunning
  HostError error;      // for kError
};

struct Decision {
  std::vector<RowChange> changes;
  // (id, time): activity the host saw later than the row.
  std::vector<std::pair<std::string, Time>> touches;
  // To be destroyed on the host, then, if `version` is set, their row ends as kStopped/kDestroyed.
  struct Destroy {
    std::string id;
    std::optional<std::int64_t> version;
  };
  std::vector<Destroy> destroys;
  // To be acknowledged once the changes are written.
  std::vector<std::string> acknowledge;
};

// What a host shows in HostStatus::kError is never called lost, and never destroyed unless its row says that
// its owner destroyed it: the row follows, and its owner retries or destroys it.
Decision reconcile(const ReconcileInput& input, ReconcileMemory* memory);

}  // namespace wrenn::model
