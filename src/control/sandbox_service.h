#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "control/agent_client.h"
#include "control/shared_calls.h"
#include "control/transitions.h"
#include "store/store.h"

namespace wrenn::control {

struct CreateRequest {
  std::string template_name;
  std::int64_t vcpus = 0;
  std::int64_t memory_mb = 0;
  std::int64_t timeout_sec = 0;
  bool auto_resume = false;
  bool public_traffic = true;
};

// The life of sandboxes: row first, then the agent, then the row again. Transitions belong to the service,
// not to the request that asked for them, so a client that leaves changes nothing.
class SandboxService {
 public:
  SandboxService(asio::any_io_executor executor, store::Store* store, AgentClient* agent);

  // Brings rows and host together soon; set by the reconciler.
  void on_sync(std::function<Task<>()> sync) { sync_ = std::move(sync); }

  Task<store::Sandbox> create(std::string team_id, CreateRequest request);
  Task<store::Sandbox> get(std::string team_id, std::string id);
  Task<std::vector<store::Sandbox>> list(std::string team_id, std::optional<model::Status> status,
                                         std::size_t limit);
  Task<store::Sandbox> pause(std::string team_id, std::string id);
  Task<store::Sandbox> resume(std::string team_id, std::string id);
  // Waits for another transition to end first. All who ask for the same sandbox share one wait.
  Task<> destroy(std::string team_id, std::string id);
  Task<> ping(std::string team_id, std::string id);
  // The row, or kFailedPrecondition "invalid_state" when it is not running.
  Task<store::Sandbox> require_running(std::string team_id, std::string id);

  // Activity is shown at once and written with the next heartbeat.
  void note_activity(const std::string& id);
  // Until cancelled: every kHeartbeatPeriod, signs of life for this process's transitions, and activity.
  // Apart from reconcile passes, which may last longer than a lease.
  Task<> keep_alive();
  // The reconciler has changed what rows it could.
  void reconciled() { transitions_.passed(); }
  // Refuses new transitions, lets those that run end for kShutdownGrace, then cancels them, which leaves
  // their rows for the next start to resolve; writes activity. Nobody may call anything else meanwhile.
  asio::awaitable<void> stop();

 private:
  Task<> heartbeat();
  Task<> flush_activity();
  Task<> sync();
  // Runs one transition; when the agent refuses, rows and host are brought together before the answer.
  Task<store::Sandbox> change(std::string team_id, std::string id, model::Transition transition,
                              Transitions::Act act);
  Task<store::Sandbox> insert(store::Sandbox row);
  Task<store::Sandbox> do_create(store::Sandbox row);
  Task<store::Sandbox> fail_create(store::Sandbox row, Error error);
  Task<store::Sandbox> do_pause(store::Sandbox row);
  Task<store::Sandbox> try_resume(std::string team_id, std::string id);
  Task<store::Sandbox> do_resume(store::Sandbox row);
  // Waits for its turn; without effect when it is gone already.
  Task<store::Sandbox> destroy_in_turn(std::string team_id, std::string id);
  Task<store::Sandbox> do_destroy(store::Sandbox row);
  // Ends the transition of `row`, trying again while the database is away, and answers the new row.
  Task<store::Sandbox> finish(store::Sandbox row, store::Outcome outcome);
  Task<> revert(store::Sandbox row, model::Status status);
  void overlay_activity(store::Sandbox* row) const;

  asio::any_io_executor executor_;
  store::Store* store_;
  AgentClient* agent_;
  std::function<Task<>()> sync_;
  std::map<std::string, model::Time> activity_;
  Transitions transitions_;
  TeamShares waiting_;
  SharedCalls<store::Sandbox> destroys_;  // by id
};

}  // namespace wrenn::control
