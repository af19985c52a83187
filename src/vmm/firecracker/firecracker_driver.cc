#include "vmm/firecracker/firecracker_driver.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <boost/json.hpp>

#include "base/log.h"
#include "sys/file.h"
#include "vmm/jail.h"
#include "vmm/limits.h"
#include "vmm/processor.h"

namespace wrenn::vmm::firecracker {
namespace {

constexpr std::chrono::seconds kVersionLimit{10};
constexpr std::size_t kQuoted = 80;

std::unexpected<Error> missing(const std::string& why) {
  return fail(Error(Code::kFailedPrecondition, why + "; scripts/install-firecracker.sh installs both")
                  .with_reason("firecracker_missing"));
}

using model::Version;

// `name` is what the program calls itself.
Result<Version> version_of(async::Blocking blocking, const std::string& binary, const std::string& name) {
  sys::SpawnSpec query;
  query.argv = {binary, "--version"};
  const auto text = sys::run_checked(blocking, std::move(query), kVersionLimit);
  if (!text) return missing(binary + " does not run: " + text.error().message());
  const auto version = model::version_after(*text, name + " v");
  if (!version) return missing(fmt::format("{} tells no version but '{}'", binary, text->substr(0, kQuoted)));
  return *version;
}

}  // namespace

FirecrackerDriver::FirecrackerDriver(asio::any_io_executor executor, asio::thread_pool* pool,
                                     std::string binary, std::string jailer, Version version, Shape shape)
    : executor_(std::move(executor)),
      pool_(pool),
      binary_(std::move(binary)),
      jailer_(std::move(jailer)),
      version_(version),
      shape_(std::move(shape)) {}

Result<std::shared_ptr<FirecrackerDriver>> FirecrackerDriver::make(async::Blocking blocking,
                                                                   asio::any_io_executor executor,
                                                                   asio::thread_pool* pool,
                                                                   std::string binary) {
  if (binary.empty()) return missing("no Firecracker binary is set (AGENT_FIRECRACKER_BIN)");
  const Version version = TRY(version_of(blocking, binary, "Firecracker"));
  const std::string_view refused = model::why_refused(version);
  if (!refused.empty()) {
    return fail(
        Error(Code::kFailedPrecondition,
              fmt::format("Firecracker {} {}; install 1.14.4, 1.15.1 or later", version.text(), refused))
            .with_reason("firecracker_refused"));
  }
  std::string jailer = binary.substr(0, binary.rfind('/') + 1) + "jailer";
  const Version jailer_version = TRY(version_of(blocking, jailer, "Jailer"));
  if (jailer_version != version) {
    return missing(fmt::format("Firecracker is {} and its jailer {}", version.text(), jailer_version.text()));
  }
  Shape shape;
  shape.driver = "firecracker";
  shape.accel = "kvm";
  shape.version = version.text();
  shape.cpu_model = processor_identity();
  return std::shared_ptr<FirecrackerDriver>(new FirecrackerDriver(
      std::move(executor), pool, std::move(binary), std::move(jailer), version, std::move(shape)));
}

Task<std::shared_ptr<Vm>> FirecrackerDriver::boot(VmSpec spec) {
  CO_TRY(check_spec(spec));
  // Its memory is the process's own; there is no file to map.
  spec.memory_file.clear();
  co_return co_await start(std::move(spec), {});
}

Task<std::shared_ptr<Vm>> FirecrackerDriver::load(VmSpec spec, SavedState from) {
  CO_TRY(check_spec(spec));
  CO_TRY(check_memory_file(spec));
  co_return co_await start(std::move(spec), std::move(from));
}

Result<VmProcess> FirecrackerDriver::spawn(async::Blocking blocking, const VmSpec& spec,
                                           const std::string& device_state) const {
  const std::string root = jail_path(spec);
  const bool boots = device_state.empty();
  TRY(make_jail(blocking, root, spec, boots ? Start::kBoot : Start::kLoad));
  if (boots) {
    TRY(sys::write_file(blocking, root + kJailConfig,
                        boost::json::serialize(machine_config(spec_in_jail(spec)))));
  } else {
    TRY(lend_file(blocking, device_state, root + kJailState));
  }
  TRY(Metrics::make_pipe(root + kJailMetrics, spec));
  sys::SpawnSpec process;
  process.argv = jailer_command(jailer_, binary_, spec, boots);
  process.env = std::vector<std::string>{};
  // At a save it syncs all that it writes, of which the capture throws the memory away and syncs the rest.
  process.ignores_sync = true;
  // Firecracker's standard output is the guest's serial port.
  sys::Fd console;
  if (!spec.serial_log.empty()) {
    console = TRY(sys::open_file(spec.serial_log, O_WRONLY | O_CREAT | O_APPEND));
    process.stdout_fd = console.get();
  }
  if (!spec.netns.empty()) process.netns = "/run/netns/" + spec.netns;
  process.cgroup_procs_files = spec.cgroup_procs_files;
  process.max_file_bytes = TRY(most_file_bytes(spec));
  return VmProcess::start(std::move(process));
}

Task<std::shared_ptr<Vm>> FirecrackerDriver::start(VmSpec spec, SavedState from) {
  CO_TRY(check_same_machine(spec.shape, shape_));
  VmProcess process = CO_TRY(
      co_await async::offload(*pool_, [this, spec, state = from.device_state](async::Blocking blocking) {
        return spawn(blocking, spec, state);
      }));
  auto vm = std::make_shared<FirecrackerVm>(executor_, pool_, std::move(spec), std::move(process));
  auto ready = vm->open_metrics();
  if (ready) ready = co_await vm->connect(kStartLimit);
  const bool loads = !from.device_state.empty();
  if (ready) ready = co_await (loads ? vm->load_state(version_, std::move(from)) : vm->remember_memory());
  if (!ready) CO_TRY(co_await vm->give_up(std::move(ready).error()));
  co_return vm;
}

Task<std::shared_ptr<Vm>> FirecrackerDriver::adopt(VmSpec spec, ProcessIdentity process) {
  auto vm =
      std::make_shared<FirecrackerVm>(executor_, pool_, std::move(spec), CO_TRY(VmProcess::adopt(process)));
  vm->go_on();
  // First, since its monitor may be waiting for a page too.
  CO_TRY(co_await vm->adopt_memory());
  if (const Result<> opened = vm->open_metrics(); !opened) log::warn("{}", opened.error().to_string());
  CO_TRY(vm->check_adopted(co_await vm->connect(kCommandLimit)));
  co_return vm;
}

}  // namespace wrenn::vmm::firecracker
