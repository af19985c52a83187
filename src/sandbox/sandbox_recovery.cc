// Sandboxes that an earlier agent left, and those that are kept in error.
#include "base/log.h"
#include "sandbox/limits.h"
#include "sandbox/sandbox.h"
#include "sys/file.h"

namespace wrenn::sandbox {

using model::HostStatus;

Task<> Sandbox::recover(Leftover leftover) {
  const auto guard = CO_TRY(co_await turn_.lock());
  if (record_.slot != 0) machine_.slot = host::SlotPool::describe(record_.slot);
  co_return co_await settle(std::move(leftover));
}

void Sandbox::keep_unreadable(std::string problem) {
  journal_read_ = false;
  last_active_ms_ = 0;
  set_fault(kJournalUnreadable, "its journal cannot be read: " + std::move(problem));
}

Task<> Sandbox::retry() {
  auto settled = [](std::shared_ptr<Sandbox> self, Leftover leftover) -> Task<> {
    co_return co_await self->settle(std::move(leftover));
  };
  const auto self = shared_from_this();
  const auto guard = CO_TRY(co_await turn_.lock());
  auto leftover = CO_TRY(co_await look_again());
  if (!leftover) co_return Result<>{};
  co_return co_await async::shielded(settled(self, std::move(*leftover)));
}

// Nullopt when there is nothing to decide.
Task<std::optional<Leftover>> Sandbox::look_again() {
  if (gone_ || status_ != HostStatus::kError) co_return std::optional<Leftover>{};
  if (giving_up_) co_return Leftover{.record = record_, .found = {}, .vm = nullptr};
  if (!journal_read_) {
    auto record = co_await async::offload(
        *context_->pool, [dir = paths_.dir](async::Blocking blocking) { return read_record(blocking, dir); });
    Result<> taken = record ? take_record(std::move(*record)) : fail(record.error());
    if (!taken) {
      fault_.message = "its journal cannot be read: " + taken.error().to_string();
      co_return std::optional<Leftover>{};
    }
  }
  co_return CO_TRY(co_await examine(context_, record_, machine_.vm));
}

// The journal can be read again.
Result<> Sandbox::take_record(Record record) {
  if (record.id != record_.id) return fail(Code::kDataLoss, "it is that of " + record.id);
  record_ = std::move(record);
  journal_read_ = true;
  last_active_ms_ = record_.last_active_ms;
  // Without a process in it the slot was removed at the start and may be another's by now.
  if (record_.slot != 0 && context_->slots->claim(record_.slot)) {
    machine_.slot = host::SlotPool::describe(record_.slot);
  } else {
    record_.slot = 0;
  }
  return {};
}

Task<> Sandbox::settle(Leftover leftover) {
  if (giving_up_) co_return co_await discard(*giving_up_);
  RecoveryDecision decision = decide_recovery(record_, leftover.found);
  if (leftover.vm != nullptr) hold(std::move(leftover.vm));
  switch (decision.action) {
    case Recovery::kAdopt:
      co_return co_await adopt();
    case Recovery::kPaused:
      record_.generation = decision.generation;
      log::info("sandbox {}: paused, generation {}", record_.id, record_.generation);
      co_return co_await finish_pause();
    case Recovery::kDiscard:
      co_return co_await discard(std::move(*decision.grounds));
    case Recovery::kKeep:
      set_fault(std::move(decision.fault.reason), std::move(decision.fault.message));
  }
  co_return Result<>{};
}

Task<> Sandbox::adopt() {
  if (machine_.slot.index == 0) {
    set_fault(kVmUnreachable, "the network slot of its VM is gone");
    co_return Result<>{};
  }
  const auto vm = machine_.vm;
  guest_ = std::make_shared<GuestClient>(context_->http, machine_.slot.host_ip, record_.token);
  // It stands still if the agent died between the journal entry and the start, or during a pause.
  Result<> going = co_await vm->resume();
  const bool resumed = going.has_value();
  if (going) going = co_await init_guest();
  if (!going) {
    // If the VM has ended meanwhile, the watch over it finds that.
    set_fault(resumed ? kGuestUnreachable : kVmUnreachable, going.error().to_string());
    co_return Result<>{};
  }
  // What the journal says now makes the next agent adopt it, too.
  const Result<> written = co_await write_journal(Phase::kRunning, Durability::kAtomic);
  if (!written) log::error("sandbox {}: {}", record_.id, written.error().to_string());
  const Result<> removed = co_await async::offload(
      *context_->pool,
      [dir = paths_.snapshot_dir](async::Blocking blocking) { return sys::remove_tree(blocking, dir); });
  if (!removed) log::warn("{}", removed.error().to_string());
  log::info("sandbox {}: adopted, pid {}", record_.id, record_.process.pid);
  // The time since an activity is not told by the journal of an agent that was killed: it begins anew.
  last_active_ = Clock::now();
  set_status(HostStatus::kRunning);
  co_return Result<>{};
}

}  // namespace wrenn::sandbox
