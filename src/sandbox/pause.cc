// Sandbox::pause and what it is made of. The order is the promise: nothing of the running VM is given up
// before its snapshot is durable.
#include "base/log.h"
#include "sandbox/files.h"
#include "sandbox/limits.h"
#include "sandbox/sandbox.h"
#include "snapshot/snapshot.h"
#include "sys/file.h"

namespace wrenn::sandbox {

using model::HostStatus;

namespace {

std::uint64_t bytes_of(const std::vector<snapshot::PageRun>& runs) {
  return sys::page_count(runs) * sys::kPageBytes;
}

struct CapturePlan {
  Paths paths;
  sys::ProcessMemory ram;
  bool loaded_on_demand = false;
  std::vector<sys::PageRun> working_set;
  snapshot::Manifest manifest;
};

// The VM stands still. Memory that came from a template or an earlier snapshot is linked, and the pages
// written since are stored; a guest that was booted here has none such, so its whole memory becomes one.
Result<> write_files(async::Blocking blocking, const CapturePlan& plan, const Context& context,
                     snapshot::Writer* writer) {
  const auto& [paths, ram, loaded_on_demand, working_set, manifest] = plan;
  auto runs = TRY(sys::private_pages(blocking, ram));
  if (loaded_on_demand) runs = TRY(snapshot::changed_pages(blocking, ram, runs, paths.memory));
  if (!working_set.empty()) TRY(snapshot::write_runs(blocking, working_set, writer->path("working-set")));
  TRY(check_space(context.config.snapshots_dir, bytes_of(runs)));
  if (sys::exists(paths.memory)) {
    TRY(link_or_copy(blocking, paths.memory, writer->path("memory")));
    TRY(snapshot::write_pages(blocking, ram, runs, writer->path("pages")));
  } else {
    TRY(snapshot::write_memory(blocking, ram, writer->path("memory")));
    TRY(snapshot::write_pages(blocking, ram, {}, writer->path("pages")));
  }
  TRY(link_or_copy(blocking, paths.overlay, writer->path("overlay")));
  TRY(sync_copy(blocking, paths.base));
  TRY(writer->publish(blocking, manifest, context.verified));
  return {};
}

}  // namespace

Task<> Sandbox::pause() {
  auto all = [](std::shared_ptr<Sandbox> self) -> Task<> {
    const auto guard = CO_TRY(co_await self->turn_.lock());
    co_return co_await self->locked_pause(false);
  };
  co_return co_await async::shielded(all(shared_from_this()));
}

Task<> Sandbox::pause_if_idle() {
  auto all = [](std::shared_ptr<Sandbox> self) -> Task<> {
    const auto guard = CO_TRY(co_await self->turn_.lock());
    if (self->gone_ || !self->idle(Clock::now())) co_return Result<>{};
    co_return co_await self->locked_pause(true);
  };
  co_return co_await async::shielded(all(shared_from_this()));
}

Task<> Sandbox::locked_pause(bool automatic) {
  if (gone_) co_return fail(Code::kNotFound, "no sandbox " + record_.id);
  CO_TRY(require_running());
  set_status(HostStatus::kPausing);
  co_await drop_operations();
  Result<> published = co_await write_journal(Phase::kPausing, Durability::kAtomic);
  if (published) published = co_await stop_and_publish();
  if (!published) {
    next_auto_pause_ = Clock::now() + kPauseRetry;
    co_return co_await roll_back_pause(published.error());
  }
  ++record_.generation;
  record_.auto_paused = automatic;
  co_return co_await finish_pause();
}

Task<> Sandbox::stop_and_publish() {
  const Result<std::uint64_t> quiet = co_await guest_->quiesce(kQuiesceLimit);
  // A guest that does not answer is paused as it is; its disk is consistent as after a power cut.
  if (!quiet && !machine_.vm->alive()) co_return fail(Code::kUnavailable, "the VM has ended");
  if (!quiet) log::warn("sandbox {}: {}", record_.id, quiet.error().to_string());
  guest_->drop_connections();
  if (quiet && machine_.vm->can_reclaim()) {
    const Result<> reclaimed = co_await reclaim_memory(*quiet);
    if (!reclaimed) log::warn("sandbox {}: {}", record_.id, reclaimed.error().to_string());
  }
  CO_TRY(co_await machine_.vm->pause());
  if (const auto used = co_await machine_.vm->stats()) tell_throttled(used->throttled);
  co_return co_await write_snapshot();
}

// Memory that the guest has written and freed again would be kept as if it mattered. How much of its own
// memory that is nobody can tell; a guest is asked for it where it may be half, as that takes time.
Task<> Sandbox::reclaim_memory(std::uint64_t free) {
  if (free <= kGuestReserveBytes) co_return Result<>{};
  const sys::ProcessMemory ram = CO_TRY(co_await machine_.vm->ram());
  const std::uint64_t own = bytes_of(CO_TRY(co_await async::offload(
      *context_->pool, [ram](async::Blocking blocking) { return sys::private_pages(blocking, ram); })));
  if (own < kReclaimWorthBytes || free < own / 2) co_return Result<>{};
  const std::uint64_t wanted = std::min(free - kGuestReserveBytes, 2 * own);
  const int given = CO_TRY(co_await machine_.vm->reclaim(static_cast<int>(wanted / kMiB), kReclaimLimit));
  log::info("sandbox {}: {} of {} MiB of free memory need not be kept", record_.id, given, wanted / kMiB);
  co_return Result<>{};
}

Task<> Sandbox::write_snapshot() {
  auto writer =
      CO_TRY(co_await async::offload(*context_->pool,
                                     [root = context_->config.snapshots_dir, dir = paths_.snapshot_dir](
                                         async::Blocking blocking) -> Result<snapshot::Writer> {
                                       TRY(sys::mkdirs(root, 0700));
                                       return snapshot::Writer::create(blocking, dir);
                                     }));
  Result<> filled = co_await fill_snapshot(&writer);
  if (filled) co_return filled;
  const Result<> discarded = co_await async::offload(
      *context_->pool, [&writer](async::Blocking blocking) { return writer.discard(blocking); });
  if (!discarded) log::warn("sandbox {}: {}", record_.id, discarded.error().to_string());
  co_return filled;
}

Task<> Sandbox::fill_snapshot(snapshot::Writer* writer) {
  const auto vm = machine_.vm;
  CO_TRY(co_await vm->save_device_state(writer->path("state")));
  CapturePlan plan{paths_, CO_TRY(co_await vm->ram()), vm->loaded_on_demand(), vm->working_set(), {}};
  plan.manifest =
      manifest_of(*context_, record_.vcpus, record_.memory_mib, CO_TRY(image_version(paths_.base)));
  plan.manifest.kind = "sandbox";
  plan.manifest.id = record_.id;
  plan.manifest.generation = record_.generation + 1;
  plan.manifest.parent = record_.template_name;
  // What the VM runs on must still be what was verified when its life began.
  if (!record_.memory_digest.empty()) {
    plan.manifest.files = {{.name = "memory", .size = 0, .digest = record_.memory_digest}};
  }
  co_return co_await async::offload(*context_->pool,
                                    [plan, context = context_, writer](async::Blocking blocking) {
                                      return write_files(blocking, plan, *context, writer);
                                    });
}

Task<> Sandbox::finish_pause() {
  // From here the snapshot is the sandbox; what fails now is repeated by the next agent.
  const Result<> written = co_await write_journal(Phase::kPaused, Durability::kDurable);
  if (!written) log::error("sandbox {}: {}", record_.id, written.error().to_string());
  record_.phase = Phase::kPaused;
  const Result<> dismantled = co_await dismantle(context_, record_.id, std::exchange(machine_, {}));
  if (!dismantled) log::warn("sandbox {}: {}", record_.id, dismantled.error().to_string());
  guest_.reset();
  record_.process = {};
  record_.slot = 0;
  const Result<> cleared = co_await async::offload(
      *context_->pool, [paths = paths_, record = record_](async::Blocking blocking) -> Result<> {
        TRY(sys::remove_file(blocking, paths.overlay));
        TRY(sys::remove_tree(blocking, paths.run_dir));
        // The memory of the next life is the snapshot's.
        if (!sys::exists(paths.memory))
          TRY(link_or_copy(blocking, paths.snapshot_dir + "/memory", paths.memory));
        return write_record(blocking, paths.dir, record, Durability::kAtomic);
      });
  if (!cleared) log::warn("sandbox {}: {}", record_.id, cleared.error().to_string());
  set_status(HostStatus::kPaused);
  co_return Result<>{};
}

Task<> Sandbox::roll_back_pause(Error cause) {
  if (const auto death = vmm::DeathProof::of(*machine_.vm)) {
    log::error("sandbox {}: its VM ended during a pause ({}); it is removed", record_.id, cause.to_string());
    const Result<> removed = co_await discard(Grounds::vm_ended(*death, "its VM ended during a pause"));
    if (!removed) log::warn("sandbox {}: {}", record_.id, removed.error().to_string());
    co_return fail(std::move(cause));
  }
  log::warn("sandbox {}: pause failed, it goes on running: {}", record_.id, cause.to_string());
  // Before the guest runs: a new agent must not take for the sandbox what its disk has left behind.
  const Result<> unpublished = co_await async::offload(
      *context_->pool,
      [dir = paths_.snapshot_dir](async::Blocking blocking) { return snapshot::remove(blocking, dir); });
  if (!unpublished) log::error("sandbox {}: {}", record_.id, unpublished.error().to_string());
  Result<> going = co_await machine_.vm->resume();
  const bool resumed = going.has_value();
  // Also undoes what quiescing did.
  if (going) going = co_await init_guest();
  const Result<> written = co_await write_journal(Phase::kRunning, Durability::kAtomic);
  if (!written) log::error("sandbox {}: {}", record_.id, written.error().to_string());
  if (going) {
    set_status(HostStatus::kRunning);
  } else {
    set_fault(resumed ? kGuestUnreachable : kVmUnreachable, going.error().to_string());
  }
  co_return fail(std::move(cause));
}

}  // namespace wrenn::sandbox
