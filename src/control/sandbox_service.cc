#include "control/sandbox_service.h"

#include <array>

#include "base/bytes.h"
#include "base/log.h"
#include "control/clock.h"
#include "control/host_error.h"
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

bool is_destroyed(const Sandbox& row) {
  return row.status == Status::kStopped && row.transition == Transition::kNone &&
         row.end_reason == model::EndReason::kDestroyed;
}

Outcome running_outcome(const Sandbox& row, const std::string& host_ip) {
  Outcome outcome = outcome_of(row, Status::kRunning);
  outcome.host_ip = host_ip;
  outcome.guest_ip = kGuestIp;
  outcome.last_active_at = wall_clock();
  return outcome;
}

}  // namespace

SandboxService::SandboxService(asio::any_io_executor executor, store::Store* store, AgentClient* agent)
    : executor_(executor),
      store_(store),
      agent_(agent),
      transitions_(executor),
      waiting_(kMaxWaitingDestroys, kMaxTeamWaitingDestroys, "sandboxes to be destroyed"),
      destroys_(executor, kMaxWaitingDestroys) {}

Task<> SandboxService::sync() {
  if (sync_) co_return co_await sync_();
  co_return Result<>{};
}

Task<Sandbox> SandboxService::change(std::string team_id, std::string id, Transition transition,
                                     Transitions::Act act) {
  auto asked = std::make_shared<bool>(false);
  auto note_and_act = [asked, act = std::move(act)](Sandbox row) {
    *asked = true;
    return act(std::move(row));
  };
  auto begun = store_->begin_transition(team_id, id, transition, wall_clock());
  auto changed =
      co_await transitions_.run(std::move(team_id), std::move(id), std::move(begun), std::move(note_and_act));
  // The agent knows better: the sandbox may have paused itself, or be gone.
  if (!changed && *asked) co_await sync();
  co_return changed;
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
  if (status == Status::kError) outcome.error = row.error;
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
  std::string team = row.team_id, id = row.id;
  co_return co_await transitions_.run(std::move(team), std::move(id), insert(std::move(row)),
                                      [this](Sandbox inserted) { return do_create(std::move(inserted)); });
}

Task<Sandbox> SandboxService::insert(Sandbox row) {
  CO_TRY(co_await store_->insert_sandbox(row));
  co_return row;
}

Task<Sandbox> SandboxService::do_create(Sandbox row) {
  rpc::CreateSandboxRequest request;
  request.set_sandbox_id(row.id);
  request.set_template_(row.template_name);
  request.set_vcpus(static_cast<std::int32_t>(row.vcpus));
  request.set_memory_mb(static_cast<std::int32_t>(row.memory_mb));
  request.set_timeout_sec(static_cast<std::int32_t>(row.timeout_sec));
  request.set_access_token(row.access_token);
  auto response = co_await agent_->create(std::move(request));
  if (!response && co_await async::is_cancelled()) co_return fail(std::move(response).error());
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
  return change(std::move(team_id), std::move(id), Transition::kPausing,
                [this](Sandbox row) { return do_pause(std::move(row)); });
}

Task<Sandbox> SandboxService::do_pause(Sandbox row) {
  auto paused = co_await agent_->pause(row.id);
  if (paused) co_return co_await finish(row, outcome_of(row, Status::kPaused));
  if (co_await async::is_cancelled()) co_return fail(std::move(paused).error());
  co_await revert(row, Status::kRunning);
  co_return fail(std::move(paused).error());
}

Task<Sandbox> SandboxService::resume(std::string team_id, std::string id) {
  auto resumed = co_await try_resume(team_id, id);
  if (resumed || resumed.error().code() == Code::kCanceled) co_return resumed;
  if (resumed.error().reason() == "invalid_state") {
    // A row that says running may just not have been told of an auto-pause.
    const Result<> synced = co_await sync();
    if (!synced && synced.error().code() == Code::kCanceled) co_return fail(synced.error());
    co_return co_await try_resume(std::move(team_id), std::move(id));
  }
  // What the host was said to keep in error may have been found running.
  auto row = co_await store_->get_sandbox(std::move(team_id), std::move(id));
  if (row && row->status == Status::kRunning && row->transition == Transition::kNone) co_return row;
  const std::string& reason = resumed.error().reason();
  if (!row || row->error.reason.empty() || row->error.reason != reason) co_return resumed;
  log::info("resume of {}: {}", row->id, resumed.error().to_string());
  co_return fail(
      Error(resumed.error().code(), fmt::format("sandbox {}: {}", row->id, host_error_sentence(reason)))
          .with_reason(reason));
}

Task<Sandbox> SandboxService::try_resume(std::string team_id, std::string id) {
  return change(std::move(team_id), std::move(id), Transition::kResuming,
                [this](Sandbox row) { return do_resume(std::move(row)); });
}

Task<Sandbox> SandboxService::do_resume(Sandbox row) {
  auto resumed = co_await agent_->resume(row.id, static_cast<std::int32_t>(row.timeout_sec));
  if (resumed) co_return co_await finish(row, running_outcome(row, resumed->host_ip()));
  if (co_await async::is_cancelled()) co_return fail(std::move(resumed).error());
  if (resumed.error().reason() == "sandbox_lost") {
    row.end_reason = model::EndReason::kLost;
    co_await revert(row, Status::kStopped);
  } else {
    co_await revert(row, row.status);
  }
  co_return fail(std::move(resumed).error());
}

Task<> SandboxService::destroy(std::string team_id, std::string id) {
  const Sandbox row = CO_TRY(co_await store_->get_sandbox(team_id, id));
  if (is_destroyed(row)) co_return Result<>{};
  auto in_turn = [this, team_id, id] { return destroy_in_turn(team_id, id); };
  CO_TRY(co_await destroys_.join(id, std::move(in_turn)));
  co_return Result<>{};
}

Task<Sandbox> SandboxService::destroy_in_turn(std::string team_id, std::string id) {
  const auto place = CO_TRY(waiting_.take(team_id));
  const auto give_up = std::chrono::steady_clock::now() + kDestroyWait;
  while (true) {
    Sandbox row = CO_TRY(co_await store_->get_sandbox(team_id, id));
    if (is_destroyed(row)) co_return row;
    if (row.transition == Transition::kNone) {
      auto begun = store_->begin_transition(team_id, id, Transition::kDestroying, wall_clock());
      auto destroyed = co_await transitions_.run(
          team_id, id, std::move(begun), [this](Sandbox held) { return do_destroy(std::move(held)); });
      if (destroyed || destroyed.error().reason() != "busy") co_return destroyed;
    }
    if (std::chrono::steady_clock::now() > give_up) {
      co_return fail(Code::kUnavailable, "sandbox " + id + " is still changing state; try again");
    }
    const auto turned = co_await transitions_.wait_turn(id, kTurnPoll);
    if (!turned && turned.error().code() != Code::kDeadlineExceeded) co_return fail(turned.error());
  }
}

Task<Sandbox> SandboxService::do_destroy(Sandbox row) {
  auto destroyed = co_await agent_->destroy(row.id);
  if (!destroyed && co_await async::is_cancelled()) co_return fail(std::move(destroyed).error());
  if (!destroyed && destroyed.error().code() != Code::kNotFound) {
    co_await revert(row, row.status);
    co_return fail(std::move(destroyed).error());
  }
  activity_.erase(row.id);
  Outcome outcome = outcome_of(row, Status::kStopped);
  outcome.end_reason = model::EndReason::kDestroyed;
  co_return co_await finish(std::move(row), std::move(outcome));
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
    co_await sync();
    if (pinged.error().code() == Code::kFailedPrecondition) {
      co_return fail(std::move(pinged).error().with_reason("invalid_state"));
    }
    co_return fail(std::move(pinged).error());
  }
  note_activity(id);
  co_return Result<>{};
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

Task<> SandboxService::heartbeat() {
  auto leases = transitions_.leases();
  if (!leases.empty()) CO_TRY(co_await store_->renew_transitions(std::move(leases), wall_clock()));
  co_return co_await flush_activity();
}

Task<> SandboxService::keep_alive() {
  while (true) {
    const Result<> beat = co_await heartbeat();
    if (!beat && beat.error().code() != Code::kCanceled) {
      log::warn("cannot write leases and activity: {}", beat.error().to_string());
    }
    CO_TRY(co_await async::sleep_for(kHeartbeatPeriod));
  }
}

asio::awaitable<void> SandboxService::stop() {
  // A DELETE that still waits for its turn has begun nothing.
  co_await destroys_.stop();
  co_await transitions_.stop(kShutdownGrace);
  const auto give_up = std::chrono::steady_clock::now() + kLastFlushTime;
  while (!co_await flush_activity() && std::chrono::steady_clock::now() < give_up) {
    if (!co_await async::sleep_for(kRetryPause)) break;
  }
}

}  // namespace wrenn::control
