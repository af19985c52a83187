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

// `snapshot`: folder of the template's, or empty.
Result<> write_files(async::Blocking blocking, const Context& context, const Paths& paths,
                     const Record& record, const Template& from, const std::string& snapshot) {
  TRY(check_space(context.config.sandboxes_dir, 0));
  TRY(sys::mkdirs(paths.run_dir, 0700));
  TRY(write_record(blocking, paths.dir, record, Durability::kAtomic));
  TRY(link_image(blocking, from.rootfs, from.base_image, paths.base));
  if (snapshot.empty()) return host::make_overlay_disk(blocking, paths.overlay, kDiskBytes);
  TRY(link_or_copy(blocking, snapshot + "/memory", paths.memory));
  TRY(reserve_on_tmpfs(blocking, paths.memory));
  return sys::copy_sparse(blocking, snapshot + "/overlay", paths.overlay);
}

}  // namespace

Task<> Sandbox::create(Template from, async::Semaphore::Guard place) {
  auto all = [](std::shared_ptr<Sandbox> self, Template base, async::Semaphore::Guard start) -> Task<> {
    const auto guard = CO_TRY(co_await self->turn_.lock());
    self->start_place_.emplace(std::move(start));
    co_return co_await self->locked_create(std::move(base));
  };
  co_return co_await async::shielded(all(shared_from_this(), std::move(from), std::move(place)));
}

Task<> Sandbox::locked_create(Template from) {
  if (record_.token.empty()) record_.token = random_token();
  Result<> started = co_await start_new(std::move(from));
  if (started) {
    started = co_await write_journal(Phase::kRunning, Durability::kAtomic);
  }
  start_place_.reset();
  if (!started) {
    const Result<> removed = co_await discard(Grounds::unfinished("its creation failed"));
    if (!removed) log::warn("sandbox {}: {}", record_.id, removed.error().to_string());
    co_return started;
  }
  touch();
  set_status(model::HostStatus::kRunning);
  co_return Result<>{};
}

Task<TemplateStore::SnapshotPtr> Sandbox::make_files(Template from) {
  for (int tries = 1;; ++tries) {
    auto snapshot = CO_TRY(co_await owner_.templates->ready(from, record_.vcpus, record_.memory_mib));
    record_.memory_digest = snapshot == nullptr ? "" : snapshot->memory_digest;
    auto work = [context = context_, paths = paths_, record = record_, from,
                 snapshot](async::Blocking blocking) {
      return write_files(blocking, *context, paths, record, from, snapshot == nullptr ? "" : snapshot->dir);
    };
    const Result<> written = co_await async::offload(*context_->pool, std::move(work));
    if (written) co_return snapshot;
    if (written.error().reason() != kImageReplaced || tries == kImageTries) co_return fail(written.error());
    // Memory of one image over the disk of another would be garbage: both again, of what is there now.
    from = CO_TRY(owner_.templates->find(from.name));
  }
}

Task<> Sandbox::start_new(Template from) {
  // Files and slot are made side by side.
  std::optional<Result<host::Slot>> slot;
  async::Nursery nursery(context_->executor);
  nursery.spawn("slot", keep_result(context_->slots->acquire(), &slot));
  auto files = co_await make_files(from);
  co_await nursery.join();
  if (!slot) co_return fail(async::canceled_error());
  if (*slot) {
    machine_.slot = **slot;
    record_.slot = machine_.slot.index;
  }
  const auto snapshot = CO_TRY(std::move(files));
  CO_TRY(std::move(*slot));

  LaunchPlan plan{record_.id, record_.vcpus, record_.memory_mib, "", ""};
  if (snapshot != nullptr) {
    plan.snapshot_dir = snapshot->dir;
    plan.memory_file = paths_.memory;
  }
  hold(CO_TRY(co_await launch(context_, std::move(plan), machine_.slot)));
  note_process();
  guest_ = std::make_shared<GuestClient>(context_->http, machine_.slot.host_ip, record_.token);
  if (snapshot != nullptr) {
    CO_TRY(co_await machine_.vm->resume());
  } else {
    owner_.templates->build_in_background(owner_.nursery, from, record_.vcpus, record_.memory_mib);
    CO_TRY(co_await guest_->wait_healthy(kBootLimit));
  }
  co_return co_await init_guest();
}

}  // namespace wrenn::sandbox
