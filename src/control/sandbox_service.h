#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "control/agent_client.h"
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

  // Brings rows and host together at once; set by the reconciler.
  void on_sync(std::function<Task<>()> sync) { sync_ = std::move(sync); }

  Task<store::Sandbox> create(std::string team_id, CreateRequest request);
  Task<store::Sandbox> get(std::string team_id, std::string id);
  Task<std::vector<store::Sandbox>> list(std::string team_id, std::optional<model::Status> status,
                                         std::size_t limit);
  Task<store::Sandbox> pause(std::string team_id, std::string id);
  Task<store::Sandbox> resume(std::string team_id, std::string id);
  // Waits for another transition to end first.
  Task<> destroy(std::string team_id, std::string id);
  Task<> ping(std::string team_id, std::string id);
  // Of any team; for traffic. Nullopt when there is none.
  Task<std::optional<store::Sandbox>> find(std::string id);
  // The row, or kFailedPrecondition "invalid_state" when it is not running.
  Task<store::Sandbox> require_running(std::string team_id, std::string id);

  // Activity is shown at once and written with the next flush.
  void note_activity(const std::string& id);
  Task<> flush_activity();
  // Signs of life for this process's transitions.
  Task<> renew_leases();
  // Lets transitions end for kShutdownGrace, then cancels them; the next start resolves their rows.
  asio::awaitable<void> stop();

 private:
  struct Detached;
  using Work = Task<store::Sandbox>;

  Task<store::Sandbox> detach(std::string id, Work work);
  Task<> run_detached(std::string id, Work work, std::shared_ptr<Detached> detached);
  Task<store::Sandbox> do_create(store::Sandbox row);
  Task<store::Sandbox> fail_create(store::Sandbox row, Error error);
  Task<store::Sandbox> do_pause(std::string team_id, std::string id);
  Task<store::Sandbox> do_resume(std::string team_id, std::string id);
  Task<store::Sandbox> begin_resume(std::string team_id, std::string id);
  Task<store::Sandbox> do_destroy(std::string team_id, std::string id);
  Task<store::Sandbox> begin_destroy(std::string team_id, std::string id);
  // Ends the transition of `row`, trying again while the database is away, and answers the new row.
  Task<store::Sandbox> finish(store::Sandbox row, store::Outcome outcome);
  Task<> revert(store::Sandbox row, model::Status status);
  void overlay_activity(store::Sandbox* row) const;

  asio::any_io_executor executor_;
  store::Store* store_;
  AgentClient* agent_;
  std::function<Task<>()> sync_;
  async::Condition changed_;
  std::multiset<std::string> in_flight_;
  std::map<std::string, model::Time> activity_;
  async::Nursery transitions_;
};

}  // namespace wrenn::control
