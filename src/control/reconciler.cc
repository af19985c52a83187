#include "control/reconciler.h"

#include "base/log.h"
#include "control/clock.h"
#include "control/limits.h"

namespace wrenn::control {
namespace {

model::Time from_unix(std::int64_t unix_seconds) { return model::Time(std::chrono::seconds(unix_seconds)); }

}  // namespace

Reconciler::Reconciler(asio::any_io_executor executor, store::Store* store, AgentClient* agent,
                       SandboxService* service)
    : store_(store), agent_(agent), service_(service), one_pass_(executor), sweeps_(executor) {}

Task<> Reconciler::run() {
  while (true) {
    auto passed = co_await pass();
    if (!passed && passed.error().code() == Code::kCanceled) co_return passed;
    if (!passed && !failing_) log::warn("cannot reconcile: {}", passed.error().to_string());
    if (passed && failing_) log::info("reconciling again");
    failing_ = !passed;
    CO_TRY(co_await async::sleep_for(kReconcilePeriod));
  }
}

Task<> Reconciler::pass() {
  auto guard = CO_TRY(co_await one_pass_.lock());
  CO_TRY(co_await service_->renew_leases());
  CO_TRY(co_await service_->flush_activity());
  const model::ReconcileInput input = CO_TRY(co_await look());
  co_return co_await apply(model::reconcile(input, &memory_));
}

Task<model::ReconcileInput> Reconciler::look() {
  model::ReconcileInput input;
  input.rows = CO_TRY(co_await store_->live_rows("default"));
  const hostagent::v1::ListSandboxesResponse list = CO_TRY(co_await agent_->list());
  std::set<std::string> known;
  for (const model::RowView& row : input.rows) known.insert(row.id);
  std::vector<std::string> others;
  for (const auto& info : list.sandboxes()) {
    const auto status = model::host_status_from_name(info.status());
    if (!status) log::warn("the agent says sandbox {} is {}", info.sandbox_id(), info.status());
    input.host.push_back({info.sandbox_id(), status.value_or(model::HostStatus::kStarting), info.host_ip(),
                          from_unix(info.last_active_at_unix())});
    if (!known.contains(info.sandbox_id())) others.push_back(info.sandbox_id());
  }
  input.auto_paused.assign(list.auto_paused_sandbox_ids().begin(), list.auto_paused_sandbox_ids().end());
  if (!others.empty()) {
    for (model::RowView& row : CO_TRY(co_await store_->ended_rows(others)))
      input.rows.push_back(std::move(row));
  }
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
    if (CO_TRY(co_await store_->finish_transition(std::move(outcome), wall_clock()))) {
      log::info("sandbox {} is now {}", change.id, model::status_name(change.status));
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
