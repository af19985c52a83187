// Sandbox::resume and what it is made of.
#include "base/log.h"
#include "sandbox/files.h"
#include "sandbox/limits.h"
#include "sandbox/sandbox.h"
#include "snapshot/snapshot.h"
#include "sys/file.h"

namespace wrenn::sandbox {

using model::HostStatus;

namespace {

// Answers the digest of `memory`; empty where an earlier agent left it out of the manifest.
Result<std::string> check_snapshot(async::Blocking blocking, Context* context, const Paths& paths,
                                   const Record& record) {
  const snapshot::Manifest manifest = TRY(snapshot::read_manifest(blocking, paths.snapshot_dir));
  if (manifest.kind != "sandbox" || manifest.id != record.id || manifest.generation != record.generation) {
    return fail(Error(Code::kDataLoss, "the snapshot is another sandbox's or another generation")
                    .with_reason("snapshot_corrupt"));
  }
  TRY(check_loadable(*context, manifest));
  TRY(snapshot::verify(blocking, paths.snapshot_dir, manifest, &context->verified));
  const snapshot::Manifest::File* memory = manifest.find("memory");
  return memory == nullptr ? std::string() : memory->digest;
}

// Answers the digest of the memory file.
Result<std::string> put_files_in_place(async::Blocking blocking, Context* context, const Paths& paths,
                                       const Record& record) {
  std::string digest = TRY(check_snapshot(blocking, context, paths, record));
  TRY(sys::mkdirs(paths.run_dir, 0700));
  TRY(link_or_copy(blocking, paths.snapshot_dir + "/memory", paths.memory));
  TRY(link_or_copy(blocking, paths.snapshot_dir + "/overlay", paths.overlay));
  return digest;
}

}  // namespace

// Whoever waits for its turn with a place among those that start keeps others from starting, and whoever
// queues for a place in its turn keeps the sandbox from being destroyed; so neither is waited for with the
// other.
Task<> Sandbox::resume(std::int64_t timeout_sec) {
  const auto self = shared_from_this();
  for (int tries = 0; tries < kResumeTries; ++tries) {
    {
      const auto turn = CO_TRY(co_await turn_.lock());
      CO_TRY(check_paused(true));
    }
    auto place = CO_TRY(co_await take_start(context_));
    if (turn_.locked()) continue;
    const auto turn = CO_TRY(co_await turn_.lock());
    start_place_.emplace(std::move(place));
    Result<> resumed = co_await async::shielded(locked_resume(timeout_sec));
    start_place_.reset();
    co_return resumed;
  }
  co_return fail(
      Error(Code::kUnavailable, fmt::format("sandbox {} is in other transitions all the time", record_.id))
          .with_reason("in_transition"));
}

Result<> Sandbox::check_paused(bool or_error) const {
  if (gone_) return fail(Code::kNotFound, "no sandbox " + record_.id);
  if (status_ == HostStatus::kPaused || (or_error && status_ == HostStatus::kError)) return {};
  return fail(Error(Code::kFailedPrecondition,
                    fmt::format("sandbox {} is {}, not paused", record_.id, model::host_status_name(status_)))
                  .with_reason("not_paused"));
}

Task<> Sandbox::locked_resume(std::int64_t timeout_sec) {
  CO_TRY(check_paused(true));
  if (status_ == HostStatus::kError) {
    auto leftover = CO_TRY(co_await look_again());
    if (leftover) CO_TRY(co_await settle(std::move(*leftover)));
    if (gone_) co_return fail(Error(Code::kAborted, "its VM has ended").with_reason("sandbox_lost"));
    if (status_ == HostStatus::kError) co_return fail(fault_error());
    if (status_ == HostStatus::kRunning) {
      touch();
      record_.timeout_sec = timeout_sec;
      co_return co_await write_journal(Phase::kRunning, Durability::kAtomic);
    }
  }
  CO_TRY(check_paused(false));
  set_status(HostStatus::kResuming);
  const Result<> loaded = co_await load_paused();
  if (!loaded) {
    start_place_.reset();
    co_await back_to_paused();
    co_return loaded;
  }
  record_.timeout_sec = timeout_sec;
  co_return co_await run_resumed();
}

Task<> Sandbox::load_paused() {
  CO_TRY(co_await write_journal(Phase::kResuming, Durability::kAtomic));
  record_.memory_digest = CO_TRY(co_await async::offload(
      *context_->pool, [context = context_, paths = paths_, record = record_](async::Blocking blocking) {
        return put_files_in_place(blocking, context, paths, record);
      }));
  machine_.slot = CO_TRY(co_await context_->slots->acquire());
  record_.slot = machine_.slot.index;
  const LaunchPlan plan{record_.id, record_.vcpus, record_.memory_mib, paths_.memory, paths_.snapshot_dir};
  hold(CO_TRY(co_await launch(context_, plan, machine_.slot)));
  note_process();
  guest_ = std::make_shared<GuestClient>(context_->http, machine_.slot.host_ip, record_.token);
  co_return Result<>{};
}

// Nothing has run, so the snapshot still is the sandbox.
Task<> Sandbox::back_to_paused() { co_return co_await finish_pause(); }

Task<> Sandbox::run_resumed() {
  // The snapshot is consumed before the guest runs: from its first instruction on, disk and snapshot differ.
  const bool was_auto_paused = std::exchange(record_.auto_paused, false);
  Result<> running = co_await write_journal(Phase::kRunning, Durability::kDurable);
  if (!running) {
    record_.auto_paused = was_auto_paused;
    co_await back_to_paused();
    co_return running;
  }
  running = co_await machine_.vm->resume();
  if (running) running = co_await init_guest();
  if (!running) {
    // A guest whose clock, token and randomness are not renewed serves nobody: it goes back to sleep.
    log::error("sandbox {}: the resumed guest is not usable: {}", record_.id, running.error().to_string());
    co_await retire_resumed();
    if (!gone_) co_return running;
    co_return fail(Error(Code::kAborted, "the VM ended while it was resumed; its memory is lost")
                       .with_reason("sandbox_lost"));
  }
  const Result<> removed = co_await async::offload(
      *context_->pool,
      [dir = paths_.snapshot_dir](async::Blocking blocking) { return sys::remove_tree(blocking, dir); });
  if (!removed) log::warn("sandbox {}: {}", record_.id, removed.error().to_string());
  touch();
  set_status(HostStatus::kRunning);
  co_return Result<>{};
}

// The disk has gone on since the snapshot, so of a VM that has ended, or ends now, nothing is left to resume.
asio::awaitable<void> Sandbox::retire_resumed() {
  start_place_.reset();
  Result<> retired;
  if (const auto death = vmm::DeathProof::of(*machine_.vm)) {
    retired = co_await discard(Grounds::vm_ended(*death, "its VM ended while it was resumed"));
  } else {
    status_ = HostStatus::kRunning;
    retired = co_await locked_pause(false);
  }
  if (!retired) log::error("sandbox {}: {}", record_.id, retired.error().to_string());
}

}  // namespace wrenn::sandbox
