#include "sandbox/machine.h"

#include <fmt/format.h>

#include <ctime>

#include "base/log.h"
#include "sandbox/guest_client.h"
#include "sandbox/limits.h"
#include "sandbox/recovery.h"
#include "sys/file.h"

namespace wrenn::sandbox {
namespace {

std::string rfc3339_seconds() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

void keep_first(Result<>* first, Result<> next) {
  if (*first && !next) *first = std::move(next);
}

// It only saves time, so one that cannot be read costs no more than that.
Result<std::vector<sys::PageRun>> read_working_set(async::Blocking blocking, const LaunchPlan& plan) {
  const std::string path = plan.snapshot_dir + "/working-set";
  if (!sys::exists(path)) return std::vector<sys::PageRun>{};
  auto runs = snapshot::read_runs(blocking, static_cast<std::uint64_t>(plan.memory_mib) * kMiB, path);
  if (runs) return runs;
  log::warn("{}: {}", plan.id, runs.error().to_string());
  return std::vector<sys::PageRun>{};
}

Result<vmm::SavedState> saved_state(async::Blocking blocking, const LaunchPlan& plan) {
  vmm::SavedState from{.device_state = plan.snapshot_dir + "/state", .pages = {}, .prefetch = {}};
  const std::string pages = plan.snapshot_dir + "/pages";
  const std::uint64_t ram = static_cast<std::uint64_t>(plan.memory_mib) * kMiB;
  if (sys::exists(pages)) from.pages = TRY(snapshot::find_pages(blocking, ram, pages));
  from.prefetch = TRY(read_working_set(blocking, plan));
  return from;
}

Task<std::shared_ptr<vmm::Vm>> start_in_cgroup(Context* context, LaunchPlan plan, host::Slot slot) {
  const vmm::VmSpec spec = spec_of(*context, plan, slot);
  if (plan.snapshot_dir.empty()) co_return co_await context->driver->boot(spec);
  vmm::SavedState from = CO_TRY(co_await async::offload(
      *context->pool, [plan](async::Blocking blocking) { return saved_state(blocking, plan); }));
  co_return co_await context->driver->load(spec, std::move(from));
}

Task<> remove_cgroup(Context* context, std::string id) {
  co_return co_await async::offload(*context->pool, [context, id](async::Blocking blocking) {
    return context->cgroups->remove(blocking, id);
  });
}

}  // namespace

vmm::Shape shape_of(const Context& context, int vcpus, int memory_mib) {
  vmm::Shape shape = context.driver->base_shape();
  shape.vcpus = vcpus;
  shape.memory_mib = memory_mib;
  return shape;
}

vmm::VmSpec spec_of(const Context& context, const LaunchPlan& plan, const host::Slot& slot) {
  const Paths paths(context.config, plan.id);
  vmm::VmSpec spec;
  spec.id = plan.id;
  spec.run_dir = paths.run_dir;
  spec.shape = shape_of(context, plan.vcpus, plan.memory_mib);
  spec.kernel = context.config.kernels_dir + (spec.shape.driver == "firecracker" ? "/vmlinux" : "/bzImage");
  spec.initramfs = context.config.kernels_dir + "/initramfs.cpio.gz";
  spec.kernel_args = vmm::default_kernel_args();
  spec.base = {paths.base, true};
  spec.overlay = {paths.overlay, false};
  spec.memory_file = plan.memory_file;
  spec.netns = slot.netns;
  spec.limits = context.config.limits;
  spec.uid = slot.uid;
  spec.gid = slot.uid;
  spec.cgroup_procs_files = context.cgroups->procs_files(plan.id);
  return spec;
}

Task<async::Semaphore::Guard> take_start(Context* context, Milliseconds limit) {
  auto place =
      co_await async::with_timeout(context->starts->acquire(), limit, "waiting for others that start");
  if (place || place.error().code() != Code::kDeadlineExceeded) co_return place;
  co_return fail(Error(Code::kResourceExhausted,
                       fmt::format("the host has been starting other sandboxes for {} s; try again later",
                                   limit.count() / 1000))
                     .with_reason("host_busy"));
}

Task<std::shared_ptr<vmm::Vm>> launch(Context* context, LaunchPlan plan, host::Slot slot) {
  const std::string id = plan.id;
  const vmm::Footprint most = vmm::footprint_of(shape_of(*context, plan.vcpus, plan.memory_mib));
  const host::CgroupLimits limits{
      .vcpus = plan.vcpus, .memory_bytes = most.memory_bytes, .max_pids = most.threads};
  CO_TRY(co_await async::offload(*context->pool, [context, id, limits](async::Blocking blocking) -> Result<> {
    // One group has one VM: an earlier one that could not be killed would share disks and address with this.
    if (TRY(context->cgroups->populated(blocking, id))) {
      return fail(Error(Code::kUnavailable, "the VM before has not ended yet").with_reason(kVmNotKilled));
    }
    return context->cgroups->create(blocking, id, limits);
  }));
  auto vm = co_await start_in_cgroup(context, std::move(plan), std::move(slot));
  if (!vm) {
    const Result<> removed = co_await remove_cgroup(context, id);
    if (!removed) log::warn("{}: {}", id, removed.error().to_string());
  }
  co_return vm;
}

Task<> dismantle(Context* context, std::string id, Machine machine) {
  Result<> first;
  if (machine.vm != nullptr) keep_first(&first, co_await machine.vm->kill());
  keep_first(&first, co_await remove_cgroup(context, id));
  if (machine.slot.index != 0) {
    // Another guest has the address next.
    forget_guest(context->http.get(), machine.slot.host_ip);
    context->slots->release(machine.slot.index);
  }
  co_return first;
}

snapshot::Manifest manifest_of(const Context& context, int vcpus, int memory_mib,
                               const std::string& base_image) {
  const vmm::Shape shape = shape_of(context, vcpus, memory_mib);
  snapshot::Manifest manifest;
  manifest.driver = shape.driver;
  manifest.accel = shape.accel;
  manifest.vmm_version = shape.version;
  manifest.cpu_model = shape.cpu_model;
  manifest.kernel_digest = context.kernel_digest;
  manifest.base_image = base_image;
  manifest.vcpus = vcpus;
  manifest.memory_mib = memory_mib;
  manifest.created_at = rfc3339_seconds();
  return manifest;
}

Result<> check_loadable(const Context& context, const snapshot::Manifest& manifest) {
  const vmm::Shape here = shape_of(context, manifest.vcpus, manifest.memory_mib);
  const std::pair<std::string_view, std::pair<std::string, std::string>> checks[] = {
      {"VMM", {manifest.driver, here.driver}},
      {"acceleration", {manifest.accel, here.accel}},
      {"VMM version", {manifest.vmm_version, here.version}},
      {"CPU model", {manifest.cpu_model, here.cpu_model}},
  };
  for (const auto& [what, values] : checks) {
    if (values.first == values.second) continue;
    return fail(
        Error(Code::kFailedPrecondition, fmt::format("the snapshot was made with {} {}, this host has {}",
                                                     what, values.first, values.second))
            .with_reason("snapshot_incompatible"));
  }
  return {};
}

}  // namespace wrenn::sandbox
