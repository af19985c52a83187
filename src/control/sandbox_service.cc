#include "control/sandbox_service.h"

#include <array>

#include "base/bytes.h"
#include "base/log.h"
#include "control/clock.h"
#include "control/limits.h"

namespace wrenn::control {
namespace {

namespace rpc = hostagent::v1;
using model::Status;
using model::Transition;
using store::Outcome;
using store::Sandbox;

// Every guest has this address; its slot's netns tells guests apart.
constexpr char kGuestIp[] = "169.254.0.21";
constexpr Milliseconds kRetryPause{500};

Outcome outcome_of(const Sandbox& row, Status status) {
  Outcome outcome;
  outcome.id = row.id;
  outcome.version = row.version;
  outcome.status = status;
  return outcome;
}

Outcome running_outcome(const Sandbox& row, const std::string& host_ip) {
  Outcome outcome = outcome_of(row, Status::kRunning);
  outcome.host_ip = host_ip;
  outcome.guest_ip = kGuestIp;
  outcome.last_active_at = wall_clock();
  return outcome;
}

}  // namespace

struct SandboxService::Detached {
  explicit Detached(asio::any_io_executor executor) : changed(std::move(executor)) {}
  async::Condition changed;
  std::optional<Result<Sandbox>> result;
};

SandboxService::SandboxService(asio::any_io_executor executor, store::Store* store, AgentClient* agent)
    : executor_(executor), store_(store), agent_(agent), changed_(executor), transitions_(executor) {}

Task<Sandbox> SandboxService::detach(std::string id, Work work) {
  if (transitions_.size() >= kMaxTransitions) {
    co_return fail(Code::kUnavailable, "too many sandboxes are changing state; try again soon");
  }
  auto detached = std::make_shared<Detached>(executor_);
  in_flight_.insert(id);
  transitions_.spawn("transition of " + id, run_detached(id, std::move(work), detached));
  while (!detached->result) CO_TRY(co_await detached->changed.wait());
  co_return *detached->result;
}

Task<> SandboxService::run_detached(std::string id, Work work, std::shared_ptr<Detached> detached) {
  auto result = co_await std::move(work);
  if (!result) log::debug("transition of {}: {}", id, result.error().to_string());
  detached->result.emplace(std::move(result));
  in_flight_.erase(in_flight_.find(id));
  detached->changed.notify_all();
  changed_.notify_all();
  co_return Result<>{};
}

Task<Sandbox> SandboxService::finish(Sandbox row, Outcome outcome) {
  const auto give_up = std::chrono::steady_clock::now() + kOutcomeRetryTime;
  while (true) {
    const model::Time now = wall_clock();
    auto written = co_await store_->finish_transition(outcome, now);
    if (written || written.error().reason() != "db_unavailable" ||
        std::chrono::steady_clock::now() > give_up) {
      CO_TRY(std::move(written));
      break;
    }
    CO_TRY(co_await async::sleep_for(kRetryPause));
  }
  // The row is read again: a reconcile pass may have been faster.
  co_return co_await store_->get_sandbox(row.team_id, row.id);
}

Task<> SandboxService::revert(Sandbox row, Status status) {
  Outcome outcome = outcome_of(row, status);
  outcome.end_reason = row.end_reason;
  auto reverted = co_await finish(row, outcome);
  if (!reverted) log::warn("cannot revert the row of {}: {}", row.id, reverted.error().to_string());
  co_return Result<>{};
}

Task<Sandbox> SandboxService::create(std::string team_id, CreateRequest request) {
  Sandbox row;
  row.id = random_id("sb-");
  row.team_id = std::move(team_id);
  row.template_name = std::move(request.template_name);
  row.vcpus = request.vcpus;
  row.memory_mb = request.memory_mb;
  row.timeout_sec = request.timeout_sec;
  row.auto_resume = request.auto_resume;
  row.public_traffic = request.public_traffic;
  std::array<std::uint8_t, 32> random;
  fill_random(random);
  row.access_token = to_hex(random);
  row.transition = Transition::kCreating;
  row.created_at = row.last_updated = row.transition_at = wall_clock();
  std::string id = row.id;
  co_return co_await detach(std::move(id), do_create(std::move(row)));
}

Task<Sandbox> SandboxService::do_create(Sandbox row) {
  CO_TRY(co_await store_->insert_sandbox(row));
  rpc::CreateSandboxRequest request;
  request.set_sandbox_id(row.id);
  request.set_template_(row.template_name);
  request.set_vcpus(static_cast<std::int32_t>(row.vcpus));
  request.set_memory_mb(static_cast<std::int32_t>(row.memory_mb));
  request.set_timeout_sec(static_cast<std::int32_t>(row.timeout_sec));
  request.set_access_token(row.access_token);
  auto response = co_await agent_->create(std::move(request));
  if (!response) co_return co_await fail_create(std::move(row), std::move(response).error());
  Outcome outcome = running_outcome(row, response->host_ip());
  outcome.started_at = outcome.last_active_at;
  co_return co_await finish(std::move(row), std::move(outcome));
}

Task<Sandbox> SandboxService::fail_create(Sandbox row, Error error) {
  // A request that could never work leaves no row. Any VM that may exist is swept later.
  const bool never = error.code() == Code::kInvalidArgument || error.code() == Code::kNotFound;
  if (never) {
    auto removed = co_await store_->delete_sandbox(row.id, row.version);
    if (!removed) log::warn("cannot remove the row of {}: {}", row.id, removed.error().to_string());
  } else {
    co_await revert(row, Status::kError);
  }
  if (error.code() == Code::kNotFound) {
    co_return fail(std::move(error).in("template " + row.template_name).with_field("template"));
  }
  co_return fail(std::move(error));
}

void SandboxService::overlay_activity(Sandbox* row) const {
  const auto it = activity_.find(row->id);
  if (it != activity_.end() && it->second > row->last_active_at) row->last_active_at = it->second;
}

Task<Sandbox> SandboxService::get(std::string team_id, std::string id) {
  Sandbox row = CO_TRY(co_await store_->get_sandbox(std::move(team_id), std::move(id)));
  overlay_activity(&row);
  co_return row;
}

Task<std::vector<Sandbox>> SandboxService::list(std::string team_id, std::optional<Status> status,
                                                std::size_t limit) {
  auto rows = CO_TRY(co_await store_->list_sandboxes(std::move(team_id), status, limit));
  for (Sandbox& row : rows) overlay_activity(&row);
  co_return rows;
}

Task<Sandbox> SandboxService::pause(std::string team_id, std::string id) {
  return detach(id, do_pause(std::move(team_id), id));
}

Task<Sandbox> SandboxService::do_pause(std::string team_id, std::string id) {
  Sandbox row = CO_TRY(co_await store_->begin_transition(team_id, id, Transition::kPausing, wall_clock()));
  auto paused = co_await agent_->pause(id);
  if (paused) co_return co_await finish(row, outcome_of(row, Status::kPaused));
  co_await revert(row, Status::kRunning);
  // The agent knows better: the sandbox may have paused itself, or be gone.
  if (sync_) co_await sync_();
  co_return fail(std::move(paused).error());
}

Task<Sandbox> SandboxService::resume(std::string team_id, std::string id) {
  return detach(id, do_resume(std::move(team_id), id));
}

Task<Sandbox> SandboxService::begin_resume(std::string team_id, std::string id) {
  auto begun = co_await store_->begin_transition(team_id, id, Transition::kResuming, wall_clock());
  if (begun || begun.error().reason() != "invalid_state" || !sync_) co_return begun;
  // A row that says running may just not have been told of an auto-pause.
  co_await sync_();
  co_return co_await store_->begin_transition(team_id, id, Transition::kResuming, wall_clock());
}

Task<Sandbox> SandboxService::do_resume(std::string team_id, std::string id) {
  Sandbox row = CO_TRY(co_await begin_resume(team_id, id));
  auto resumed = co_await agent_->resume(id, static_cast<std::int32_t>(row.timeout_sec));
  if (resumed) co_return co_await finish(row, running_outcome(row, resumed->host_ip()));
  if (resumed.error().reason() == "sandbox_lost") {
    row.end_reason = model::EndReason::kLost;
    co_await revert(row, Status::kStopped);
  } else {
    co_await revert(row, Status::kPaused);
  }
  if (sync_) co_await sync_();
  co_return fail(std::move(resumed).error());
}

Task<> SandboxService::destroy(std::string team_id, std::string id) {
  CO_TRY(co_await detach(id, do_destroy(std::move(team_id), id)));
  co_return Result<>{};
}

Task<Sandbox> SandboxService::begin_destroy(std::string team_id, std::string id) {
  const auto give_up = std::chrono::steady_clock::now() + kDestroyWait;
  while (true) {
    auto begun = co_await store_->begin_transition(team_id, id, Transition::kDestroying, wall_clock());
    if (begun || begun.error().reason() != "busy") co_return begun;
    if (std::chrono::steady_clock::now() > give_up) {
      co_return fail(Code::kUnavailable, "sandbox " + id + " is still changing state; try again");
    }
    auto changed = co_await changed_.wait_for(kRetryPause);
    if (!changed && changed.error().code() != Code::kDeadlineExceeded)
      co_return fail(std::move(changed).error());
  }
}

Task<Sandbox> SandboxService::do_destroy(std::string team_id, std::string id) {
  Sandbox before = CO_TRY(co_await store_->get_sandbox(team_id, id));
  const bool gone = before.status == Status::kStopped && before.transition == Transition::kNone &&
                    before.end_reason == model::EndReason::kDestroyed;
  if (gone) co_return before;
  Sandbox row = CO_TRY(co_await begin_destroy(team_id, id));
  auto destroyed = co_await agent_->destroy(id);
  if (!destroyed && destroyed.error().code() != Code::kNotFound) {
    co_await revert(row, row.status);
    co_return fail(std::move(destroyed).error());
  }
  activity_.erase(id);
  Outcome outcome = outcome_of(row, Status::kStopped);
  outcome.end_reason = model::EndReason::kDestroyed;
  co_return co_await finish(row, outcome);
}

Task<std::optional<Sandbox>> SandboxService::find(std::string id) {
  return store_->find_sandbox(std::move(id));
}

Task<Sandbox> SandboxService::require_running(std::string team_id, std::string id) {
  Sandbox row = CO_TRY(co_await store_->get_sandbox(std::move(team_id), std::move(id)));
  if (row.status != Status::kRunning || row.transition != Transition::kNone) {
    const std::string_view state = row.transition == Transition::kNone
                                       ? model::status_name(row.status)
                                       : model::transition_name(row.transition);
    co_return fail(
        Error(Code::kFailedPrecondition, fmt::format("sandbox {} is {}, not running", row.id, state))
            .with_reason("invalid_state"));
  }
  co_return row;
}

Task<> SandboxService::ping(std::string team_id, std::string id) {
  CO_TRY(co_await require_running(std::move(team_id), id));
  auto pinged = co_await agent_->ping(id);
  if (!pinged) {
    if (sync_) co_await sync_();
    if (pinged.error().code() == Code::kFailedPrecondition) {
      co_return fail(std::move(pinged).error().with_reason("invalid_state"));
    }
    co_return fail(std::move(pinged).error());
  }
  co_return co_await store_->touch_sandboxes({{id, wall_clock()}});
}

void SandboxService::note_activity(const std::string& id) { activity_[id] = wall_clock(); }

Task<> SandboxService::flush_activity() {
  if (activity_.empty()) co_return Result<>{};
  std::vector<std::pair<std::string, model::Time>> touches(activity_.begin(), activity_.end());
  CO_TRY(co_await store_->touch_sandboxes(touches));
  for (const auto& [id, time] : touches) {
    const auto it = activity_.find(id);
    if (it != activity_.end() && it->second == time) activity_.erase(it);
  }
  co_return Result<>{};
}

Task<> SandboxService::renew_leases() {
  if (in_flight_.empty()) co_return Result<>{};
  std::vector<std::string> ids(in_flight_.begin(), in_flight_.end());
  co_return co_await store_->renew_transitions(std::move(ids), wall_clock());
}

asio::awaitable<void> SandboxService::stop() {
  const auto give_up = std::chrono::steady_clock::now() + kShutdownGrace;
  while (!in_flight_.empty() && std::chrono::steady_clock::now() < give_up) {
    auto changed = co_await changed_.wait_for(kRetryPause);
    if (!changed && changed.error().code() != Code::kDeadlineExceeded) break;
  }
  co_await transitions_.cancel_and_join();
}

}  // namespace wrenn::control
