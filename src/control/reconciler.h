#pragma once

#include <set>
#include <string>

#include "control/sandbox_service.h"
#include "model/reconcile.h"

namespace wrenn::control {

// Keeps rows and host in step: every kReconcilePeriod, and soon when a request finds them apart. What to do
// is decided by model::reconcile. A host that refuses to list, as while it recovers, changes nothing.
class Reconciler {
 public:
  Reconciler(asio::any_io_executor executor, store::Store* store, AgentClient* agent,
             SandboxService* service);

  // Until cancelled.
  Task<> run();
  // Until a pass that began after this call has ended, well or not; all who wait share it, and passes have
  // pauses between them, so requests cannot make more of them than the host bears. kDeadlineExceeded after
  // kSyncWait.
  Task<> sync();
  asio::awaitable<void> stop();

 private:
  Task<> pass();
  // Until the next pass is due.
  Task<> rest(Milliseconds last_pass);
  Task<model::ReconcileInput> look();
  Task<> apply(model::Decision decision);
  Task<> sweep(model::Decision::Destroy target);

  store::Store* store_;
  AgentClient* agent_;
  SandboxService* service_;
  async::Condition wanted_;
  async::Condition passed_;
  std::uint64_t asked_ = 0;   // calls of sync()
  std::uint64_t served_ = 0;  // of these, whose pass has ended
  model::ReconcileMemory memory_;
  std::set<std::string> sweeping_;
  bool failing_ = false;
  async::Nursery sweeps_;
};

}  // namespace wrenn::control
