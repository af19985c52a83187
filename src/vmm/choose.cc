#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/bytes.h"
#include "base/log.h"
#include "sys/file.h"
#include "sys/process.h"
#include "vmm/firecracker/firecracker_driver.h"
#include "vmm/limits.h"
#include "vmm/qemu/command_line.h"
#include "vmm/qemu/qemu_driver.h"
#include "vmm/vmm.h"

namespace wrenn::vmm {
namespace {

constexpr const char* kProbeAnswer = "WRENN-PROBE-OK";

// Names a file's content well enough: replaced files get another time or size.
std::string file_stamp(const std::string& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return path + "@absent";
  return fmt::format("{}@{}.{}.{}", path, info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
}

std::string bzimage_of(const DriverChoice& choice) { return choice.kernels_dir + "/bzImage"; }
std::string initramfs_of(const DriverChoice& choice) { return choice.kernels_dir + "/initramfs.cpio.gz"; }

struct Candidate {
  std::string name;  // and version
  std::string kernel;
  std::vector<std::string> argv;  // boots the probe guest, its console on standard output
};

std::string probe_key(const DriverChoice& choice, const Candidate& candidate) {
  const auto boot_id = sys::read_file("/proc/sys/kernel/random/boot_id");
  return fmt::format("{} {} {} {}", boot_id ? std::string(trim(*boot_id)) : "unknown", candidate.name,
                     file_stamp(candidate.kernel), file_stamp(initramfs_of(choice)));
}

// Nothing less than a guest that ran counts: /dev/kvm may open, and create VMs, where no guest ever gets on.
bool kvm_runs_guests(async::Blocking blocking, const Candidate& candidate, std::chrono::seconds limit) {
  if (::access("/dev/kvm", R_OK | W_OK) != 0) return false;
  sys::SpawnSpec probe;
  probe.argv = candidate.argv;
  const auto output = sys::run(blocking, std::move(probe), limit);
  return output && output->stdout_text.find(kProbeAnswer) != std::string::npos;
}

bool kvm_works(async::Blocking blocking, const DriverChoice& choice, const Candidate& candidate) {
  // One answer a monitor, or each would forget the other's.
  const std::string monitor = candidate.name.substr(0, candidate.name.find('-'));
  const std::string cache = choice.cache_dir.empty() ? "" : choice.cache_dir + "/kvm-probe-" + monitor;
  const std::string key = probe_key(choice, candidate);
  if (!cache.empty()) {
    const auto known = sys::read_file(cache);
    if (known && *known == key + " yes\n") return true;
    if (known && *known == key + " no\n") return false;
  }
  const auto limit = choice.preference == "auto" ? kProbeLimit : kPatientProbeLimit;
  log::info("checking whether KVM runs guests here (up to {} s)", limit.count());
  const bool works = kvm_runs_guests(blocking, candidate, limit);
  log::info("KVM {}", works ? "runs guests" : "runs no guest here");
  if (!cache.empty()) {
    const auto kept = sys::write_file_atomic(blocking, cache, key + (works ? " yes\n" : " no\n"));
    if (!kept) log::warn("cannot remember the KVM check: {}", kept.error().message());
  }
  return works;
}

std::unexpected<Error> kvm_unusable() {
  return fail(Error(Code::kFailedPrecondition, "KVM runs no guest on this host").with_reason("kvm_unusable"));
}

Result<std::shared_ptr<Driver>> make_firecracker(async::Blocking blocking,
                                                 const asio::any_io_executor& executor,
                                                 asio::thread_pool* pool, const DriverChoice& choice) {
  auto driver = TRY(firecracker::FirecrackerDriver::make(blocking, executor, pool, choice.firecracker));
  const auto folder = TRY(sys::TempDir::make(blocking, "wrenn-probe"));
  const std::string kernel = choice.kernels_dir + "/vmlinux";
  const std::string config = folder.path() + "/config.json";
  TRY(sys::write_file(blocking, config, firecracker::probe_config(kernel, initramfs_of(choice))));
  const Candidate candidate{.name = "firecracker-" + driver->base_shape().version,
                            .kernel = kernel,
                            .argv = {choice.firecracker, "--no-api", "--config-file", config}};
  if (!kvm_works(blocking, choice, candidate)) return kvm_unusable();
  return driver;
}

Result<std::shared_ptr<Driver>> make_qemu(async::Blocking blocking, const asio::any_io_executor& executor,
                                          asio::thread_pool* pool, const DriverChoice& choice) {
  std::string version = TRY(qemu::binary_version(blocking));
  std::string accel = "tcg";
  if (choice.preference != "qemu-tcg") {
    const std::string kernel = bzimage_of(choice);
    const Candidate candidate{.name = "qemu-" + version,
                              .kernel = kernel,
                              .argv = qemu::probe_command_line("kvm", kernel, initramfs_of(choice))};
    const bool works = kvm_works(blocking, choice, candidate);
    if (works) accel = "kvm";
    if (!works && choice.preference == "qemu-kvm") return kvm_unusable();
  }
  const std::string lent = choice.cache_dir.empty() ? "/tmp" : choice.cache_dir;
  return TRY(qemu::QemuDriver::make(blocking, executor, pool, accel, std::move(version), lent));
}

Result<std::shared_ptr<Driver>> make_driver(async::Blocking blocking, const asio::any_io_executor& executor,
                                            asio::thread_pool* pool, const DriverChoice& choice) {
  if (choice.preference == "firecracker") return make_firecracker(blocking, executor, pool, choice);
  if (choice.preference == "auto" && !choice.firecracker.empty() && sys::exists(choice.firecracker)) {
    auto driver = make_firecracker(blocking, executor, pool, choice);
    if (driver) return driver;
    log::warn("Firecracker is installed but not used: {}", driver.error().message());
  }
  return make_qemu(blocking, executor, pool, choice);
}

}  // namespace

std::string default_kernel_args() {
  // One tenant a guest: the VM is the boundary, so the kernel's own fences inside it only cost time. A panic
  // or reboot must end the VM at once.
  return "quiet loglevel=0 panic=-1 reboot=t mitigations=off init_on_alloc=0 audit=0 nowatchdog "
         "random.trust_cpu=on rcupdate.rcu_expedited=1 cryptomgr.notests net.ifnames=0";
}

Task<std::shared_ptr<Driver>> choose_driver(asio::any_io_executor executor, asio::thread_pool* pool,
                                            DriverChoice choice) {
  constexpr std::string_view kKnown[] = {"auto", "firecracker", "qemu-kvm", "qemu-tcg"};
  if (std::ranges::find(kKnown, choice.preference) == std::end(kKnown)) {
    co_return fail(
        Error(Code::kInvalidArgument,
              "the driver must be auto, firecracker, qemu-kvm or qemu-tcg, not " + choice.preference)
            .with_field("AGENT_DRIVER"));
  }
  co_return co_await async::offload(*pool, [executor, pool, choice](async::Blocking blocking) {
    return make_driver(blocking, executor, pool, choice);
  });
}

}  // namespace wrenn::vmm
