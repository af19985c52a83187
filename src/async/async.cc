#include "async/async.h"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <list>

#include "base/check.h"
#include "base/log.h"

namespace wrenn::async {
namespace {

constexpr auto kForever = asio::steady_timer::time_point::max();
constexpr int kExitInterrupted = 130;

std::string describe(const std::exception_ptr& exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "unknown exception";
  }
}

// Every coroutine of ours sees cancellation as an error value, never as a thrown exception.
asio::awaitable<void> without_throwing(asio::awaitable<void> inner) {
  co_await asio::this_coro::throw_if_cancelled(false);
  if (co_await is_cancelled()) co_return;
  co_await std::move(inner);
}

}  // namespace

Error canceled_error() { return Error(Code::kCanceled, "canceled"); }

asio::awaitable<bool> is_cancelled() {
  const auto state = co_await asio::this_coro::cancellation_state;
  co_return state.cancelled() != asio::cancellation_type::none;
}

// ---- Nursery

struct Nursery::State {
  struct Child {
    std::string name;
    asio::cancellation_signal signal;
  };
  explicit State(asio::any_io_executor ex) : executor(std::move(ex)), emptied(executor) {}
  asio::any_io_executor executor;
  std::list<Child> children;
  Condition emptied;
};

Nursery::Nursery(asio::any_io_executor executor) : state_(std::make_shared<State>(std::move(executor))) {}

Nursery::~Nursery() { CHECK(state_->children.empty()); }

std::size_t Nursery::size() const { return state_->children.size(); }

void Nursery::spawn(std::string name, Task<> task) {
  auto& child = state_->children.emplace_back();
  child.name = std::move(name);
  const auto place = std::prev(state_->children.end());
  auto logged = [](Task<> inner, std::string label) -> asio::awaitable<void> {
    const Result<> result = co_await std::move(inner);
    if (!result && result.error().code() != Code::kCanceled) {
      log::warn("{}: {}", label, result.error().to_string());
    }
  };
  asio::co_spawn(state_->executor, without_throwing(logged(std::move(task), child.name)),
                 asio::bind_cancellation_slot(child.signal.slot(),
                                              [state = state_, place](const std::exception_ptr& exception) {
                                                if (exception)
                                                  log::error("{}: {}", place->name, describe(exception));
                                                state->children.erase(place);
                                                if (state->children.empty()) state->emptied.notify_all();
                                              }));
}

void Nursery::cancel() {
  for (auto& child : state_->children) child.signal.emit(asio::cancellation_type::terminal);
}

asio::awaitable<void> Nursery::join() {
  while (!state_->children.empty()) {
    // Joining goes on although the joiner itself is cancelled: the children must not outlive their owner.
    co_await shielded(state_->emptied.wait());
  }
}

asio::awaitable<void> Nursery::cancel_and_join() {
  cancel();
  co_await join();
}

Task<> Nursery::wait() {
  while (!state_->children.empty()) {
    const Result<> woken = co_await state_->emptied.wait();
    if (woken) continue;
    co_await cancel_and_join();
    co_return woken;
  }
  co_return Result<>{};
}

// ---- waiting

Task<> sleep_for(Milliseconds duration) {
  if (co_await is_cancelled()) co_return fail(canceled_error());
  asio::steady_timer timer(co_await asio::this_coro::executor, duration);
  const auto [ec] = co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
  if (ec) co_return fail(canceled_error());
  co_return Result<>{};
}

namespace detail {

asio::awaitable<bool> run_child(asio::awaitable<void> child, std::optional<Milliseconds> limit,
                                ParentCancel parent_cancel) {
  const bool forward = parent_cancel == ParentCancel::kForward;
  if (forward && co_await is_cancelled()) co_return false;
  auto executor = co_await asio::this_coro::executor;

  struct Shared {
    explicit Shared(const asio::any_io_executor& ex) : done(ex, kForever) {}
    asio::steady_timer done;
    asio::cancellation_signal signal;
    bool finished = false;
    std::exception_ptr exception;
  };
  auto shared = std::make_shared<Shared>(executor);
  asio::co_spawn(executor, without_throwing(std::move(child)),
                 asio::bind_cancellation_slot(shared->signal.slot(), [shared](std::exception_ptr exception) {
                   shared->finished = true;
                   shared->exception = std::move(exception);
                   shared->done.cancel();
                 }));

  if (limit) shared->done.expires_after(*limit);
  bool timed_out = false;
  bool signalled = false;
  while (!shared->finished) {
    const auto [ec] = co_await shared->done.async_wait(asio::as_tuple(asio::use_awaitable));
    if (shared->finished) break;
    const bool expired = !ec;
    const bool cancelled = forward && co_await is_cancelled();
    if (expired) timed_out = true;
    if (expired || cancelled) shared->done.expires_at(kForever);
    if ((expired || cancelled) && !signalled) {
      signalled = true;
      shared->signal.emit(asio::cancellation_type::terminal);
    }
  }
  if (shared->exception) std::rethrow_exception(shared->exception);
  co_return timed_out;
}

}  // namespace detail

// ---- Condition

struct Condition::Waiter {
  asio::steady_timer timer;
  bool notified = false;
};

Condition::Condition(asio::any_io_executor executor) : executor_(std::move(executor)) {}

Condition::~Condition() { CHECK(waiters_.empty()); }

void Condition::notify_all() {
  for (Waiter* waiter : waiters_) {
    waiter->notified = true;
    waiter->timer.cancel();
  }
}

Task<> Condition::wait() { return wait_until(std::nullopt); }

Task<> Condition::wait_for(Milliseconds limit) { return wait_until(limit); }

Task<> Condition::wait_until(std::optional<Milliseconds> limit) {
  if (co_await is_cancelled()) co_return fail(canceled_error());
  Waiter waiter{.timer = asio::steady_timer(executor_, kForever)};
  if (limit) waiter.timer.expires_after(*limit);
  waiters_.push_back(&waiter);
  const auto [ec] = co_await waiter.timer.async_wait(asio::as_tuple(asio::use_awaitable));
  std::erase(waiters_, &waiter);
  if (waiter.notified) co_return Result<>{};
  if (!ec) co_return fail(Code::kDeadlineExceeded, "timed out");
  co_return fail(canceled_error());
}

Task<> run_until(Task<> work, Task<> stop) {
  auto executor = co_await asio::this_coro::executor;
  struct Shared {
    explicit Shared(const asio::any_io_executor& ex) : changed(ex) {}
    Condition changed;
    std::optional<Result<>> result;
    bool stopped = false;
  } shared(executor);
  auto run_work = [](Task<> inner, Shared* out) -> Task<> {
    out->result = co_await std::move(inner);
    out->changed.notify_all();
    co_return Result<>{};
  };
  auto run_stop = [](Task<> inner, Shared* out) -> Task<> {
    out->stopped = (co_await std::move(inner)).has_value();
    if (out->stopped) out->changed.notify_all();
    co_return Result<>{};
  };
  Nursery both(executor);
  both.spawn("work", run_work(std::move(work), &shared));
  both.spawn("stop", run_stop(std::move(stop), &shared));
  while (!shared.result && !shared.stopped) {
    if (!co_await shared.changed.wait()) break;
  }
  co_await both.cancel_and_join();
  if (!shared.result) co_return fail(canceled_error());
  co_return std::move(*shared.result);
}

// ---- Semaphore

Task<Semaphore::Guard> Semaphore::acquire() {
  const std::uint64_t ticket = next_ticket_++;
  while (ticket >= admitted_) {
    const Result<> woken = co_await changed_.wait();
    if (woken) continue;
    if (ticket < admitted_) {
      release();
    } else {
      abandoned_.push_back(ticket);
    }
    co_return fail(woken.error());
  }
  co_return Guard(this);
}

void Semaphore::release() {
  // A ticket that was given up passes its place on.
  while (std::erase(abandoned_, admitted_++) > 0) continue;
  changed_.notify_all();
}

// ---- Loop

struct Loop::State {
  explicit State(std::size_t threads) : context(1), pool(threads) {}
  asio::io_context context;
  asio::thread_pool pool;
};

Loop::Loop(std::size_t threads) : state_(std::make_unique<State>(threads)) {}

Loop::~Loop() { state_->pool.join(); }

asio::any_io_executor Loop::executor() { return state_->context.get_executor(); }

asio::thread_pool& Loop::pool() { return state_->pool; }

namespace {

Result<> run_until_done(asio::io_context& context, Task<> main, asio::signal_set* signals) {
  std::optional<Result<>> result;
  std::exception_ptr exception;
  asio::cancellation_signal cancel;
  asio::co_spawn(context, without_throwing(detail::store_result(std::move(main), &result)),
                 asio::bind_cancellation_slot(cancel.slot(), [&](std::exception_ptr thrown) {
                   exception = std::move(thrown);
                   context.stop();
                 }));
  if (signals != nullptr) {
    signals->async_wait([&, signals](boost::system::error_code ec, int) {
      if (ec) return;
      cancel.emit(asio::cancellation_type::terminal);
      signals->async_wait([](boost::system::error_code again, int) {
        if (!again) std::_Exit(kExitInterrupted);
      });
    });
  }
  context.restart();
  context.run();
  if (exception) return fail(Code::kInternal, describe(exception));
  if (!result) return fail(canceled_error());
  return std::move(*result);
}

}  // namespace

Result<> Loop::run(Task<> main) {
  asio::signal_set signals(state_->context, SIGINT, SIGTERM);
  return run_until_done(state_->context, std::move(main), &signals);
}

Result<> Loop::run_plain(Task<> main) { return run_until_done(state_->context, std::move(main), nullptr); }

}  // namespace wrenn::async
