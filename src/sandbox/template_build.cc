// How a template snapshot is made: boot, warm up, stand still, write.
#include <fmt/format.h>

#include "base/bytes.h"
#include "base/log.h"
#include "sandbox/files.h"
#include "sandbox/guest_client.h"
#include "sandbox/journal.h"
#include "sandbox/limits.h"
#include "sandbox/template_cache.h"
#include "sandbox/templates.h"
#include "snapshot/snapshot.h"
#include "sys/file.h"

namespace wrenn::sandbox {

struct TemplateStore::Build {
  Template from;
  Record record;
  Paths paths;
  std::string key;
  std::string final_dir;
  Progress progress;
  Machine machine;
};

namespace {

Record record_of_build(const Template& from, int vcpus, int memory_mib) {
  Record record;
  record.id = random_id("tpl-");
  record.phase = Phase::kBuilding;
  record.template_name = from.name;
  record.vcpus = vcpus;
  record.memory_mib = memory_mib;
  record.created_ms = unix_ms();
  return record;
}

Result<> make_files(async::Blocking blocking, const Config& config, const Paths& paths, const Record& record,
                    const Template& from) {
  TRY(check_space(config.sandboxes_dir, 0));
  TRY(check_space(config.images_dir, kTemplateSpaceBytes));
  TRY(sys::mkdirs(paths.run_dir, 0700));
  TRY(write_record(blocking, paths.dir, record, Durability::kAtomic));
  TRY(link_image(blocking, from.rootfs, from.base_image, paths.base));
  return host::make_overlay_disk(blocking, paths.overlay, kDiskBytes);
}

ExecSpec warm_up_command(std::string cmd, std::vector<std::string> args) {
  ExecSpec spec;
  spec.cmd = std::move(cmd);
  spec.args = std::move(args);
  spec.limit = kWarmUpLimit;
  return spec;
}

// What a first command touches is then in the snapshot, shared by all clones, and not read again by each.
Task<> warm_up(GuestClient* guest) {
  const auto keep = std::make_shared<bool>(false);
  CO_TRY(co_await guest->exec(warm_up_command("/bin/sh", {"-c", "ls / > /dev/null"}), keep));
  // An image without python is fine; its users pay nothing for it.
  const auto python = co_await guest->exec(warm_up_command("python3", {"-c", "pass"}), keep);
  if (!python && python.error().code() == Code::kCanceled) co_return fail(python.error());
  co_return Result<>{};
}

Result<> capture(async::Blocking blocking, snapshot::Manifest manifest, const std::string& overlay,
                 const sys::ProcessMemory& ram, const Context& context, snapshot::Writer* writer) {
  TRY(snapshot::write_memory(blocking, ram, writer->path("memory")));
  TRY(sys::copy_sparse(blocking, overlay, writer->path("overlay")));
  manifest.kind = "template";
  TRY(writer->publish(blocking, std::move(manifest), context.verified));
  return {};
}

}  // namespace

Task<> TemplateStore::build(Template from, int vcpus, int memory_mib, Progress progress) {
  const auto guard = CO_TRY(co_await building_.lock());
  for (int tries = 1;; ++tries) {
    // The image may have been replaced since the caller looked, or be replaced now.
    from = CO_TRY(find(from.name));
    if (CO_TRY(co_await ready(from, vcpus, memory_mib)) != nullptr) co_return Result<>{};
    Result<> built = co_await build_now(from, vcpus, memory_mib, progress);
    if (built || built.error().reason() != kImageReplaced || tries == kImageTries) co_return built;
  }
}

Task<> TemplateStore::build_now(Template from, int vcpus, int memory_mib, Progress progress) {
  Record record = record_of_build(from, vcpus, memory_mib);
  const Paths paths(context_->config, record.id);
  const std::string key = this->key(from, vcpus, memory_mib);
  const std::string final_dir = snapshot_dir(from, vcpus, memory_mib);
  Build build{from, std::move(record), paths, key, final_dir, std::move(progress), {}};
  const std::string what = fmt::format("the {} snapshot for {} vCPU, {} MiB", from.name, vcpus, memory_mib);
  build.progress("making " + what + ": booting");
  Result<> built = co_await start(&build);
  if (built) built = co_await settle_and_capture(&build);
  const Result<> gone = co_await async::shielded(dismantle(context_, build.record.id, build.machine));
  if (!gone) log::warn("{}: {}", build.record.id, gone.error().to_string());
  co_await async::shielded(async::offload(*context_->pool, [dir = paths.dir](async::Blocking blocking) {
    return sys::remove_tree(blocking, dir);
  }));
  if (!built) co_return fail(Error(built.error()).in("template snapshot of " + from.name));
  build.progress(what + " is ready");
  const Result<> evicted = co_await evict(final_dir);
  if (!evicted) log::warn("template snapshots: {}", evicted.error().to_string());
  co_return Result<>{};
}

Task<> TemplateStore::start(Build* build) {
  Record& record = build->record;
  CO_TRY(co_await async::offload(*context_->pool, [context = context_, paths = build->paths, record = record,
                                                   from = build->from](async::Blocking blocking) {
    return make_files(blocking, context->config, paths, record, from);
  }));
  build->machine.slot = CO_TRY(co_await context_->slots->acquire());
  record.slot = build->machine.slot.index;
  const LaunchPlan plan{record.id, record.vcpus, record.memory_mib, "", ""};
  build->machine.vm = CO_TRY(co_await launch(context_, plan, build->machine.slot));
  record.process = build->machine.vm->process();
  co_return co_await async::offload(*context_->pool,
                                    [dir = build->paths.dir, record = record](async::Blocking blocking) {
                                      return write_record(blocking, dir, record, Durability::kAtomic);
                                    });
}

Task<> TemplateStore::settle_and_capture(Build* build) {
  const auto vm = build->machine.vm;
  GuestClient guest(context_->http, build->machine.slot.host_ip, "");
  CO_TRY(co_await guest.wait_healthy(kBootLimit));
  build->progress("the guest is up, warming it");
  CO_TRY(co_await warm_up(&guest));
  CO_TRY(co_await guest.quiesce(kQuiesceLimit));
  guest.drop_connections();
  CO_TRY(co_await vm->pause());
  build->progress("writing the snapshot");
  const sys::ProcessMemory ram = CO_TRY(co_await vm->ram());
  auto writer = CO_TRY(co_await async::offload(
      *context_->pool, [dir = build->final_dir](async::Blocking blocking) -> Result<snapshot::Writer> {
        return snapshot::Writer::create(blocking, dir);
      }));
  Result<> captured = co_await vm->save_device_state(writer.path("state"));
  snapshot::Manifest manifest =
      manifest_of(*context_, build->record.vcpus, build->record.memory_mib, build->from.base_image);
  manifest.id = build->key;
  if (captured) {
    captured = co_await async::offload(
        *context_->pool,
        [manifest, ram, context = context_, overlay = build->paths.overlay, out = &writer](
            async::Blocking blocking) { return capture(blocking, manifest, overlay, ram, *context, out); });
  }
  if (captured) {
    log::info("template snapshot {} made", build->final_dir);
    co_return captured;
  }
  const Result<> discarded = co_await async::offload(
      *context_->pool, [&writer](async::Blocking blocking) { return writer.discard(blocking); });
  if (!discarded) log::warn("{}: {}", build->record.id, discarded.error().to_string());
  co_return captured;
}

// ---- beside the sandboxes

void TemplateStore::build_in_background(async::Nursery* nursery, Template from, int vcpus, int memory_mib) {
  if (!is_template_size(memory_mib) || builds_ >= kMaxTemplateBuilds) return;
  auto& not_before = not_before_[snapshot_dir(from, vcpus, memory_mib)];
  if (unix_ms() < not_before) return;
  not_before = unix_ms() + kBootLimit.count();
  ++builds_;
  const std::shared_ptr<void> place(nullptr, [this](void*) { --builds_; });
  nursery->spawn("template build", background_build(std::move(from), vcpus, memory_mib, place));
}

Task<> TemplateStore::background_build(Template from, int vcpus, int memory_mib,
                                       std::shared_ptr<void> /*place*/) {
  const std::string dir = snapshot_dir(from, vcpus, memory_mib);
  const Result<> built = co_await build(std::move(from), vcpus, memory_mib,
                                        [](const std::string& line) { log::info("{}", line); });
  if (built) {
    not_before_.erase(dir);
  } else {
    not_before_[dir] = unix_ms() + kBuildRetry.count();
  }
  co_return built;
}

}  // namespace wrenn::sandbox
