#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "async/async.h"
#include "control/limits.h"

namespace wrenn::control {

// Looks values up for many callers with one query at a time: what is asked for while a query runs goes
// together into the next. So a crowd of strangers costs the database no more than one of them.
template <class Value>
class BatchedLookup {
 public:
  // Answers those that exist.
  using Query = std::function<Task<std::map<std::string, Value>>(std::vector<std::string>)>;

  BatchedLookup(const asio::any_io_executor& executor, Query query)
      : executor_(executor), query_(std::move(query)), runner_(executor) {}

  // Nullopt when there is none. The query begins after the call, so what was written before is seen.
  Task<std::optional<Value>> find(std::string key) {
    if (waiting_.empty() || waiting_.back()->keys.size() >= kMaxLookupBatch) {
      waiting_.push_back(std::make_shared<Batch>(executor_));
    }
    const std::shared_ptr<Batch> batch = waiting_.back();
    batch->keys.insert(key);
    if (!running_) {
      running_ = true;
      runner_.spawn("look-ups", run());  // may take the batch at once
    }
    while (!batch->found) CO_TRY(co_await batch->answered.wait());
    if (!*batch->found) co_return fail(batch->found->error());
    const auto it = (*batch->found)->find(key);
    if (it == (*batch->found)->end()) co_return std::optional<Value>{};
    co_return std::optional<Value>(it->second);
  }

  // Lets the query that runs end.
  asio::awaitable<void> stop() { co_await runner_.join(); }

 private:
  struct Batch {
    explicit Batch(const asio::any_io_executor& executor) : answered(executor) {}
    std::set<std::string> keys;
    std::optional<Result<std::map<std::string, Value>>> found;
    async::Condition answered;
  };

  Task<> run() {
    while (!waiting_.empty()) {
      const std::shared_ptr<Batch> batch = std::move(waiting_.front());
      waiting_.pop_front();
      batch->found = co_await query_({batch->keys.begin(), batch->keys.end()});
      batch->answered.notify_all();
    }
    running_ = false;
    co_return Result<>{};
  }

  asio::any_io_executor executor_;
  Query query_;
  std::deque<std::shared_ptr<Batch>> waiting_;
  bool running_ = false;
  async::Nursery runner_;
};

}  // namespace wrenn::control
