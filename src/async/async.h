#pragma once

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <concepts>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "async/blocking.h"
#include "async/task.h"

// Owning, waiting and cancelling. A program runs one event loop on one thread; everything here belongs to
// that thread except the inside of offload(). So nothing needs a lock, and cancellation always happens on
// the coroutine's own executor.
namespace wrenn::async {

// Owns the coroutines spawned into it. Destroying a nursery whose coroutines still run aborts: call
// cancel_and_join (or join) first.
class Nursery {
 public:
  explicit Nursery(asio::any_io_executor executor);
  Nursery(const Nursery&) = delete;
  Nursery& operator=(const Nursery&) = delete;
  ~Nursery();

  // Starts `task` at the loop's next turn. An error other than kCanceled is logged under `name`.
  void spawn(std::string name, Task<> task);
  std::size_t size() const;
  // Asks every running coroutine to stop; they see kCanceled from whatever they wait for.
  void cancel();
  // Waits until all have returned; new ones may be spawned meanwhile.
  asio::awaitable<void> join();
  asio::awaitable<void> cancel_and_join();
  // As join, but a cancelled caller cancels them too: kCanceled then, after all have returned.
  Task<> wait();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// Waits; kCanceled when the coroutine is cancelled meanwhile.
Task<> sleep_for(Milliseconds duration);

// Result of a cancelled wait.
Error canceled_error();

// True once the running coroutine has been asked to stop. Every primitive of async and net checks it before
// it starts to wait, so a cancel that arrives between two waits is not lost.
asio::awaitable<bool> is_cancelled();

namespace detail {
enum class ParentCancel { kForward, kIgnore };
// Runs `child` under its own cancellation signal, which fires when `limit` passes (the answer is then true)
// or the parent is cancelled and that is forwarded. Returns only after the child has returned. Type-erased
// so that Asio is instantiated once.
asio::awaitable<bool> run_child(asio::awaitable<void> child, std::optional<Milliseconds> limit,
                                ParentCancel parent_cancel);

template <class T>
asio::awaitable<void> store_result(Task<T> task, std::optional<Result<T>>* out) {
  out->emplace(co_await std::move(task));
}
}  // namespace detail

// Awaits `task` for at most `limit`, then cancels it, waits for it to return, and answers
// kDeadlineExceeded "<what> took longer than N ms".
template <class T>
Task<T> with_timeout(Task<T> task, Milliseconds limit, std::string what) {
  std::optional<Result<T>> result;
  const bool timed_out = co_await detail::run_child(detail::store_result(std::move(task), &result), limit,
                                                    detail::ParentCancel::kForward);
  if (timed_out && (!result || !*result)) {
    co_return fail(Code::kDeadlineExceeded,
                   what + " took longer than " + std::to_string(limit.count()) + " ms");
  }
  if (!result) co_return fail(canceled_error());
  co_return std::move(*result);
}

// Runs `task` to its end even if the awaiting coroutine is cancelled meanwhile: for state transitions and
// for clean-up that waits.
template <class T>
Task<T> shielded(Task<T> task) {
  std::optional<Result<T>> result;
  co_await detail::run_child(detail::store_result(std::move(task), &result), std::nullopt,
                             detail::ParentCancel::kIgnore);
  if (!result) co_return fail(canceled_error());
  co_return std::move(*result);
}

// Runs `work`, cancelling it as soon as `stop` returns without an error; answers work's result once both
// have returned.
Task<> run_until(Task<> work, Task<> stop);

namespace detail {
template <class Work>
auto run_blocking(Work& work) {
  if constexpr (std::invocable<Work&, Blocking>) {
    return work(BlockingPass::make());
  } else {
    return work();
  }
}
}  // namespace detail

// Runs blocking `work` (a callable returning Result<T>, which may take a Blocking) on the pool and resumes
// here. Cannot be cancelled: it answers when the work is done, so the work itself must be bounded.
template <class Work>
auto offload(asio::thread_pool& pool, Work work)
    -> Task<typename decltype(detail::run_blocking(std::declval<Work&>()))::value_type> {
  using R = decltype(detail::run_blocking(work));
  auto executor = co_await asio::this_coro::executor;
  co_return co_await asio::async_initiate<const asio::use_awaitable_t<>, void(R)>(
      [executor, &pool](auto handler, Work task) {
        asio::post(pool, [executor, handler = std::move(handler), task = std::move(task),
                          guard = asio::make_work_guard(executor)]() mutable {
          R result = detail::run_blocking(task);
          asio::post(executor, [handler = std::move(handler), result = std::move(result)]() mutable {
            std::move(handler)(std::move(result));
          });
        });
      },
      asio::use_awaitable, std::move(work));
}

// Wakes waiters. A notification with nobody waiting is not remembered; use a predicate loop:
// `while (!ready) CO_TRY(co_await condition.wait());`
class Condition {
 public:
  explicit Condition(asio::any_io_executor executor);
  ~Condition();
  void notify_all();
  // kCanceled when cancelled.
  Task<> wait();
  // Also kDeadlineExceeded.
  Task<> wait_for(Milliseconds limit);

 private:
  struct Waiter;
  Task<> wait_until(std::optional<Milliseconds> limit);
  asio::any_io_executor executor_;
  std::vector<Waiter*> waiters_;
};

// At most `places` (1 or more) holders at a time; first come, first served. Hold by
// `auto guard = CO_TRY(co_await semaphore.acquire());`.
class Semaphore {
 public:
  class Guard {
   public:
    explicit Guard(Semaphore* semaphore) : semaphore_(semaphore) {}
    Guard(Guard&& other) noexcept : semaphore_(std::exchange(other.semaphore_, nullptr)) {}
    Guard& operator=(Guard&&) = delete;
    ~Guard() {
      if (semaphore_ != nullptr) semaphore_->release();
    }

   private:
    Semaphore* semaphore_;
  };

  Semaphore(asio::any_io_executor executor, std::uint64_t places)
      : changed_(std::move(executor)), places_(places), admitted_(places) {}
  // kCanceled when cancelled.
  Task<Guard> acquire();
  // Nobody holds a place or waits for one.
  bool idle() const { return admitted_ == next_ticket_ + places_; }

 private:
  void release();
  Condition changed_;
  std::uint64_t places_;
  std::uint64_t next_ticket_ = 0;
  std::uint64_t admitted_;  // tickets below it have their place, or had it
  std::vector<std::uint64_t> abandoned_;
};

// Hold by `auto guard = CO_TRY(co_await mutex.lock());`.
class Mutex {
 public:
  using Guard = Semaphore::Guard;
  explicit Mutex(asio::any_io_executor executor) : holder_(std::move(executor), 1) {}
  Task<Guard> lock() { return holder_.acquire(); }
  bool locked() const { return !holder_.idle(); }

 private:
  Semaphore holder_;
};

// A bounded queue between coroutines of one loop. send waits while full: that is the back-pressure.
template <class T>
class Channel {
 public:
  Channel(asio::any_io_executor executor, std::size_t capacity)
      : capacity_(capacity), changed_(std::move(executor)) {}

  // kUnavailable once closed.
  Task<> send(T value) {
    while (!closed_ && queue_.size() >= capacity_) CO_TRY(co_await changed_.wait());
    if (closed_) co_return fail(Code::kUnavailable, "channel closed");
    queue_.push_back(std::move(value));
    changed_.notify_all();
    co_return Result<>{};
  }
  // False when full or closed; `value` is then dropped.
  bool try_send(T value) {
    if (closed_ || queue_.size() >= capacity_) return false;
    queue_.push_back(std::move(value));
    changed_.notify_all();
    return true;
  }
  // Nullopt once closed and drained.
  Task<std::optional<T>> receive() {
    while (queue_.empty() && !closed_) CO_TRY(co_await changed_.wait());
    if (queue_.empty()) co_return std::optional<T>{};
    std::optional<T> value(std::move(queue_.front()));
    queue_.pop_front();
    changed_.notify_all();
    co_return value;
  }
  void close() {
    closed_ = true;
    changed_.notify_all();
  }
  std::size_t size() const { return queue_.size(); }

 private:
  std::size_t capacity_;
  bool closed_ = false;
  std::deque<T> queue_;
  Condition changed_;
};

// The event loop of a program with its pool for blocking work.
class Loop {
 public:
  // `threads`: size of the blocking-work pool, 1..64.
  explicit Loop(std::size_t threads);
  ~Loop();
  asio::any_io_executor executor();
  asio::thread_pool& pool();
  // Runs `main` to its end. SIGTERM or SIGINT cancels it once; it then has its own time to finish, and a
  // second signal ends the process at once. Returns main's result.
  Result<> run(Task<> main);
  // Runs `main` without touching signal handlers (tests, libraries).
  Result<> run_plain(Task<> main);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace wrenn::async
