#include "control/transitions.h"

#include "base/log.h"
#include "control/limits.h"

namespace wrenn::control {

using store::Sandbox;

void PendingRow::set(Result<Sandbox> result) {
  if (!result_) result_.emplace(std::move(result));
  changed_.notify_all();
}

Task<Sandbox> PendingRow::wait() {
  while (!result_) CO_TRY(co_await changed_.wait());
  co_return *result_;
}

class Transitions::Leased {
 public:
  Leased(Transitions* owner, const Sandbox& row)
      : owner_(owner), place_(owner->leases_.emplace(row.id, row.version)) {}
  Leased(const Leased&) = delete;
  Leased& operator=(const Leased&) = delete;
  ~Leased() {
    owner_->leases_.erase(place_);
    owner_->changed_.notify_all();
  }

 private:
  Transitions* owner_;
  std::multimap<std::string, std::int64_t>::iterator place_;
};

Transitions::Transitions(asio::any_io_executor executor)
    : executor_(executor),
      changed_(executor),
      shares_(kMaxTransitions, kMaxTeamTransitions, "sandboxes changing state"),
      running_(executor) {}

Task<Sandbox> Transitions::run(std::string team_id, std::string id, Task<Sandbox> begin, Act act) {
  if (stopping_) co_return fail(Code::kUnavailable, "the service is stopping; try again soon");
  auto place = CO_TRY(shares_.take(team_id));
  auto pending = std::make_shared<PendingRow>(executor_);
  running_.spawn("transition of " + id,
                 carry(PendingRow::Promise(pending), std::move(place), std::move(begin), std::move(act)));
  co_return co_await pending->wait();
}

Task<> Transitions::carry(PendingRow::Promise promise, TeamShares::Place, Task<Sandbox> begin, Act act) {
  Result<Sandbox> row = co_await std::move(begin);
  if (row) {
    const Leased leased(this, *row);
    row = co_await act(*std::move(row));
  }
  if (!row) log::debug("transition: {}", row.error().to_string());
  promise.set(std::move(row));
  co_return Result<>{};
}

Task<> Transitions::wait_turn(std::string id, Milliseconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  do {
    const auto left = std::chrono::ceil<Milliseconds>(until - std::chrono::steady_clock::now());
    CO_TRY(co_await changed_.wait_for(std::max(left, Milliseconds(0))));
  } while (leases_.contains(id));
  co_return Result<>{};
}

std::vector<store::Lease> Transitions::leases() const {
  std::vector<store::Lease> all;
  all.reserve(leases_.size());
  for (const auto& [id, version] : leases_) all.push_back({id, version});
  return all;
}

asio::awaitable<void> Transitions::stop(Milliseconds grace) {
  stopping_ = true;
  const auto until = std::chrono::steady_clock::now() + grace;
  while (running_.size() > 0 && std::chrono::steady_clock::now() < until) {
    if (!co_await async::sleep_for(kStopPoll)) break;
  }
  co_await running_.cancel_and_join();
}

}  // namespace wrenn::control
