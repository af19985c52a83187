#include "sandbox/templates.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include <boost/json.hpp>

#include "base/bytes.h"
#include "base/log.h"
#include "model/sandbox.h"
#include "sandbox/files.h"
#include "sandbox/guest_client.h"
#include "sandbox/journal.h"
#include "sandbox/limits.h"
#include "sys/file.h"

namespace wrenn::sandbox {
namespace {

namespace json = boost::json;

constexpr std::size_t kMaxDescriptionBytes = 16 * 1024;

std::unexpected<Error> not_found(const std::string& name) {
  return fail(
      Error(Code::kNotFound, "no template " + name).with_reason("template_not_found").with_field("template"));
}

Result<> read_fixed_shape(Template* found) {
  const std::string text = TRY(sys::read_file(found->dir + "/template.json", kMaxDescriptionBytes));
  boost::system::error_code ec;
  const json::value value = json::parse(text, ec);
  const auto number = [&value](std::string_view name) -> std::int64_t {
    if (!value.is_object()) return 0;
    const json::value* field = value.get_object().if_contains(name);
    return field != nullptr && field->is_int64() ? field->get_int64() : 0;
  };
  const std::int64_t vcpus = ec ? 0 : number("vcpus");
  const std::int64_t memory = ec ? 0 : number("memory_mib");
  if (!model::check_vcpus(vcpus) || !model::check_memory_mb(memory)) {
    return fail(Code::kDataLoss, "template " + found->name + " has a damaged description");
  }
  found->vcpus = static_cast<int>(vcpus);
  found->memory_mib = static_cast<int>(memory);
  return {};
}

std::string fixed_shape_json(int vcpus, int memory_mib) {
  return json::serialize(json::object{{"version", 1}, {"vcpus", vcpus}, {"memory_mib", memory_mib}}) + "\n";
}

// Writes the content of a `pages` file into the memory file, through a shared mapping of it.
Result<> put_pages(async::Blocking blocking, const std::string& memory, const std::string& pages) {
  const sys::Fd file = TRY(sys::open_file(memory, O_RDWR));
  const std::uint64_t size = TRY(sys::file_size(memory));
  void* mapping = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (mapping == MAP_FAILED) return fail_errno("map " + memory);
  Result<> loaded = snapshot::load_pages(blocking, sys::own_memory(mapping, size), pages);
  ::munmap(mapping, size);
  return loaded;
}

Result<> flatten_into(async::Blocking blocking, const std::string& from_dir, const snapshot::Manifest& from,
                      const std::string& key, snapshot::Writer* writer) {
  TRY(sys::copy_sparse(blocking, from_dir + "/memory", writer->path("memory")));
  TRY(put_pages(blocking, writer->path("memory"), from_dir + "/pages"));
  TRY(sys::copy_sparse(blocking, from_dir + "/state", writer->path("state")));
  TRY(sys::copy_sparse(blocking, from_dir + "/overlay", writer->path("overlay")));
  snapshot::Manifest manifest = from;
  manifest.kind = "template";
  manifest.id = key;
  manifest.generation = 0;
  manifest.parent.clear();
  manifest.files.clear();
  return writer->publish(blocking, std::move(manifest));
}

Result<> flatten(async::Blocking blocking, const std::string& from_dir, const std::string& to_dir,
                 const snapshot::Manifest& from, const std::string& key) {
  snapshot::Writer writer = TRY(snapshot::Writer::create(blocking, to_dir));
  Result<> flat = flatten_into(blocking, from_dir, from, key, &writer);
  if (!flat) (void)writer.discard(blocking);
  return flat;
}

}  // namespace

TemplateStore::TemplateStore(Context* context) : context_(context), building_(context->executor) {}

Result<Template> TemplateStore::find(const std::string& name) const {
  TRY(model::check_name("template", name));
  Template found;
  found.name = name;
  found.dir = context_->config.images_dir + "/" + name;
  found.rootfs = found.dir + "/rootfs.ext4";
  auto identity = file_identity(found.rootfs);
  if (!identity) return not_found(name);
  found.base_image = std::move(*identity);
  found.named = sys::exists(found.dir + "/template.json");
  if (found.named) TRY(read_fixed_shape(&found));
  return found;
}

std::string TemplateStore::key(const Template& from, int vcpus, int memory_mib) const {
  const vmm::Shape shape = shape_of(*context_, vcpus, memory_mib);
  std::string inputs;
  for (const std::string& input : {shape.driver, shape.accel, shape.version, shape.cpu_model,
                                   context_->kernel_digest, from.base_image}) {
    inputs += input + '\n';
  }
  return fmt::format("{}c-{}m-{:016x}", vcpus, memory_mib, XXH3_64bits(inputs.data(), inputs.size()));
}

std::string TemplateStore::snapshot_dir(const Template& from, const std::string& key) const {
  return from.dir + "/snapshots/" + key;
}

Task<std::optional<std::string>> TemplateStore::ready(Template from, int vcpus, int memory_mib) {
  // The snapshot of a named template was made once and for all; a changed host is told at load.
  const std::string dir =
      snapshot_dir(from, from.named ? std::string("captured") : key(from, vcpus, memory_mib));
  if (verified_.contains(dir) && sys::exists(dir + "/manifest.json")) co_return dir;
  if (!sys::exists(dir + "/manifest.json")) co_return std::optional<std::string>{};
  const Result<> good = co_await async::offload(
      *context_->pool, [context = context_, dir](async::Blocking blocking) -> Result<> {
        const snapshot::Manifest manifest = TRY(snapshot::read_manifest(blocking, dir));
        TRY(check_loadable(*context, manifest));
        return snapshot::verify(blocking, dir, manifest);
      });
  if (good) {
    verified_.insert(dir);
    co_return dir;
  }
  if (from.named || good.error().code() != Code::kDataLoss) co_return fail(good.error());
  log::warn("template snapshot {} is damaged and will be made again: {}", dir, good.error().to_string());
  CO_TRY(co_await async::offload(
      *context_->pool, [dir](async::Blocking blocking) { return sys::remove_tree(blocking, dir); }));
  co_return std::optional<std::string>{};
}

// ---- building

Task<> TemplateStore::build(Template from, int vcpus, int memory_mib, Progress progress) {
  const auto guard = CO_TRY(co_await building_.lock());
  if (from.named || CO_TRY(co_await ready(from, vcpus, memory_mib))) co_return Result<>{};
  const std::string build_key = key(from, vcpus, memory_mib);
  co_return co_await build_now(std::move(from), vcpus, memory_mib, build_key, std::move(progress));
}

Task<> TemplateStore::build_now(Template from, int vcpus, int memory_mib, std::string key,
                                Progress progress) {
  const std::string id = random_id("tpl-");
  const Paths paths(context_->config, id);
  Record record;
  record.id = id;
  record.phase = Phase::kBuilding;
  record.template_name = from.name;
  record.vcpus = vcpus;
  record.memory_mib = memory_mib;
  record.created_ms = unix_ms();
  progress(fmt::format("making the {} snapshot for {} vCPU, {} MiB: booting", from.name, vcpus, memory_mib));
  Machine machine;
  Result<> built = co_await async::offload(
      *context_->pool, [paths, record, rootfs = from.rootfs](async::Blocking blocking) -> Result<> {
        TRY(sys::mkdirs(paths.run_dir, 0700));
        TRY(write_record(blocking, paths.dir, record, Durability::kAtomic));
        TRY(link_or_copy(blocking, rootfs, paths.base));
        return host::make_overlay_disk(blocking, paths.overlay, kDiskBytes);
      });
  if (built) {
    auto slot = co_await context_->slots->acquire();
    if (slot) {
      machine.slot = *slot;
      record.slot = slot->index;
    } else {
      built = fail(std::move(slot).error());
    }
  }
  if (built) {
    auto vm = co_await launch(context_, LaunchPlan{id, vcpus, memory_mib, "", ""}, machine.slot);
    if (vm) {
      machine.vm = *vm;
      record.process = machine.vm->process();
      built = co_await async::offload(*context_->pool, [paths, record](async::Blocking blocking) {
        return write_record(blocking, paths.dir, record, Durability::kAtomic);
      });
    } else {
      built = fail(std::move(vm).error());
    }
  }
  if (built) built = co_await settle_and_capture(id, from, vcpus, memory_mib, key, machine, progress);
  const Result<> gone = co_await async::shielded(dismantle(context_, id, machine));
  if (!gone) log::warn("{}: {}", id, gone.error().to_string());
  co_await async::shielded(async::offload(*context_->pool, [dir = paths.dir](async::Blocking blocking) {
    return sys::remove_tree(blocking, dir);
  }));
  if (!built) co_return fail(Error(built.error()).in("template snapshot of " + from.name));
  progress(fmt::format("the {} snapshot for {} vCPU, {} MiB is ready", from.name, vcpus, memory_mib));
  co_return Result<>{};
}

namespace {

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

Result<> capture_template(async::Blocking blocking, snapshot::Manifest manifest, std::string overlay,
                          std::string final_dir, sys::ProcessMemory ram, snapshot::Writer* writer) {
  TRY(snapshot::write_memory(blocking, ram, "", writer->path("memory")));
  TRY(sys::copy_sparse(blocking, overlay, writer->path("overlay")));
  manifest.kind = "template";
  TRY(writer->publish(blocking, std::move(manifest)));
  log::info("template snapshot {} made", final_dir);
  return {};
}

}  // namespace

Task<> TemplateStore::settle_and_capture(std::string id, Template from, int vcpus, int memory_mib,
                                         std::string key, Machine machine, Progress progress) {
  GuestClient guest(context_->http, machine.slot.host_ip, "");
  CO_TRY(co_await guest.wait_healthy(kBootLimit));
  progress("the guest is up, warming it");
  CO_TRY(co_await warm_up(&guest));
  CO_TRY(co_await guest.quiesce(kQuiesceLimit));
  guest.drop_connections();
  CO_TRY(co_await machine.vm->pause());
  progress("writing the snapshot");
  const sys::ProcessMemory ram = CO_TRY(co_await machine.vm->ram());
  const std::string final_dir = snapshot_dir(from, key);
  snapshot::Manifest manifest = manifest_of(*context_, vcpus, memory_mib, from.base_image);
  manifest.id = key;
  const std::string overlay = Paths(context_->config, id).overlay;
  auto writer = CO_TRY(co_await async::offload(
      *context_->pool, [final_dir](async::Blocking blocking) -> Result<snapshot::Writer> {
        TRY(sys::mkdirs(final_dir.substr(0, final_dir.rfind('/')), 0700));
        return snapshot::Writer::create(blocking, final_dir);
      }));
  Result<> captured = co_await machine.vm->save_device_state(writer.path("state"));
  if (captured) {
    captured = co_await async::offload(*context_->pool, [=, out = &writer](async::Blocking blocking) {
      return capture_template(blocking, manifest, overlay, final_dir, ram, out);
    });
  }
  if (captured) {
    verified_.insert(final_dir);
    co_return captured;
  }
  const Result<> discarded = co_await async::offload(
      *context_->pool, [&writer](async::Blocking blocking) { return writer.discard(blocking); });
  if (!discarded) log::warn("{}: {}", id, discarded.error().to_string());
  co_return captured;
}

void TemplateStore::build_in_background(async::Nursery* nursery, Template from, int vcpus, int memory_mib) {
  const std::string build_key = key(from, vcpus, memory_mib);
  auto& not_before = not_before_[snapshot_dir(from, build_key)];
  if (unix_ms() < not_before) return;
  not_before = unix_ms() + kBootLimit.count();
  nursery->spawn("template build", background_build(std::move(from), vcpus, memory_mib, build_key));
}

Task<> TemplateStore::background_build(Template from, int vcpus, int memory_mib, std::string key) {
  const std::string dir = snapshot_dir(from, key);
  const Result<> built = co_await build(std::move(from), vcpus, memory_mib,
                                        [](const std::string& line) { log::info("{}", line); });
  if (built) {
    not_before_.erase(dir);
  } else {
    not_before_[dir] = unix_ms() + kBuildRetry.count();
  }
  co_return built;
}

// ---- named templates

Task<std::uint64_t> TemplateStore::capture(std::string name, std::string sandbox_snapshot_dir,
                                           std::string base_path) {
  CO_TRY(model::check_name("name", name));
  const std::string dir = context_->config.images_dir + "/" + name;
  if (sys::exists(dir)) {
    co_return fail(Error(Code::kAlreadyExists, "there is a template " + name).with_reason("template_exists"));
  }
  co_return co_await async::offload(*context_->pool, [=](async::Blocking blocking) -> Result<std::uint64_t> {
    const snapshot::Manifest manifest = TRY(snapshot::read_manifest(blocking, sandbox_snapshot_dir));
    const auto make = [&]() -> Result<std::uint64_t> {
      TRY(sys::mkdirs(dir + "/snapshots", 0700));
      TRY(flatten(blocking, sandbox_snapshot_dir, dir + "/snapshots/captured", manifest, name));
      TRY(sys::write_file_atomic(blocking, dir + "/template.json",
                                 fixed_shape_json(manifest.vcpus, manifest.memory_mib)));
      // Last, since a folder is a template as soon as it has a root filesystem.
      TRY(link_or_copy(blocking, base_path, dir + "/rootfs.ext4"));
      TRY(sys::fsync_path(blocking, dir));
      return allocated_bytes(blocking, dir + "/snapshots/captured");
    };
    auto made = make();
    if (!made && !sys::remove_tree(blocking, dir)) log::warn("cannot remove {}", dir);
    return made;
  });
}

Task<> TemplateStore::remove(std::string name) {
  const Template found = CO_TRY(find(name));
  if (!found.named || name == model::kDefaultTemplate) {
    co_return fail(Error(Code::kFailedPrecondition, "template " + name + " is a base image")
                       .with_reason("template_protected"));
  }
  verified_.erase(snapshot_dir(found, "captured"));
  const std::string trash = random_id(context_->config.images_dir + "/.trash-");
  co_return co_await async::offload(*context_->pool,
                                    [dir = found.dir, trash](async::Blocking blocking) -> Result<> {
                                      TRY(sys::rename_file(dir, trash));
                                      return sys::remove_tree(blocking, trash);
                                    });
}

Task<> TemplateStore::sweep() {
  co_return co_await async::offload(
      *context_->pool, [images = context_->config.images_dir](async::Blocking blocking) -> Result<> {
        if (!sys::exists(images)) return {};
        for (const auto& name : TRY(sys::list_dir(blocking, images))) {
          const std::string dir = images + "/" + name;
          const bool half_captured =
              !sys::exists(dir + "/rootfs.ext4") && sys::exists(dir + "/snapshots/captured");
          if (name.starts_with(".trash-") || half_captured) TRY(sys::remove_tree(blocking, dir));
          if (sys::exists(dir + "/snapshots")) TRY(snapshot::sweep_unpublished(blocking, dir + "/snapshots"));
        }
        return {};
      });
}

}  // namespace wrenn::sandbox
