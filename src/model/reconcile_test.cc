#include "model/reconcile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <random>
#include <set>

namespace wrenn::model {
namespace {

constexpr Time kNow{std::chrono::hours(1'000)};

RowView row(std::string id, Status status, Transition transition = Transition::kNone, Time at = kNow) {
  RowView view;
  view.id = std::move(id);
  view.status = status;
  view.transition = transition;
  view.transition_at = at;
  view.version = 7;
  view.last_active_at = kNow - seconds(100);
  return view;
}
HostView vm(std::string id, HostStatus status) { return {std::move(id), status, "10.11.0.1", kNow, {}}; }
HostView kept(std::string id, std::string reason = "vm_unreachable") {
  return {std::move(id), HostStatus::kError, "", Time(), {std::move(reason), "its VM does not answer"}};
}
RowView error_row(std::string id, std::string reason = "vm_unreachable") {
  RowView view = row(std::move(id), Status::kError);
  view.error = {std::move(reason), "its VM does not answer"};
  return view;
}

Decision decide(std::vector<RowView> rows, std::vector<HostView> host,
                std::vector<std::string> auto_paused = {}) {
  ReconcileMemory memory;
  return reconcile({std::move(rows), std::move(host), std::move(auto_paused), kNow, kNow}, &memory);
}

TEST(Reconcile, AbsentRunningIsStoppedUnlessAutoPaused) {
  auto lost = decide({row("a", Status::kRunning)}, {});
  ASSERT_EQ(lost.changes.size(), 1U);
  EXPECT_EQ(lost.changes[0].status, Status::kStopped);
  EXPECT_EQ(lost.changes[0].end_reason, EndReason::kLost);
  EXPECT_EQ(lost.changes[0].version, 7);

  auto paused = decide({row("a", Status::kRunning)}, {vm("a", HostStatus::kPaused)}, {"a"});
  ASSERT_EQ(paused.changes.size(), 1U);
  EXPECT_EQ(paused.changes[0].status, Status::kPaused);
  EXPECT_EQ(paused.acknowledge, std::vector<std::string>{"a"});

  auto unlisted = decide({row("a", Status::kRunning)}, {}, {"a"});
  ASSERT_EQ(unlisted.changes.size(), 1U);
  EXPECT_EQ(unlisted.changes[0].status, Status::kPaused);
}

TEST(Reconcile, LeavesLiveTransitionsAlone) {
  auto decision = decide({row("a", Status::kRunning, Transition::kPausing)}, {}, {"a"});
  EXPECT_TRUE(decision.changes.empty());
  EXPECT_TRUE(decision.acknowledge.empty());
}

TEST(Reconcile, ResolvesAbandonedTransitionsFromTheHost) {
  const Time old = kNow - seconds(21);
  auto created =
      decide({row("a", Status::kPending, Transition::kCreating, old)}, {vm("a", HostStatus::kRunning)});
  ASSERT_EQ(created.changes.size(), 1U);
  EXPECT_EQ(created.changes[0].status, Status::kRunning);
  EXPECT_EQ(created.changes[0].host_ip, "10.11.0.1");
  auto never = decide({row("a", Status::kPending, Transition::kCreating, old)}, {});
  ASSERT_EQ(never.changes.size(), 1U);
  EXPECT_EQ(never.changes[0].status, Status::kError);
  auto busy =
      decide({row("a", Status::kPending, Transition::kCreating, old)}, {vm("a", HostStatus::kStarting)});
  EXPECT_TRUE(busy.changes.empty());
  auto paused =
      decide({row("a", Status::kRunning, Transition::kPausing, old)}, {vm("a", HostStatus::kPaused)});
  ASSERT_EQ(paused.changes.size(), 1U);
  EXPECT_EQ(paused.changes[0].status, Status::kPaused);
  auto destroying = decide({row("a", Status::kRunning, Transition::kDestroying, old)}, {});
  ASSERT_EQ(destroying.destroys.size(), 1U);
  EXPECT_EQ(destroying.destroys[0].version, 7);
}

TEST(Reconcile, SweepsOnlyAfterTheGraceAndForgetsWhatWentAway) {
  ReconcileMemory memory;
  ReconcileInput input{{}, {vm("x", HostStatus::kRunning)}, {}, kNow, kNow};
  EXPECT_TRUE(reconcile(input, &memory).destroys.empty());
  input.now = kNow + seconds(59);
  EXPECT_TRUE(reconcile(input, &memory).destroys.empty());
  input.host.clear();
  reconcile(input, &memory);
  EXPECT_TRUE(memory.unwanted_since.empty());
  input.host = {vm("x", HostStatus::kRunning)};
  reconcile(input, &memory);
  input.now += kSweepGrace;
  ASSERT_EQ(reconcile(input, &memory).destroys.size(), 1U);
}

TEST(Reconcile, APausedSandboxIsLostOnlyAfterAGraceAndComesBack) {
  ReconcileMemory memory;
  ReconcileInput input{{row("a", Status::kPaused)}, {}, {}, kNow, kNow};
  EXPECT_TRUE(reconcile(input, &memory).changes.empty());
  input.now += kPausedAbsentGrace;
  ASSERT_EQ(reconcile(input, &memory).changes.size(), 1U);
  RowView lost = row("a", Status::kStopped);
  lost.end_reason = EndReason::kLost;
  auto back = decide({lost}, {vm("a", HostStatus::kPaused)});
  ASSERT_EQ(back.changes.size(), 1U);
  EXPECT_EQ(back.changes[0].status, Status::kPaused);
}

TEST(Reconcile, AHostThatTakesLongForItsListMakesNoTransitionLookAbandoned) {
  ReconcileMemory memory;
  const RowView live = row("a", Status::kRunning, Transition::kPausing, kNow - seconds(5));
  const ReconcileInput input{{live}, {vm("a", HostStatus::kPaused)}, {}, kNow + kTransitionLease, kNow};
  EXPECT_TRUE(reconcile(input, &memory).changes.empty());
}

TEST(Reconcile, ARowFollowsWhatItsHostKeepsInErrorAndBack) {
  RowView lost = row("a", Status::kStopped);
  lost.end_reason = EndReason::kLost;
  const Time old = kNow - seconds(21);
  for (const RowView& before :
       {row("a", Status::kRunning), row("a", Status::kPaused), row("a", Status::kMissing), lost,
        row("a", Status::kError), error_row("a", "journal_unreadable"),
        row("a", Status::kPending, Transition::kCreating, old),
        row("a", Status::kPaused, Transition::kResuming, old)}) {
    SCOPED_TRACE(status_name(before.status));
    const auto decision = decide({before}, {kept("a")});
    ASSERT_EQ(decision.changes.size(), 1U);
    EXPECT_EQ(decision.changes[0].status, Status::kError);
    EXPECT_EQ(decision.changes[0].error.reason, "vm_unreachable");
  }
  EXPECT_TRUE(decide({error_row("a")}, {kept("a")}).changes.empty());
  EXPECT_EQ(decide({error_row("a")}, {vm("a", HostStatus::kRunning)}).changes.at(0).status, Status::kRunning);
  EXPECT_EQ(decide({error_row("a")}, {vm("a", HostStatus::kPaused)}).changes.at(0).status, Status::kPaused);
  EXPECT_TRUE(decide({error_row("a")}, {vm("a", HostStatus::kResuming)}).changes.empty());
  EXPECT_TRUE(decide({error_row("a")}, {}).changes.empty()) << "absent for a moment";
}

// Every row there can be, before a host that shows its sandbox in error for an hour.
TEST(Reconcile, WhatAHostKeepsInErrorIsNeitherDestroyedNorLost) {
  std::vector<std::vector<RowView>> cases{{}};
  for (Status status : {Status::kPending, Status::kRunning, Status::kPaused, Status::kStopped, Status::kError,
                        Status::kMissing}) {
    for (Transition transition :
         {Transition::kNone, Transition::kCreating, Transition::kPausing, Transition::kResuming}) {
      for (EndReason reason : {EndReason::kNone, EndReason::kLost}) {
        for (const char* error : {"", "vm_unreachable"}) {
          RowView view = row("a", status, transition);
          view.end_reason = reason;
          view.error.reason = error;
          cases.push_back({view});
        }
      }
    }
  }
  for (const auto& rows : cases) {
    ReconcileMemory memory;
    for (Time now = kNow; now < kNow + seconds(3'600); now += seconds(5)) {
      const auto decision = reconcile({rows, {kept("a")}, {}, now, now}, &memory);
      EXPECT_TRUE(decision.destroys.empty());
      for (const RowChange& each : decision.changes) EXPECT_EQ(each.status, Status::kError);
    }
  }
  // Its owner's word counts.
  RowView destroyed = row("a", Status::kStopped);
  destroyed.end_reason = EndReason::kDestroyed;
  ReconcileMemory memory;
  reconcile({{destroyed}, {kept("a")}, {}, kNow, kNow}, &memory);
  const Time later = kNow + kSweepGrace;
  EXPECT_EQ(reconcile({{destroyed}, {kept("a")}, {}, later, later}, &memory).destroys.size(), 1U);
}

TEST(Reconcile, TellsActivityTheHostSaw) {
  auto decision = decide({row("a", Status::kRunning)}, {vm("a", HostStatus::kRunning)});
  ASSERT_EQ(decision.touches.size(), 1U);
  EXPECT_EQ(decision.touches[0].second, kNow);
  EXPECT_TRUE(decision.changes.empty());
}

// A whole small system: a control plane whose requests may die between any two steps, a host that pauses by
// itself, and reconcile passes cut in three (rows, list, apply) with anything in between.
class Simulation {
 public:
  explicit Simulation(unsigned seed) : random_(seed) {}

  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      now_ += std::chrono::milliseconds(pick(3'000));
      switch (pick(7)) {
        case 0:
          start_create();
          break;
        case 1:
          start_on_random(Transition::kPausing);
          break;
        case 2:
          start_on_random(Transition::kResuming);
          break;
        case 3:
          if (pick(3) == 0) start_on_random(Transition::kDestroying);
          break;
        case 4:
          host_event();
          break;
        case 5:
          reconcile_step();
          break;
        default:
          advance_operation();
      }
    }
    settle();
  }

 private:
  struct Operation {
    std::string id;
    Transition transition;
    int step = 0;  // 0: call the host; 1: write the row
    bool ok = false;
  };

  int pick(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }

  void start_create() {
    RowView fresh;
    fresh.id = "sb-" + std::to_string(next_++);
    fresh.transition = Transition::kCreating;
    fresh.transition_at = now_;
    rows_[fresh.id] = fresh;
    operations_.push_back({fresh.id, Transition::kCreating});
  }

  void start_on_random(Transition transition) {
    if (rows_.empty()) return;
    RowView& chosen = std::next(rows_.begin(), pick(static_cast<int>(rows_.size())))->second;
    const bool kept = !chosen.error.reason.empty();
    if (chosen.transition != Transition::kNone || !can_begin(chosen.status, transition, kept)) return;
    chosen.transition = transition;
    chosen.transition_at = now_;
    ++chosen.version;
    operations_.push_back({chosen.id, transition});
  }

  void advance_operation() {
    if (operations_.empty()) return;
    const auto index = pick(static_cast<int>(operations_.size()));
    Operation& operation = operations_[static_cast<std::size_t>(index)];
    const bool dies = pick(8) == 0;
    if (!dies && operation.step == 0) {
      operation.ok = host_call(operation);
      operation.step = 1;
      return;
    }
    if (!dies) finish(operation);
    operations_.erase(operations_.begin() + index);
  }

  bool host_call(const Operation& operation) {
    const auto it = host_.find(operation.id);
    switch (operation.transition) {
      case Transition::kCreating:
        if (pick(6) == 0) return false;
        host_[operation.id] = HostStatus::kRunning;
        return true;
      case Transition::kPausing:
        if (it == host_.end() || it->second != HostStatus::kRunning) return false;
        it->second = HostStatus::kPaused;
        return true;
      case Transition::kResuming:
        if (it == host_.end()) return false;
        if (it->second == HostStatus::kError) return retry(&it->second);
        if (it->second != HostStatus::kPaused) return false;
        it->second = HostStatus::kRunning;
        auto_paused_.erase(operation.id);
        return true;
      default:
        host_.erase(operation.id);
        auto_paused_.erase(operation.id);
        return true;
    }
  }

  // The host looks again at what it keeps in error.
  bool retry(HostStatus* status) {
    constexpr HostStatus kOutcomes[] = {HostStatus::kRunning, HostStatus::kPaused, HostStatus::kError};
    *status = kOutcomes[pick(3)];
    return *status == HostStatus::kRunning;
  }

  void finish(const Operation& operation) {
    RowView& done = rows_[operation.id];
    if (done.transition != operation.transition) return;  // taken over
    done.transition = Transition::kNone;
    ++done.version;
    if (operation.ok) {
      done.status = status_after(operation.transition);
      done.error = {};
      if (operation.transition == Transition::kDestroying) done.end_reason = EndReason::kDestroyed;
    } else if (operation.transition == Transition::kCreating) {
      done.status = Status::kError;
    }
  }

  void host_event() {
    if (host_.empty()) return;
    auto it = std::next(host_.begin(), pick(static_cast<int>(host_.size())));
    if (it->second == HostStatus::kError || pick(5) == 0) return restart_agent(it->first, &it->second);
    if (it->second != HostStatus::kRunning) return;
    if (pick(4) == 0) {
      host_.erase(it);
    } else {
      it->second = HostStatus::kPaused;
      auto_paused_.insert(it->first);
    }
  }

  // What it finds of a sandbox may be in error, and well again at the next restart.
  void restart_agent(const std::string& id, HostStatus* status) {
    if (*status == HostStatus::kError) {
      *status = pick(2) == 0 ? HostStatus::kRunning : HostStatus::kPaused;
    } else {
      *status = HostStatus::kError;
      auto_paused_.erase(id);
    }
  }

  HostView view_of(const std::string& id, HostStatus status) const {
    if (status == HostStatus::kError) return kept(id);
    return {id, status, "ip", now_, {}};
  }

  void reconcile_step() {
    for (Operation& operation : operations_) {  // live owners renew their lease
      RowView& owned = rows_[operation.id];
      if (owned.transition == operation.transition) owned.transition_at = now_;
    }
    if (phase_ == 0) {
      input_ = {};
      input_.rows_at = now_;
      for (const auto& [id, each] : rows_) input_.rows.push_back(each);
    } else if (phase_ == 1) {
      for (const auto& [id, status] : host_) input_.host.push_back(view_of(id, status));
      input_.auto_paused.assign(auto_paused_.begin(), auto_paused_.end());
      input_.now = now_;
    } else if (pick(6) != 0) {
      apply(wrenn::model::reconcile(input_, &memory_));
    }
    phase_ = (phase_ + 1) % 3;
  }

  void apply(const Decision& decision) {
    std::set<std::string> refused;
    for (const RowChange& change : decision.changes) {
      RowView& target = rows_[change.id];
      if (target.version != change.version) {
        refused.insert(change.id);
        continue;
      }
      if (change.status == Status::kStopped) {
        EXPECT_FALSE(host_.contains(change.id)) << change.id << " is alive and was called stopped";
      }
      target.status = change.status;
      target.end_reason = change.end_reason;
      target.error = change.error;
      target.transition = Transition::kNone;
      ++target.version;
    }
    for (const auto& destroy : decision.destroys) {
      const auto it = rows_.find(destroy.id);
      if (destroy.version && it->second.version != *destroy.version) continue;
      if (it != rows_.end() && !destroy.version) {
        EXPECT_TRUE(it->second.status == Status::kError || it->second.end_reason == EndReason::kDestroyed)
            << destroy.id << " was swept while its row lives";
      }
      const bool ordered = it != rows_.end() && (it->second.transition == Transition::kDestroying ||
                                                 it->second.end_reason == EndReason::kDestroyed);
      const auto shown = std::ranges::find(input_.host, destroy.id, &HostView::id);
      EXPECT_TRUE(ordered || shown == input_.host.end() || shown->status != HostStatus::kError)
          << destroy.id << " was kept in error and destroyed";
      host_.erase(destroy.id);
      auto_paused_.erase(destroy.id);
      if (destroy.version) {
        it->second.status = Status::kStopped;
        it->second.end_reason = EndReason::kDestroyed;
        it->second.transition = Transition::kNone;
        it->second.error = {};
        ++it->second.version;
      }
    }
    for (const std::string& id : decision.acknowledge) {
      if (!refused.contains(id)) auto_paused_.erase(id);
    }
  }

  void settle() {
    operations_.clear();
    phase_ = 0;
    for (int pass = 0; pass < 60; ++pass) {
      now_ += seconds(5);
      for (int i = 0; i < 3; ++i) reconcile_step();
    }
    for (const auto& [id, each] : rows_) {
      EXPECT_EQ(each.transition, Transition::kNone) << id;
      const auto it = host_.find(id);
      const std::optional<HostStatus> real = it == host_.end() ? std::nullopt : std::optional(it->second);
      EXPECT_EQ(each.status == Status::kRunning, real == HostStatus::kRunning) << id;
      EXPECT_EQ(each.status == Status::kPaused, real == HostStatus::kPaused) << id;
      EXPECT_EQ(!each.error.reason.empty(), real == HostStatus::kError) << id;
    }
    EXPECT_TRUE(auto_paused_.empty());
  }

  std::mt19937 random_;
  Time now_ = kNow;
  int next_ = 0;
  std::map<std::string, RowView> rows_;
  std::map<std::string, HostStatus> host_;
  std::set<std::string> auto_paused_;
  std::vector<Operation> operations_;
  int phase_ = 0;
  ReconcileInput input_;
  ReconcileMemory memory_;
};

TEST(ReconcileSimulation, ConvergesAndLosesNothing) {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    Simulation(seed).run(400);
    if (HasFailure()) break;
  }
}

}  // namespace
}  // namespace wrenn::model
