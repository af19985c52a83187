#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "async/async.h"

namespace wrenn::control {

// One call at a time by key: whoever asks while it runs gets its result. It goes on when its callers leave.
template <class T>
class SharedCalls {
 public:
  SharedCalls(const asio::any_io_executor& executor, std::size_t max_running)
      : executor_(executor), max_running_(max_running), runner_(executor) {}

  // `make` is called only if no such call runs. kResourceExhausted while too many others run.
  Task<T> join(std::string key, std::function<Task<T>()> make) {
    const auto running = running_.find(key);
    std::shared_ptr<Call> call = running == running_.end() ? nullptr : running->second;
    if (!call) {
      if (running_.size() >= max_running_) {
        co_return fail(Code::kResourceExhausted, "too many calls of this kind run");
      }
      call = running_[key] = std::make_shared<Call>(executor_);
      runner_.spawn("shared call", run(key, call, make()));  // may end at once
    }
    while (!call->result) CO_TRY(co_await call->ended.wait());
    co_return *call->result;
  }

  asio::awaitable<void> stop() { co_await runner_.cancel_and_join(); }

 private:
  struct Call {
    explicit Call(const asio::any_io_executor& executor) : ended(executor) {}
    std::optional<Result<T>> result;
    async::Condition ended;
  };

  Task<> run(std::string key, std::shared_ptr<Call> call, Task<T> task) {
    call->result = co_await std::move(task);
    running_.erase(key);
    call->ended.notify_all();
    co_return Result<>{};
  }

  asio::any_io_executor executor_;
  std::size_t max_running_;
  std::map<std::string, std::shared_ptr<Call>> running_;
  async::Nursery runner_;
};

}  // namespace wrenn::control
