#include "model/reconcile.h"

#include <optional>
#include <set>

namespace wrenn::model {
namespace {

class Pass {
 public:
  Pass(const ReconcileInput& input, ReconcileMemory* memory) : input_(input), memory_(memory) {
    for (const HostView& view : input.host) host_[view.id] = &view;
    auto_paused_.insert(input.auto_paused.begin(), input.auto_paused.end());
  }

  Decision run() {
    for (const RowView& row : input_.rows) {
      known_.insert(row.id);
      decide(row);
    }
    for (const HostView& view : input_.host) {
      // What a host keeps in error without a row is for its operator to judge.
      if (!known_.contains(view.id) && view.status != HostStatus::kError) sweep_later(view.id);
    }
    std::erase_if(memory_->unwanted_since,
                  [&](const auto& entry) { return !unwanted_.contains(entry.first); });
    std::erase_if(memory_->absent_since, [&](const auto& entry) { return !absent_.contains(entry.first); });
    return std::move(decision_);
  }

 private:
  void decide(const RowView& row) {
    const HostView* view = find(row.id);
    const bool creating = row.transition == Transition::kCreating ||
                          (row.transition == Transition::kNone && row.status == Status::kPending);
    if (row.transition != Transition::kNone || creating) {
      if (input_.rows_at - row.transition_at > kTransitionLease) resolve_stale(row, view, creating);
      return;
    }
    switch (row.status) {
      case Status::kRunning:
      case Status::kMissing:
      case Status::kPending:
        return decide_running(row, view);
      case Status::kPaused:
        return decide_paused(row, view);
      case Status::kError:
        return row.error.reason.empty() ? decide_ended(row, view) : decide_error(row, view);
      case Status::kStopped:
        return decide_ended(row, view);
    }
  }

  void resolve_stale(const RowView& row, const HostView* view, bool creating) {
    if (row.transition == Transition::kDestroying) {
      decision_.destroys.push_back({row.id, row.version});
      acknowledge(row.id);
    } else if (view != nullptr) {
      follow(row, *view);
    } else if (auto_paused_.contains(row.id)) {
      change(row, Status::kPaused);
    } else if (creating) {
      change(row, Status::kError);
    } else {
      change(row, Status::kStopped, EndReason::kLost);
    }
  }

  void decide_running(const RowView& row, const HostView* view) {
    if (view == nullptr) {
      if (auto_paused_.contains(row.id)) {
        change(row, Status::kPaused);
      } else {
        change(row, Status::kStopped, EndReason::kLost);
      }
      return;
    }
    if (view->last_active_at > row.last_active_at) {
      decision_.touches.emplace_back(row.id, view->last_active_at);
    }
    if (row.status == Status::kRunning && view->status == HostStatus::kRunning) {
      acknowledge(row.id);
    } else {
      follow(row, *view);
    }
  }

  void decide_paused(const RowView& row, const HostView* view) {
    if (view != nullptr) {
      if (view->status == HostStatus::kPaused) {
        acknowledge(row.id);
      } else {
        follow(row, *view);
      }
      return;
    }
    if (auto_paused_.contains(row.id)) return acknowledge(row.id);
    decide_absent(row);
  }

  void decide_error(const RowView& row, const HostView* view) {
    if (view == nullptr) return decide_absent(row);
    if (view->status != HostStatus::kError || view->error != row.error) follow(row, *view);
  }

  // Neither runs, so there is time to see whether the host shows it again.
  void decide_absent(const RowView& row) {
    absent_.insert(row.id);
    const Time since = memory_->absent_since.try_emplace(row.id, input_.now).first->second;
    if (input_.now - since >= kPausedAbsentGrace) change(row, Status::kStopped, EndReason::kLost);
  }

  void decide_ended(const RowView& row, const HostView* view) {
    if (view == nullptr) return acknowledge(row.id);
    const bool lost = row.status == Status::kStopped && row.end_reason == EndReason::kLost;
    const bool kept = view->status == HostStatus::kError && row.end_reason != EndReason::kDestroyed;
    if (lost || kept) {
      follow(row, *view);
    } else {
      sweep_later(row.id);
    }
  }

  // The row takes the status the host shows, once that is a lasting one.
  void follow(const RowView& row, const HostView& view) {
    if (view.status == HostStatus::kRunning) change(row, Status::kRunning).host_ip = view.host_ip;
    if (view.status == HostStatus::kPaused) change(row, Status::kPaused);
    if (view.status == HostStatus::kError) change(row, Status::kError).error = view.error;
  }

  RowChange& change(const RowView& row, Status status, EndReason reason = EndReason::kNone) {
    acknowledge(row.id);
    return decision_.changes.emplace_back(row.id, row.version, status, reason);
  }

  void acknowledge(const std::string& id) {
    if (auto_paused_.contains(id)) decision_.acknowledge.push_back(id);
  }

  void sweep_later(const std::string& id) {
    unwanted_.insert(id);
    const Time since = memory_->unwanted_since.try_emplace(id, input_.now).first->second;
    if (input_.now - since >= kSweepGrace) decision_.destroys.push_back({id, std::nullopt});
  }

  const HostView* find(const std::string& id) const {
    const auto it = host_.find(id);
    return it == host_.end() ? nullptr : it->second;
  }

  const ReconcileInput& input_;
  ReconcileMemory* memory_;
  std::map<std::string, const HostView*> host_;
  std::set<std::string> auto_paused_;
  std::set<std::string> known_;
  std::set<std::string> unwanted_;
  std::set<std::string> absent_;
  Decision decision_;
};

}  // namespace

Decision reconcile(const ReconcileInput& input, ReconcileMemory* memory) { return Pass(input, memory).run(); }

}  // namespace wrenn::model
