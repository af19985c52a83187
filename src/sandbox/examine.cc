#include "sandbox/examine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "model/sandbox.h"
#include "sandbox/files.h"
#include "sandbox/machine.h"
#include "sandbox/store.h"
#include "snapshot/snapshot.h"
#include "sys/file.h"

namespace wrenn::sandbox {
namespace {

// In the other phases a VM that is left is not what holds the state.
bool lives_in_vm(Phase phase) { return phase == Phase::kRunning || phase == Phase::kPausing; }

bool is_other_drivers(const Context& context, const Record& record) {
  const vmm::Shape here = context.driver->base_shape();
  // Earlier journals do not tell.
  return !record.driver.empty() && (record.driver != here.driver || record.accel != here.accel);
}

Task<> examine_vm(Context* context, Leftover* leftover, std::shared_ptr<vmm::Vm> held) {
  const Record& record = leftover->record;
  Found& found = leftover->found;
  if (held != nullptr) {
    found.death = vmm::DeathProof::of(*held);
    found.vm_reachable = !found.death;
    if (!found.death) leftover->vm = std::move(held);
    co_return Result<>{};
  }
  if (record.process.pid == 0) co_return fail(Code::kNotFound, "no VM process is known");
  found.death = CO_TRY(vmm::DeathProof::of(record.process));
  if (found.death || !lives_in_vm(record.phase)) co_return Result<>{};
  if (is_other_drivers(*context, record)) {
    co_return fail(Code::kFailedPrecondition, "it runs under " + driver_name(record.driver, record.accel));
  }
  const Paths paths(context->config, record.id);
  const bool mapped = CO_TRY(
      co_await async::offload(*context->pool, [paths](async::Blocking) { return present(paths.memory); }));
  const LaunchPlan plan{record.id, record.vcpus, record.memory_mib, mapped ? paths.memory : "", ""};
  auto vm = co_await context->driver->adopt(spec_of(*context, plan, host::SlotPool::describe(record.slot)),
                                            record.process);
  if (vm) {
    leftover->vm = std::move(*vm);
    found.vm_reachable = true;
    co_return Result<>{};
  }
  found.death = CO_TRY(vmm::DeathProof::of(record.process));
  if (found.death) co_return Result<>{};
  co_return fail(std::move(vm).error());
}

Result<> examine_snapshot(async::Blocking blocking, const Context& context, const std::string& id,
                          Found* found) {
  const Paths paths(context.config, id);
  TRY(confirm_store(blocking, context.config.snapshots_dir, context.store_id));
  if (!TRY(present(paths.snapshot_dir))) {
    found->snapshot = SnapshotState::kMissing;
    return {};
  }
  const snapshot::Manifest manifest = TRY(snapshot::read_manifest(blocking, paths.snapshot_dir));
  if (manifest.kind != "sandbox" || manifest.id != id)
    return fail(Code::kDataLoss, "the snapshot is another sandbox's");
  found->snapshot = SnapshotState::kPresent;
  found->snapshot_generation = manifest.generation;
  return {};
}

// Of a folder without a journal: whether there is nothing else of a sandbox either.
Result<bool> is_unborn(async::Blocking blocking, const Context& context, const std::string& id) {
  const Paths paths(context.config, id);
  for (const std::string& path : {paths.base, paths.overlay, paths.memory, paths.snapshot_dir}) {
    if (TRY(present(path))) return false;
  }
  return !TRY(context.cgroups->populated(blocking, id));
}

void classify(async::Blocking blocking, const Context& context, const std::string& id, Result<Record> record,
              Inventory* out) {
  if (record && record->id == id) {
    out->records.push_back(std::move(*record));
    return;
  }
  std::string problem = record ? "its journal is that of " + record->id : record.error().to_string();
  if (!record && record.error().sys_errno() == ENOENT) {
    const auto unborn = is_unborn(blocking, context, id);
    if (unborn && *unborn) {
      out->unborn.push_back(id);
      return;
    }
    if (!unborn) problem = unborn.error().to_string();
  }
  out->unreadable.push_back({id, std::move(problem)});
}

}  // namespace

Task<Leftover> examine(Context* context, Record record, std::shared_ptr<vmm::Vm> held) {
  Leftover leftover;
  leftover.record = std::move(record);
  const Result<> vm = co_await examine_vm(context, &leftover, std::move(held));
  if (!vm) leftover.found.vm_problem = vm.error().to_string();
  if (co_await async::is_cancelled()) co_return fail(async::canceled_error());
  const Result<> snapshot = co_await async::offload(
      *context->pool, [context, id = leftover.record.id, found = &leftover.found](async::Blocking blocking) {
        return examine_snapshot(blocking, *context, id, found);
      });
  if (!snapshot) leftover.found.snapshot_problem = snapshot.error().to_string();
  co_return leftover;
}

bool Inventory::knows(const std::string& id) const {
  return std::ranges::any_of(records, [&](const Record& record) { return record.id == id; }) ||
         std::ranges::any_of(unreadable, [&](const Unreadable& each) { return each.id == id; });
}

std::vector<std::string> Inventory::resumable() const {
  std::vector<std::string> ids;
  for (const Record& record : records) {
    if (record.phase == Phase::kPaused || record.phase == Phase::kResuming) ids.push_back(record.id);
  }
  return ids;
}

std::vector<int> Inventory::slots() const {
  std::vector<int> out;
  for (const Record& record : records) {
    if (record.slot != 0) out.push_back(record.slot);
  }
  return out;
}

Result<Inventory> take_inventory(async::Blocking blocking, const Context& context) {
  Inventory found;
  for (const auto& id : TRY(sys::list_dir(blocking, context.config.sandboxes_dir))) {
    if (!model::is_sandbox_id(id)) continue;
    const Paths paths(context.config, id);
    auto record = read_record(blocking, paths.dir);
    // A plain file is nobody's sandbox.
    if (!record && record.error().sys_errno() == ENOTDIR) continue;
    classify(blocking, context, id, std::move(record), &found);
  }
  return found;
}

std::string driver_name(const std::string& driver, const std::string& accel) {
  return driver == "qemu" ? "qemu-" + accel : driver;
}

Result<> check_drivers(const Context& context, const std::vector<Leftover>& leftovers) {
  std::string ids;
  std::string theirs;
  for (const auto& [record, found, vm] : leftovers) {
    if (found.death || !lives_in_vm(record.phase) || !is_other_drivers(context, record)) continue;
    ids += (ids.empty() ? "" : ", ") + record.id;
    theirs = driver_name(record.driver, record.accel);
  }
  if (ids.empty()) return {};
  const vmm::Shape here = context.driver->base_shape();
  return fail(
      Error(Code::kFailedPrecondition,
            fmt::format("the VMs of {} run under {}, and this agent has {}: set AGENT_DRIVER={}, and pause "
                        "or destroy them before the driver changes",
                        ids, theirs, driver_name(here.driver, here.accel), theirs))
          .with_reason("other_driver"));
}

}  // namespace wrenn::sandbox
