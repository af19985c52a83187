#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "sys/file.h"
#include "sys/process.h"
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

std::string probe_key(const DriverChoice& choice, const std::string& version) {
  const auto boot_id = sys::read_file("/proc/sys/kernel/random/boot_id");
  return fmt::format("{} qemu-{} {} {}", boot_id ? std::string(trim(*boot_id)) : "unknown", version,
                     file_stamp(choice.kernel), file_stamp(choice.initramfs));
}

// Nothing less than a guest that ran counts: /dev/kvm may open, and create VMs, where no guest ever gets on.
bool kvm_runs_guests(const DriverChoice& choice) {
  if (::access("/dev/kvm", R_OK | W_OK) != 0) return false;
  sys::SpawnSpec probe;
  probe.argv = qemu::probe_command_line("kvm", choice.kernel, choice.initramfs);
  const auto output = sys::run(std::move(probe), kProbeLimit);
  return output && output->stdout_text.find(kProbeAnswer) != std::string::npos;
}

bool kvm_works(const DriverChoice& choice, const std::string& version) {
  const std::string cache = choice.cache_dir.empty() ? "" : choice.cache_dir + "/kvm-probe";
  const std::string key = probe_key(choice, version);
  if (!cache.empty()) {
    const auto known = sys::read_file(cache);
    if (known && *known == key + " yes\n") return true;
    if (known && *known == key + " no\n") return false;
  }
  log::info("checking whether KVM runs guests here (up to {} s)", kProbeLimit.count());
  const bool works = kvm_runs_guests(choice);
  log::info("KVM {}", works ? "runs guests" : "runs no guest here, guests are emulated");
  if (!cache.empty()) {
    const auto kept = sys::write_file_atomic(cache, key + (works ? " yes\n" : " no\n"));
    if (!kept) log::warn("cannot remember the KVM check: {}", kept.error().message());
  }
  return works;
}

struct Machine {
  std::string accel;
  std::string version;
};

Result<Machine> examine(const DriverChoice& choice) {
  Machine machine{.accel = "tcg", .version = TRY(qemu::binary_version())};
  if (choice.preference == "qemu-tcg") return machine;
  const bool works = kvm_works(choice, machine.version);
  if (works) machine.accel = "kvm";
  if (!works && choice.preference == "qemu-kvm") {
    return fail(
        Error(Code::kFailedPrecondition, "KVM runs no guest on this host").with_reason("kvm_unusable"));
  }
  return machine;
}

}  // namespace

std::string default_kernel_args() {
  // One tenant a guest: the VM is the boundary, so the kernel's own fences inside it only cost time. A panic
  // or reboot must end the VM at once.
  return "quiet loglevel=0 panic=-1 reboot=t mitigations=off init_on_alloc=0 audit=0 nowatchdog "
         "random.trust_cpu=on rcupdate.rcu_expedited=1 cryptomgr.notests net.ifnames=0";
}

Task<std::shared_ptr<Driver>> choose_driver(asio::any_io_executor executor, DriverChoice choice) {
  if (choice.preference != "auto" && choice.preference != "qemu-kvm" && choice.preference != "qemu-tcg") {
    co_return fail(Error(Code::kInvalidArgument,
                         "the driver must be auto, qemu-kvm or qemu-tcg, not " + choice.preference)
                       .with_field("AGENT_DRIVER"));
  }
  asio::thread_pool pool(1);
  const Machine machine = CO_TRY(co_await async::offload(pool, [choice] { return examine(choice); }));
  co_return std::make_shared<qemu::QemuDriver>(executor, machine.accel, machine.version);
}

}  // namespace wrenn::vmm
