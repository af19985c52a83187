#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "control/team_shares.h"
#include "store/store.h"

namespace wrenn::control {

// A sandbox's row that work promised to somebody, perhaps to several.
class PendingRow {
 public:
  explicit PendingRow(asio::any_io_executor executor) : changed_(std::move(executor)) {}
  // The first result stays.
  void set(Result<store::Sandbox> result);
  Task<store::Sandbox> wait();

  // Held by the work: answers kCanceled when the work ends without a result, even before its first step.
  class Promise {
   public:
    explicit Promise(std::shared_ptr<PendingRow> row) : row_(std::move(row)) {}
    Promise(Promise&&) noexcept = default;
    Promise& operator=(Promise&&) = delete;
    ~Promise() {
      if (row_ != nullptr) row_->set(fail(async::canceled_error()));
    }
    void set(Result<store::Sandbox> result) { row_->set(std::move(result)); }

   private:
    std::shared_ptr<PendingRow> row_;
  };

 private:
  async::Condition changed_;
  std::optional<Result<store::Sandbox>> result_;
};

// The changes of state that this process has begun. They go on whatever becomes of the request that asked;
// each holds a place of its team; and signs of life are given for their rows and for no others.
class Transitions {
 public:
  // Gets the row in its transition, ends it, and answers the row after that. When it is cancelled the process
  // stops: then it leaves the row as it is, for the next start to resolve as after a crash.
  using Act = std::function<Task<store::Sandbox>(store::Sandbox row)>;

  explicit Transitions(asio::any_io_executor executor);

  // `begin` puts the row into its transition and answers it. kUnavailable once stopping.
  Task<store::Sandbox> run(std::string team_id, std::string id, Task<store::Sandbox> begin, Act act);
  // Waits for whatever may end a transition of `id`: the end of one that runs here, else a reconcile pass.
  // kDeadlineExceeded after `limit`.
  Task<> wait_turn(std::string id, Milliseconds limit);
  // A reconcile pass has changed what it could.
  void passed() { changed_.notify_all(); }
  // What must be renewed.
  std::vector<store::Lease> leases() const;
  // Refuses new ones, lets those that run go on for `grace`, then cancels them.
  asio::awaitable<void> stop(Milliseconds grace);

 private:
  // While it lives, its row's transition is this process's.
  class Leased;
  Task<> carry(PendingRow::Promise promise, TeamShares::Place place, Task<store::Sandbox> begin, Act act);

  asio::any_io_executor executor_;
  async::Condition changed_;
  TeamShares shares_;
  std::multimap<std::string, std::int64_t> leases_;  // versions by id
  bool stopping_ = false;
  async::Nursery running_;
};

}  // namespace wrenn::control
