#include "sandbox/templates.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <set>

#include "base/log.h"
#include "model/sandbox.h"
#include "sandbox/files.h"
#include "sandbox/limits.h"
#include "sandbox/template_cache.h"
#include "snapshot/snapshot.h"
#include "sys/file.h"

namespace wrenn::sandbox {
namespace {

// Answers the digest of its memory; empty when there is no such snapshot.
Result<std::string> verify_snapshot(async::Blocking blocking, Context* context, const std::string& dir) {
  if (!sys::exists(dir + "/manifest.json")) return std::string();
  const snapshot::Manifest manifest = TRY(snapshot::read_manifest(blocking, dir));
  TRY(check_loadable(*context, manifest));
  TRY(snapshot::verify(blocking, dir, manifest, &context->verified));
  mark_used(dir);
  return manifest.find("memory")->digest;
}

}  // namespace

TemplateSnapshot::TemplateSnapshot(Held* held, std::string folder) : dir(std::move(folder)), held_(held) {
  ++(*held_)[dir];
}

TemplateSnapshot::~TemplateSnapshot() {
  if (--(*held_)[dir] == 0) held_->erase(dir);
}

TemplateStore::TemplateStore(Context* context) : context_(context), building_(context->executor) {}

Result<Template> TemplateStore::find(const std::string& name) const {
  TRY(model::check_name("template", name));
  Template found;
  found.name = name;
  found.dir = context_->config.images_dir + "/" + name;
  found.rootfs = found.dir + "/rootfs.ext4";
  auto version = image_version(found.rootfs);
  if (!version && version.error().code() == Code::kNotFound) {
    return fail(Error(Code::kNotFound, "no template " + name)
                    .with_reason("template_not_found")
                    .with_field("template"));
  }
  found.base_image = TRY(std::move(version));
  return found;
}

std::string TemplateStore::host_key(const std::string& base_image) const {
  const vmm::Shape shape = context_->driver->base_shape();
  std::string inputs;
  for (const std::string& input :
       {shape.driver, shape.accel, shape.version, shape.cpu_model, context_->kernel_digest, base_image}) {
    inputs += input + '\n';
  }
  return fmt::format("{:016x}", XXH3_64bits(inputs.data(), inputs.size()));
}

std::string TemplateStore::key(const Template& from, int vcpus, int memory_mib) const {
  return fmt::format("{}c-{}m-{}", vcpus, memory_mib, host_key(from.base_image));
}

std::string TemplateStore::snapshot_dir(const Template& from, int vcpus, int memory_mib) const {
  return from.dir + "/snapshots/" + key(from, vcpus, memory_mib);
}

Task<TemplateStore::SnapshotPtr> TemplateStore::ready(Template from, int vcpus, int memory_mib) {
  const std::string dir = snapshot_dir(from, vcpus, memory_mib);
  // Held from here on, so that nothing of it goes while it is read.
  const auto held = std::make_shared<TemplateSnapshot>(&held_, dir);
  auto digest = co_await async::offload(*context_->pool, [context = context_, dir](async::Blocking blocking) {
    return verify_snapshot(blocking, context, dir);
  });
  if (digest) {
    held->memory_digest = *digest;
    co_return held->memory_digest.empty() ? nullptr : held;
  }
  if (digest.error().code() != Code::kDataLoss) co_return fail(digest.error());
  log::warn("template snapshot {} is damaged and will be made again: {}", dir, digest.error().to_string());
  CO_TRY(co_await async::offload(
      *context_->pool, [dir](async::Blocking blocking) { return snapshot::remove(blocking, dir); }));
  co_return nullptr;
}

// ---- the cache

Task<> TemplateStore::evict(std::string keep) {
  std::set<std::string> kept{std::move(keep)};
  for (const auto& [dir, holders] : held_) kept.insert(dir);
  co_return co_await async::offload(
      *context_->pool, [this, kept, config = context_->config](async::Blocking blocking) -> Result<> {
        if (!sys::exists(config.images_dir)) return {};
        const std::uint64_t budget = TRY(cache_budget(config.images_dir, config.template_cache_bytes));
        auto found = TRY(cached_snapshots(blocking, config.images_dir,
                                          [this](const std::string& image) { return host_key(image); }));
        for (const std::string& dir : choose_evicted(std::move(found), budget, kept)) {
          log::info("template snapshot {} makes room for others", dir);
          TRY(snapshot::remove(blocking, dir));
        }
        return {};
      });
}

Task<> TemplateStore::sweep() {
  CO_TRY(co_await async::offload(
      *context_->pool, [images = context_->config.images_dir](async::Blocking blocking) -> Result<> {
        if (!sys::exists(images)) return {};
        for (const auto& name : TRY(sys::list_dir(blocking, images))) {
          TRY(snapshot::sweep_unpublished(blocking, images + "/" + name + "/snapshots"));
        }
        return {};
      }));
  co_return co_await evict("");
}

}  // namespace wrenn::sandbox
