// Sandbox::create and what it is made of.
#include "base/bytes.h"
#include "base/log.h"
#include "sandbox/files.h"
#include "sandbox/limits.h"
#include "sandbox/sandbox.h"
#include "sys/file.h"

namespace wrenn::sandbox {
namespace {

std::string random_token() {
  std::uint8_t bytes[16];
  fill_random(bytes);
  return to_hex(bytes);
}

template <class T>
Task<> keep_result(Task<T> task, std::optional<Result<T>>* out) {
  *out = co_await std::move(task);
  co_return Result<>{};
}

}  // namespace

Task<> Sandbox::create(Template from) {
  auto all = [](std::shared_ptr<Sandbox> self, Template base) -> Task<> {
    const auto guard = CO_TRY(co_await self->turn_.lock());
    co_return co_await self->locked_create(std::move(base));
  };
  co_return co_await async::shielded(all(shared_from_this(), std::move(from)));
}

Task<> Sandbox::locked_create(Template from) {
  if (record_.token.empty()) record_.token = random_token();
  Result<> started = co_await start_new(std::move(from));
  if (started) {
    started = co_await write_journal(Phase::kRunning, Durability::kAtomic);
  }
  if (!started) {
    const Result<> removed = co_await discard();
    if (!removed) log::warn("sandbox {}: {}", record_.id, removed.error().to_string());
    co_return started;
  }
  touch();
  set_status(model::HostStatus::kRunning);
  start_watch();
  co_return Result<>{};
}

Result<> Sandbox::make_files(async::Blocking blocking, Template from, std::optional<std::string> snapshot) {
  TRY(sys::mkdirs(paths_.run_dir, 0700));
  TRY(write_record(blocking, paths_.dir, record_, Durability::kAtomic));
  TRY(link_or_copy(blocking, from.rootfs, paths_.base));
  if (!snapshot) return host::make_overlay_disk(blocking, paths_.overlay, kDiskBytes);
  TRY(link_or_copy(blocking, *snapshot + "/memory", paths_.memory));
  TRY(reserve_on_tmpfs(blocking, paths_.memory));
  return sys::copy_sparse(blocking, *snapshot + "/overlay", paths_.overlay);
}

Task<> Sandbox::start_new(Template from) {
  const auto snapshot = CO_TRY(co_await owner_.templates->ready(from, record_.vcpus, record_.memory_mib));
  // Files and slot are made side by side.
  std::optional<Result<host::Slot>> slot;
  async::Nursery nursery(context_->executor);
  nursery.spawn("slot", keep_result(context_->slots->acquire(), &slot));
  Result<> files = co_await async::offload(*context_->pool, [this, from, snapshot](async::Blocking blocking) {
    return make_files(blocking, from, snapshot);
  });
  co_await nursery.join();
  if (!slot) co_return fail(async::canceled_error());
  if (*slot) {
    machine_.slot = **slot;
    record_.slot = machine_.slot.index;
  }
  CO_TRY(std::move(files));
  CO_TRY(std::move(*slot));

  LaunchPlan plan{record_.id, record_.vcpus, record_.memory_mib, "", snapshot.value_or("")};
  if (snapshot) plan.memory_file = paths_.memory;
  machine_.vm = CO_TRY(co_await launch(context_, std::move(plan), machine_.slot));
  record_.process = machine_.vm->process();
  guest_ = std::make_shared<GuestClient>(context_->http, machine_.slot.host_ip, record_.token);
  if (snapshot) {
    CO_TRY(co_await machine_.vm->resume());
  } else {
    owner_.templates->build_in_background(owner_.nursery, from, record_.vcpus, record_.memory_mib);
    CO_TRY(co_await guest_->wait_healthy(kBootLimit));
  }
  co_return co_await init_guest();
}

}  // namespace wrenn::sandbox
