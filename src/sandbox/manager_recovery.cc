// What a newly started agent does with the traces of the one before.
#include <algorithm>

#include "base/log.h"
#include "sandbox/limits.h"
#include "sandbox/manager.h"
#include "sandbox/parallel.h"
#include "sandbox/store.h"
#include "snapshot/snapshot.h"
#include "sys/file.h"

namespace wrenn::sandbox {
namespace {

// A VM that no folder speaks of is not this agent's to kill: its folder is on a disk that is not here.
Result<> check_strangers(async::Blocking blocking, const Context& context, const Inventory& inventory) {
  std::string ids;
  for (const auto& id : TRY(context.cgroups->list(blocking))) {
    if (inventory.knows(id) || !TRY(context.cgroups->populated(blocking, id))) continue;
    ids += (ids.empty() ? "" : ", ") + id;
  }
  if (ids.empty()) return {};
  return fail(Error(Code::kFailedPrecondition,
                    fmt::format("VMs of {} run here, and {} says nothing of them: mount its disk, set "
                                "AGENT_SANDBOXES_PATH, or end them",
                                ids, context.config.sandboxes_dir))
                  .with_reason("wrong_store"));
}

}  // namespace

// Up to the second check nothing is changed, so that a cancelled start leaves all as it was.
Task<> Manager::recover() {
  auto inventory =
      CO_TRY(co_await async::offload(*context_.pool, [this](async::Blocking blocking) -> Result<Inventory> {
        Inventory found = TRY(take_inventory(blocking, context_));
        TRY(check_strangers(blocking, context_, found));
        context_.store_id = TRY(check_store(blocking, context_.config.sandboxes_dir,
                                            context_.config.snapshots_dir, found.resumable()));
        return found;
      }));
  const auto leftovers =
      std::make_shared<std::vector<Leftover>>(CO_TRY(co_await examine_all(inventory.records)));
  CO_TRY(check_drivers(context_, *leftovers));

  CO_TRY(co_await context_.slots->start(inventory.slots()));
  CO_TRY(co_await sweep(inventory));
  for (const auto& folder : inventory.unreadable) keep_unreadable(folder);
  // One that has begun is brought to its end; those that have not stay as they are.
  CO_TRY(co_await for_each(
      context_.executor, "recovery", leftovers->size(), kParallelRecoveries,
      [this, leftovers](std::size_t i) { return async::shielded(recover_one(std::move((*leftovers)[i]))); }));
  const Result<> swept = co_await templates_.sweep();
  if (!swept) log::warn("{}", swept.error().to_string());
  log::info("{} sandboxes recovered", sandboxes_.size());
  co_return Result<>{};
}

Task<std::vector<Leftover>> Manager::examine_all(std::vector<Record> records) {
  const auto found = std::make_shared<std::vector<Leftover>>(records.size());
  const auto known = std::make_shared<std::vector<Record>>(std::move(records));
  const auto look = [](Context* context, Record record, std::shared_ptr<std::vector<Leftover>> out,
                       std::size_t i) -> Task<> {
    (*out)[i] = CO_TRY(co_await examine(context, std::move(record), nullptr));
    co_return Result<>{};
  };
  CO_TRY(co_await for_each(
      context_.executor, "recovery", known->size(), kParallelRecoveries,
      [this, known, found, look](std::size_t i) { return look(&context_, (*known)[i], found, i); }));
  co_return std::move(*found);
}

Task<> Manager::recover_one(Leftover leftover) {
  const std::string id = leftover.record.id;
  auto sandbox = std::make_shared<Sandbox>(owner(), leftover.record);
  sandboxes_.emplace(id, sandbox);
  Result<> recovered = co_await sandbox->recover(std::move(leftover));
  if (!recovered) co_return fail(Error(recovered.error()).in("recovery of " + id));
  co_return Result<>{};
}

void Manager::keep_unreadable(const Inventory::Unreadable& folder) {
  Record record;
  record.id = folder.id;
  auto sandbox = std::make_shared<Sandbox>(owner(), std::move(record));
  sandboxes_.emplace(folder.id, sandbox);
  sandbox->keep_unreadable(folder.problem);
}

// Removes what is nobody's. What cannot be removed is no reason not to start.
Task<> Manager::sweep(Inventory inventory) {
  co_return co_await async::offload(*context_.pool, [this, inventory](async::Blocking blocking) -> Result<> {
    const auto tell = [](const Result<>& removed) {
      if (!removed) log::warn("{}", removed.error().to_string());
    };
    for (const auto& id : TRY(context_.cgroups->list(blocking))) {
      if (!inventory.knows(id)) tell(context_.cgroups->remove_empty(blocking, id));
    }
    for (const auto& id : inventory.unborn) tell(sys::remove_tree(blocking, Paths(context_.config, id).dir));
    tell(snapshot::sweep_unpublished(blocking, context_.config.snapshots_dir));
    return {};
  });
}

}  // namespace wrenn::sandbox
