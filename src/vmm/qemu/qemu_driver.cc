#include "vmm/qemu/qemu_driver.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sys/file.h"
#include "sys/process.h"
#include "vmm/limits.h"

namespace wrenn::vmm::qemu {
namespace {

constexpr std::chrono::seconds kVersionLimit{10};
// The kernel should take a VM before the agent when memory runs out.
constexpr int kOomScoreAdj = 500;

// Full size from the start and sealed: QEMU's writes beyond it fail, so a guest that makes QEMU complain
// cannot fill anything.
Result<sys::Fd> make_log() {
  sys::Fd fd(::memfd_create("wrenn-vmm-log", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return fail_errno("memfd_create");
  if (::ftruncate(fd.get(), static_cast<off_t>(kMonitorLogBytes)) != 0) return fail_errno("ftruncate log");
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0)
    return fail_errno("seal log");
  return fd;
}

Result<> make_memory_file(const std::string& path, std::uint64_t size) {
  const sys::Fd fd = TRY(sys::open_file(path, O_RDWR | O_CREAT | O_TRUNC, 0600));
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return fail_errno("ftruncate " + path);
  return {};
}

Result<> check_same_machine(const Shape& wanted, const Shape& ours) {
  if (wanted.accel == ours.accel && wanted.version == ours.version && wanted.cpu_model == ours.cpu_model)
    return {};
  return fail(Error(Code::kFailedPrecondition,
                    fmt::format("made by QEMU {} ({}, {}), this host runs {} ({}, {})", wanted.version,
                                wanted.accel, wanted.cpu_model, ours.version, ours.accel, ours.cpu_model))
                  .with_reason("incompatible_vmm"));
}

}  // namespace

QemuDriver::QemuDriver(asio::any_io_executor executor, std::string accel, std::string version)
    : executor_(std::move(executor)) {
  shape_.driver = "qemu";
  shape_.cpu_model = cpu_model(accel);
  shape_.accel = std::move(accel);
  shape_.version = std::move(version);
}

Task<std::shared_ptr<Vm>> QemuDriver::boot(VmSpec spec) {
  const bool unnamed = spec.memory_file.empty();
  if (unnamed) spec.memory_file = spec.run_dir + "/ram";
  CO_TRY(check_spec(spec));
  CO_TRY(make_memory_file(spec.memory_file, static_cast<std::uint64_t>(spec.shape.memory_mib) << 20));
  const std::string path = spec.memory_file;
  auto vm = co_await start(std::move(spec), Start::kBoot, {}, {});
  if (unnamed) CO_TRY(sys::remove_file(path));
  co_return vm;
}

Task<std::shared_ptr<Vm>> QemuDriver::load(VmSpec spec, std::string device_state, FillMemory fill) {
  CO_TRY(check_spec(spec));
  const auto size = CO_TRY(sys::file_size(spec.memory_file));
  if (size != static_cast<std::uint64_t>(spec.shape.memory_mib) << 20) {
    co_return fail(Error(Code::kDataLoss, fmt::format("{} has {} bytes, not {} MiB", spec.memory_file, size,
                                                      spec.shape.memory_mib))
                       .with_reason("snapshot_corrupt"));
  }
  co_return co_await start(std::move(spec), Start::kLoad, std::move(device_state), std::move(fill));
}

Result<std::shared_ptr<QemuVm>> QemuDriver::spawn(VmSpec spec, Start how, std::string device_state,
                                                  std::uint64_t tsc_khz) const {
  const sys::Fd listener = TRY(listen_unix(qmp_path(spec)));
  sys::Fd log = TRY(make_log());
  sys::SpawnSpec process;
  process.argv = command_line(spec, how, tsc_khz);
  // One malloc arena: QEMU's threads would otherwise keep one each.
  process.env = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C",
                 "MALLOC_ARENA_MAX=1"};
  process.cwd = "/";
  process.stdout_fd = log.get();
  process.stderr_fd = log.get();
  process.extra_fds.emplace_back(listener.get(), kQmpListenFd);
  sys::Fd state;
  if (how == Start::kLoad) {
    state = TRY(sys::open_file(device_state, O_RDONLY));
    process.extra_fds.emplace_back(state.get(), kStateFd);
  }
  process.new_session = true;
  process.oom_score_adj = kOomScoreAdj;
  if (!spec.netns.empty()) process.netns = "/run/netns/" + spec.netns;
  process.cgroup_procs_files = spec.cgroup_procs_files;
  sys::ChildProcess child = TRY(sys::spawn(process));
  // A child cannot be recycled before it is reaped, so both answers are about it.
  ProcessIdentity identity{.pid = child.pid(), .start_time = 0};
  if (const auto started = sys::process_start_time(child.pid())) identity.start_time = *started;
  sys::Fd pidfd = TRY(sys::duplicate(child.pidfd()));
  return std::make_shared<QemuVm>(executor_, std::move(spec), identity, std::move(pidfd), std::move(child),
                                  std::move(log));
}

Task<std::shared_ptr<Vm>> QemuDriver::start(VmSpec spec, Start how, std::string device_state,
                                            FillMemory fill) {
  CO_TRY(check_same_machine(spec.shape, shape_));
  const std::uint64_t tsc_khz =
      how == Start::kBoot && shape_.accel == "tcg" ? CO_TRY(co_await tsc_.khz()) : 0;
  auto vm = CO_TRY(spawn(std::move(spec), how, std::move(device_state), tsc_khz));
  auto ready = co_await vm->connect(kStartLimit);
  if (ready && how == Start::kLoad) {
    ready = co_await async::with_timeout(vm->load_state(std::move(fill)), kStartLimit,
                                         "loading the VM's device state");
  }
  if (ready) co_return vm;
  // The connection may break a moment before the process is gone; killing it settles both.
  const auto gone = co_await async::shielded(vm->kill());
  if (!gone) co_return std::unexpected(gone.error());
  if (ready.error().code() == Code::kCanceled) co_return std::unexpected(std::move(ready).error());
  const std::string tail = vm->log_tail();
  co_return std::unexpected(
      std::move(ready).error().in(tail.empty() ? "starting the VM" : "QEMU said: " + tail));
}

Task<std::shared_ptr<Vm>> QemuDriver::adopt(VmSpec spec, ProcessIdentity process) {
  const auto gone = [&process] {
    return fail(Code::kNotFound, fmt::format("the VM process {} is gone", process.pid));
  };
  auto pidfd = sys::open_pidfd(process.pid);
  if (!pidfd) co_return gone();
  // Compared after the pidfd is open: from here on the number cannot pass to another process unnoticed.
  const auto started = sys::process_start_time(process.pid);
  if (!started || *started != process.start_time) co_return gone();
  sys::Fd log(::open(fmt::format("/proc/{}/fd/2", process.pid).c_str(), O_RDONLY | O_CLOEXEC));
  auto vm = std::make_shared<QemuVm>(executor_, std::move(spec), process, std::move(*pidfd), std::nullopt,
                                     std::move(log));
  const auto connected = co_await vm->connect(kCommandLimit);
  if (!connected && !vm->alive()) co_return gone();
  if (!connected) co_return std::unexpected(connected.error());
  co_return vm;
}

Result<std::string> binary_version() {
  sys::SpawnSpec query;
  query.argv = {kBinary, "--version"};
  const auto text = sys::run_checked(std::move(query), kVersionLimit);
  if (!text) {
    return fail(
        Error(Code::kFailedPrecondition, std::string(kBinary) + " does not run: " + text.error().message())
            .with_reason("qemu_missing"));
  }
  constexpr std::string_view kBefore = "version ";
  const auto at = text->find(kBefore);
  if (at == std::string::npos) return fail(Code::kInternal, "cannot read QEMU's version");
  const auto start = at + kBefore.size();
  return text->substr(start, text->find_first_not_of("0123456789.", start) - start);
}

}  // namespace wrenn::vmm::qemu
