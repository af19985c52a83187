#include "control/reconciler.h"

#include "base/log.h"
#include "control/clock.h"
#include "control/limits.h"

namespace wrenn::control {
namespace {

namespace rpc = hostagent::v1;

// Whoever leases a transition has time to miss two signs of life before it is taken over.
static_assert(3 * kHeartbeatPeriod <= model::kTransitionLease);

model::Time from_unix(std::int64_t unix_seconds) { return model::Time(std::chrono::seconds(unix_seconds)); }

model::HostView to_view(const rpc::SandboxInfo& info) {
  model::HostView view;
  view.id = info.sandbox_id();
  const auto status = model::host_status_from_name(info.status());
  if (!status) log::warn("the agent says sandbox {} is {}", info.sandbox_id(), info.status());
  // Of a state this program does not know it waits for the end.
  view.status = status.value_or(model::HostStatus::kStarting);
  view.host_ip = info.host_ip();
  view.last_active_at = from_unix(info.last_active_at_unix());
  if (view.status == model::HostStatus::kError) {
    view.error = {info.error_reason().empty() ? "unknown" : info.error_reason(), info.error_message()};
  }
  return view;
}

}  // namespace

Reconciler::Reconciler(asio::any_io_executor executor, store::Store* store, AgentClient* agent,
                       SandboxService* service)
    : store_(store),
      agent_(agent),
      service_(service),
      wanted_(executor),
      passed_(executor),
      sweeps_(executor) {}

Task<> Reconciler::run() {
  while (true) {
    const std::uint64_t serves = asked_;
    const auto began = std::chrono::steady_clock::now();
    auto passed = co_await pass();
    if (!passed && passed.error().code() == Code::kCanceled) co_return passed;
    if (!passed && !failing_) log::warn("cannot reconcile: {}", passed.error().to_string());
    if (passed && failing_) log::info("reconciling again");
    failing_ = !passed;
    served_ = serves;
    passed_.notify_all();
    service_->reconciled();
    CO_TRY(co_await rest(std::chrono::ceil<Milliseconds>(std::chrono::steady_clock::now() - began)));
  }
}

Task<> Reconciler::rest(Milliseconds last_pass) {
  // Passes take at most half of the time, however many are asked for.
  const Milliseconds pause = std::clamp(last_pass, kMinPassPause, kReconcilePeriod);
  CO_TRY(co_await async::sleep_for(pause));
  if (asked_ != served_ || pause == kReconcilePeriod) co_return Result<>{};
  const Result<> woken = co_await wanted_.wait_for(kReconcilePeriod - pause);
  if (!woken && woken.error().code() == Code::kCanceled) co_return woken;
  co_return Result<>{};
}

Task<> Reconciler::sync() {
  const std::uint64_t mine = ++asked_;
  const auto until = std::chrono::steady_clock::now() + kSyncWait;
  wanted_.notify_all();
  while (served_ < mine) {
    const auto left = std::chrono::ceil<Milliseconds>(until - std::chrono::steady_clock::now());
    CO_TRY(co_await passed_.wait_for(std::max(left, Milliseconds(0))));
  }
  co_return Result<>{};
}

Task<> Reconciler::pass() {
  const model::ReconcileInput input = CO_TRY(co_await look());
  co_return co_await apply(model::reconcile(input, &memory_));
}

Task<model::ReconcileInput> Reconciler::look() {
  model::ReconcileInput input;
  input.rows_at = wall_clock();
  store::Views live = CO_TRY(co_await store_->live_rows("default"));
  const rpc::ListSandboxesResponse list = CO_TRY(co_await agent_->list());
  std::set<std::string> known(live.unreadable.begin(), live.unreadable.end());
  for (const model::RowView& row : live.rows) known.insert(row.id);
  std::vector<std::string> others;
  for (const auto& info : list.sandboxes()) {
    if (!known.contains(info.sandbox_id())) others.push_back(info.sandbox_id());
  }
  store::Views ended;
  if (!others.empty()) ended = CO_TRY(co_await store_->ended_rows(std::move(others)));
  std::set<std::string> unreadable(live.unreadable.begin(), live.unreadable.end());
  unreadable.insert(ended.unreadable.begin(), ended.unreadable.end());
  for (const auto& info : list.sandboxes()) {
    if (!unreadable.contains(info.sandbox_id())) input.host.push_back(to_view(info));
  }
  input.rows = std::move(live.rows);
  std::ranges::move(ended.rows, std::back_inserter(input.rows));
  input.auto_paused.assign(list.auto_paused_sandbox_ids().begin(), list.auto_paused_sandbox_ids().end());
  input.now = wall_clock();
  co_return input;
}

Task<> Reconciler::apply(model::Decision decision) {
  std::set<std::string> refused;
  for (model::RowChange& change : decision.changes) {
    store::Outcome outcome;
    outcome.id = change.id;
    outcome.version = change.version;
    outcome.status = change.status;
    outcome.end_reason = change.end_reason;
    outcome.host_ip = change.host_ip;
    outcome.error = change.error;
    if (CO_TRY(co_await store_->finish_transition(std::move(outcome), wall_clock()))) {
      log::info("sandbox {} is now {}{}", change.id, model::status_name(change.status),
                change.error.reason.empty()
                    ? ""
                    : fmt::format(" ({}: {})", change.error.reason, change.error.message));
    } else {
      refused.insert(change.id);
    }
  }
  if (!decision.touches.empty()) CO_TRY(co_await store_->touch_sandboxes(std::move(decision.touches)));
  for (model::Decision::Destroy& target : decision.destroys) {
    if (sweeping_.size() >= kMaxSweepsAtOnce || !sweeping_.insert(target.id).second) continue;
    std::string title = "sweep of " + target.id;
    sweeps_.spawn(std::move(title), sweep(std::move(target)));
  }
  std::erase_if(decision.acknowledge, [&](const std::string& id) { return refused.contains(id); });
  if (decision.acknowledge.empty()) co_return Result<>{};
  co_return co_await agent_->acknowledge_auto_paused(std::move(decision.acknowledge));
}

Task<> Reconciler::sweep(model::Decision::Destroy target) {
  struct Leave {
    std::set<std::string>* set;
    const std::string* id;
    ~Leave() { set->erase(*id); }
  } leave{&sweeping_, &target.id};
  if (!target.version && CO_TRY(co_await store_->is_live(target.id))) co_return Result<>{};
  log::info("destroying {}, which {}", target.id,
            target.version ? "was being destroyed" : "no sandbox row wants");
  auto destroyed = co_await agent_->destroy(target.id);
  if (!destroyed && destroyed.error().code() != Code::kNotFound) co_return destroyed;
  if (!target.version) co_return Result<>{};
  store::Outcome outcome;
  outcome.id = target.id;
  outcome.version = *target.version;
  outcome.end_reason = model::EndReason::kDestroyed;
  CO_TRY(co_await store_->finish_transition(std::move(outcome), wall_clock()));
  co_return Result<>{};
}

asio::awaitable<void> Reconciler::stop() { co_await sweeps_.cancel_and_join(); }

}  // namespace wrenn::control
