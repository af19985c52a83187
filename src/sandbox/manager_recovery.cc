// What a newly started agent does with the traces of the one before.
#include <algorithm>

#include "base/log.h"
#include "sandbox/limits.h"
#include "sandbox/manager.h"
#include "snapshot/snapshot.h"
#include "sys/file.h"

namespace wrenn::sandbox {

Task<std::vector<Record>> Manager::read_journals() {
  co_return co_await async::offload(
      *context_.pool, [config = context_.config](async::Blocking blocking) -> Result<std::vector<Record>> {
        std::vector<Record> records;
        for (const auto& id : TRY(sys::list_dir(blocking, config.sandboxes_dir))) {
          const Paths paths(config, id);
          if (id.starts_with('.') || !sys::is_directory(paths.dir)) continue;
          auto record = read_record(blocking, paths.dir);
          if (record && record->id == id) {
            records.push_back(std::move(*record));
          } else if (!record && record.error().code() == Code::kNotFound &&
                     !sys::exists(paths.snapshot_dir)) {
            // Its creation ended before its first entry.
            TRY(sys::remove_tree(blocking, paths.dir));
          } else {
            log::error("sandbox folder {} has no readable journal; it is left alone: {}", paths.dir,
                       record ? "another id" : record.error().to_string());
          }
        }
        return records;
      });
}

Task<Manager::Leftover> Manager::examine(Record record) {
  Leftover leftover;
  leftover.record = std::move(record);
  const Record& known = leftover.record;
  const Paths paths(context_.config, known.id);
  if (known.process.pid != 0) {
    const LaunchPlan plan{known.id, known.vcpus, known.memory_mib,
                          sys::exists(paths.memory) ? paths.memory : "", ""};
    const auto spec = spec_of(context_, plan, host::SlotPool::describe(known.slot));
    auto vm = co_await context_.driver->adopt(spec, known.process);
    if (vm) leftover.vm = std::move(*vm);
    if (!vm && vm.error().code() != Code::kNotFound) {
      log::warn("sandbox {}: its VM cannot be taken over: {}", known.id, vm.error().to_string());
    }
    leftover.found.vm_alive = leftover.vm != nullptr;
  }
  auto manifest =
      co_await async::offload(*context_.pool, [dir = paths.snapshot_dir](async::Blocking blocking) {
        return snapshot::read_manifest(blocking, dir);
      });
  if (manifest && manifest->id == known.id) leftover.found.snapshot_generation = manifest->generation;
  co_return leftover;
}

Task<> Manager::recover(std::vector<Record> records) {
  std::vector<int> slots;
  for (const Record& record : records) {
    if (record.slot != 0) slots.push_back(record.slot);
  }
  CO_TRY(co_await context_.slots->start(slots));
  CO_TRY(co_await sweep(records));
  async::Nursery nursery(context_.executor);
  for (Record& record : records) {
    Leftover leftover = CO_TRY(co_await examine(std::move(record)));
    nursery.spawn("recovery", recover_one(std::move(leftover)));
  }
  co_await nursery.join();
  CO_TRY(co_await templates_.sweep());
  log::info("{} sandboxes recovered", sandboxes_.size());
  co_return Result<>{};
}

Task<> Manager::recover_one(Leftover leftover) {
  const std::string id = leftover.record.id;
  const RecoveryDecision decision = decide_recovery(leftover.record, leftover.found);
  auto sandbox = std::make_shared<Sandbox>(owner(), std::move(leftover.record));
  sandboxes_.emplace(id, sandbox);
  Result<> recovered = co_await sandbox->recover(decision, std::move(leftover.vm));
  if (!recovered) co_return fail(Error(recovered.error()).in("recovery of " + id));
  co_return Result<>{};
}

// Removes what no journal speaks of.
Task<> Manager::sweep(std::vector<Record> records) {
  co_return co_await async::offload(*context_.pool, [this, records](async::Blocking blocking) -> Result<> {
    for (const auto& id : TRY(context_.cgroups->list(blocking))) {
      if (std::ranges::any_of(records, [&](const Record& record) { return record.id == id; })) continue;
      log::warn("cgroup {} belongs to no sandbox; it is removed with what runs inside", id);
      const Result<> removed = context_.cgroups->remove(blocking, id);
      if (!removed) log::warn("{}", removed.error().to_string());
    }
    return snapshot::sweep_unpublished(blocking, context_.config.snapshots_dir);
  });
}

}  // namespace wrenn::sandbox
