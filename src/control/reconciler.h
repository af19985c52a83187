#pragma once

#include <set>
#include <string>

#include "control/sandbox_service.h"
#include "model/reconcile.h"

namespace wrenn::control {

// Keeps rows and host in step: every kReconcilePeriod, and whenever a request finds them apart. What to do is
// decided by model::reconcile.
class Reconciler {
 public:
  Reconciler(asio::any_io_executor executor, store::Store* store, AgentClient* agent,
             SandboxService* service);

  // Until cancelled.
  Task<> run();
  // One pass; waits for one that runs already.
  Task<> pass();
  asio::awaitable<void> stop();

 private:
  Task<model::ReconcileInput> look();
  Task<> apply(model::Decision decision);
  Task<> sweep(model::Decision::Destroy target);

  store::Store* store_;
  AgentClient* agent_;
  SandboxService* service_;
  async::Mutex one_pass_;
  model::ReconcileMemory memory_;
  std::set<std::string> sweeping_;
  bool failing_ = false;
  async::Nursery sweeps_;
};

}  // namespace wrenn::control
