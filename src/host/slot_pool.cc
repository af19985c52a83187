#include <fmt/format.h>

#include <deque>
#include <set>

#include "base/log.h"
#include "host/host.h"
#include "host/limits.h"
#include "host/slot_setup.h"

namespace wrenn::host {

struct SlotPool::State {
  State(asio::any_io_executor ex, asio::thread_pool* p, NetworkOptions o)
      : executor(ex), pool(p), options(o), changed(ex), tasks(ex) {}
  asio::any_io_executor executor;
  asio::thread_pool* pool;
  NetworkOptions options;
  std::deque<int> ready;
  std::set<int> taken;    // in use, being made, being removed or ready
  std::set<int> leaving;  // released, not yet removed
  std::set<int> strays;   // found at the start with a process inside, belonging to nobody yet
  async::Condition changed;
  async::Nursery tasks;
  bool started = false;
  bool stopping = false;
  bool stopped = false;
  int settling = 0;  // slots being made for `ready`, or being removed

  // Counts one such slot while it lives, and wakes those that wait for it.
  class Settling {
   public:
    explicit Settling(State* state) : state_(state) { ++state_->settling; }
    Settling(const Settling&) = delete;
    Settling& operator=(const Settling&) = delete;
    ~Settling() {
      --state_->settling;
      state_->changed.notify_all();
    }

   private:
    State* state_;
  };

  Result<int> reserve() {
    for (int index = 1; index <= options.max_slots; ++index) {
      if (taken.insert(index).second) return index;
    }
    return fail(Error(Code::kResourceExhausted,
                      fmt::format("all {} network slots are in use; remove sandboxes or raise the limit",
                                  options.max_slots))
                    .with_reason("no_network_slots"));
  }
  Task<int> make() {
    const int index = CO_TRY(reserve());
    const Result<> made = co_await async::offload(*pool, [index, limits = options](async::Blocking blocking) {
      return create_slot(blocking, index, limits);
    });
    if (made) co_return index;
    release(index);
    co_return fail(Error(made.error()).in(fmt::format("network slot {}", index)));
  }
  Task<> remove(int index) {
    const Settling settling_slot(this);
    co_return co_await async::offload(
        *pool, [index](async::Blocking blocking) { return remove_slot(blocking, index); });
  }
  // The index is free again only once nothing of the slot is left, and stays taken if the pool stops before
  // or the slot is taken off `list`.
  Task<> remove_in_the_end(int index, std::set<int>* list) {
    bool told = false;
    while (list->contains(index)) {
      const Result<> removed = co_await remove(index);
      if (removed) {
        if (list->erase(index) > 0) taken.erase(index);
        break;
      }
      if (!std::exchange(told, true)) log::warn("network slot {}: {}", index, removed.error().to_string());
      if (stopping) break;
      CO_TRY(co_await async::sleep_for(kRemoveRetry));
    }
    changed.notify_all();
    co_return Result<>{};
  }
  Task<> refill() {
    while (!stopping && !co_await async::is_cancelled()) {
      if (static_cast<int>(ready.size()) >= options.ready_slots) {
        CO_TRY(co_await changed.wait());
        continue;
      }
      const Result<> made = co_await make_ready();
      if (made) continue;
      log::warn("{}", made.error().to_string());
      CO_TRY(co_await async::sleep_for(kRefillPause));
    }
    co_return Result<>{};
  }
  Task<> make_ready() {
    const Settling settling_slot(this);
    ready.push_back(CO_TRY(co_await make()));
    co_return Result<>{};
  }
  void release(int index) {
    if (leaving.insert(index).second) tasks.spawn("slot release", remove_in_the_end(index, &leaving));
  }
};

SlotPool::SlotPool(asio::any_io_executor executor, asio::thread_pool* pool, NetworkOptions options)
    : state_(std::make_unique<State>(std::move(executor), pool, options)) {}

SlotPool::~SlotPool() = default;

Slot SlotPool::describe(int index) {
  return {.index = index,
          .netns = fmt::format("wrenn-{}", index),
          .host_ip = fmt::format("10.11.{}.{}", index / 256, index % 256),
          .uid = kFirstVmUid + static_cast<std::uint32_t>(index)};
}

Task<> SlotPool::start(std::vector<int> in_use) {
  State& state = *state_;
  state.options.max_slots = std::clamp(state.options.max_slots, 1, kMaxSlots);
  state.taken.insert(in_use.begin(), in_use.end());
  const bool internet = state.options.internet;
  auto found = CO_TRY(
      co_await async::offload(*state.pool, [internet](async::Blocking blocking) -> Result<std::vector<int>> {
        TRY(enable_ip_forward(blocking));
        TRY(install_host_rules(blocking, internet));
        return existing_slots(blocking);
      }));
  for (const int index : found) {
    if (!state.taken.insert(index).second) continue;
    const Result<> removed = co_await state.remove(index);
    if (removed) {
      state.taken.erase(index);
      continue;
    }
    state.strays.insert(index);
    state.tasks.spawn("stray slot", state.remove_in_the_end(index, &state.strays));
  }
  state.started = true;
  state.tasks.spawn("slot pool", state.refill());
  co_return Result<>{};
}

Task<Slot> SlotPool::acquire() {
  State& state = *state_;
  const auto all_taken = [&] { return static_cast<int>(state.taken.size()) >= state.options.max_slots; };
  while (state.ready.empty() && all_taken() && state.settling > 0 && !state.stopping) {
    CO_TRY(co_await state.changed.wait_for(kSettleLimit));
  }
  if (state.stopping) co_return fail(Code::kUnavailable, "the agent is stopping");
  if (state.ready.empty()) co_return describe(CO_TRY(co_await async::shielded(state.make())));
  const int index = state.ready.front();
  state.ready.pop_front();
  state.changed.notify_all();
  co_return describe(index);
}

bool SlotPool::claim(int index) { return state_->strays.erase(index) > 0; }

void SlotPool::release(int index) {
  if (!state_->stopping) return state_->release(index);
  if (state_->stopped) log::warn("network slot {} is left for the next agent to remove", index);
  state_->ready.push_back(index);  // stop() removes it
}

Task<> SlotPool::stop() {
  State& state = *state_;
  state.stopping = true;
  state.changed.notify_all();
  co_await state.tasks.join();
  while (!state.ready.empty()) {
    const int index = state.ready.front();
    state.ready.pop_front();
    const Result<> removed = co_await state.remove(index);
    if (removed) {
      state.taken.erase(index);
    } else {
      log::warn("network slot {}: {}", index, removed.error().to_string());
    }
  }
  state.stopped = true;
  if (!state.started || !state.taken.empty()) co_return Result<>{};
  co_return co_await async::offload(*state.pool, remove_host_rules);
}

}  // namespace wrenn::host
