#include "cli/doctor_host.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include "base/bytes.h"
#include "cli/doctor_checks.h"
#include "cli/doctor_parse.h"
#include "model/version.h"
#include "sys/file.h"

namespace wrenn::cli {
namespace {

constexpr model::Version kPagemapScan{6, 7, 0};
constexpr std::uint64_t kWantedMemoryMib = 2048;
constexpr std::uint64_t kNeededMemoryMib = 512;

constexpr Check kMachine{"bare metal", "VMs in a VM are slower, and SMT, swap and microcode are its host's"};
constexpr Check kSmt{"SMT", "two tenants on one core can learn of each other's secrets"};
constexpr Check kKsm{"KSM", "merged memory tells a tenant what others have in theirs"};
constexpr Check kSwap{"swap", "a guest's memory, with its secrets, would stay on a disk"};
constexpr Check kMitigations{"mitigations", "a guest may read memory of others through the processor"};
constexpr Check kMicrocode{"microcode", "some holes of the processor are closed by its microcode only"};
constexpr Check kCgroups{"cgroups", "they limit what a VM takes of processor, memory and processes"};
constexpr Check kForwarding{"ip_forward", "sandboxes reach the internet through this machine"};
constexpr Check kKernel{"kernel", "a pause finds the pages that the guest wrote faster with Linux 6.7"};
constexpr Check kUserfaultfd{"userfaultfd", "a monitor can load a guest's memory on demand; not required"};
constexpr Check kOverlayfs{"overlayfs", "container tools that build images use it; sandboxes do not"};
constexpr Check kMemory{"memory", "a default sandbox has 512 MiB"};
constexpr Check kTun{"/dev/net/tun", "a VM's network device"};
constexpr Check kNftables{"nftables", "it keeps guests from the host, its networks and each other"};
constexpr Check kNetns{"netns", "each sandbox has a network namespace"};

constexpr const char* kMountSysfs = "mount -t sysfs sysfs /sys";
constexpr const char* kMountProc = "mount -t proc proc /proc";

Text read(const std::string& path) {
  auto text = sys::read_file(path);
  if (!text) return std::nullopt;
  return std::move(*text);
}

std::string trimmed(const Text& text) { return text ? std::string(trim(*text)) : std::string(); }

bool lacks_microcode(const Vulnerability& one) {
  if (one.state.find("Vulnerable") == std::string::npos) return false;
  return one.name == "old_microcode" || one.state.find("no microcode") != std::string::npos;
}

std::vector<Vulnerability> read_vulnerabilities() {
  const std::string dir = "/sys/devices/system/cpu/vulnerabilities";
  std::vector<Vulnerability> all;
  for (const auto& name :
       sys::list_dir(async::Blocking::without_loop(), dir).value_or(std::vector<std::string>())) {
    all.push_back({name, trimmed(read(dir + "/" + name))});
  }
  return all;
}

// Swap in memory (zram without a disk behind it) or encrypted by device mapper.
bool is_safe_swap(const std::string& name) {
  const std::string device = name.substr(name.rfind('/') + 1);
  if (device.starts_with("zram")) {
    const Text backing = read("/sys/block/" + device + "/backing_dev");
    return !backing || trimmed(backing) == "none";
  }
  return read("/sys/block/" + device + "/dm/uuid").value_or("").starts_with("CRYPT-");
}

Text read_nested() {
  const Text intel = read("/sys/module/kvm_intel/parameters/nested");
  return intel ? intel : read("/sys/module/kvm_amd/parameters/nested");
}

Finding check_tun() {
  const auto device = sys::open_file("/dev/net/tun", O_RDWR);
  if (device) return kTun.ok("opens");
  if (::geteuid() != 0) return kTun.warn("not tried: needs root", "sudo wrenn doctor");
  return kTun.bad(device.error().message(),
                  "modprobe tun; in a container: --device /dev/net/tun --cap-add NET_ADMIN");
}

Finding check_nft() {
  if (::geteuid() != 0) return kNftables.warn("not tried: needs root", "sudo wrenn doctor");
  const auto listed = output_of({"nft", "list", "tables"});
  if (!listed) return kNftables.bad(listed.error().message(), "apt-get install nftables; modprobe nf_tables");
  // In a network of its own, which ends with the command.
  const auto counted = output_of(
      {"unshare", "--net", "nft", "add table inet doctor { chain count { ct count over 1 drop; }; }"});
  if (counted) return kNftables.ok("usable, and counts connections");
  return kNftables.bad(counted.error().message(),
                       "modprobe nft_connlimit; the kernel needs CONFIG_NFT_CONNLIMIT");
}

Finding check_netns() {
  if (::geteuid() != 0) return kNetns.warn("not tried: needs root", "sudo wrenn doctor");
  const auto made = output_of({"unshare", "--net", "ip", "link"});
  if (made) return kNetns.ok("one was made");
  return kNetns.bad(made.error().message(),
                    "apt-get install iproute2 util-linux; sysctl -w user.max_net_namespaces=65536; in a "
                    "container: --privileged");
}

Finding check_cgroups() {
  const std::string mounts = read("/proc/self/mounts").value_or("");
  const std::string unified = cgroup2_mount(mounts);
  const Text controllers = unified.empty() ? std::nullopt : read(unified + "/cgroup.controllers");
  return judge_cgroups(mounts, controllers.value_or(""));
}

Finding check_overlayfs(const Text& release) {
  const std::string dir = "/lib/modules/" + trimmed(release) + "/";
  return judge_overlayfs(read("/proc/filesystems"),
                         read(dir + "modules.dep").value_or("") + read(dir + "modules.builtin").value_or(""));
}

}  // namespace

bool is_virtual(std::string_view cpuinfo) {
  return has_word(cpuinfo_field(cpuinfo, "flags").value_or(""), "hypervisor");
}

bool has_virtualisation(std::string_view cpuinfo) {
  const std::string flags = cpuinfo_field(cpuinfo, "flags").value_or("");
  return has_word(flags, "vmx") || has_word(flags, "svm");
}

Finding judge_machine(const Text& cpuinfo, const Text& nested) {
  if (!cpuinfo || !cpuinfo_field(*cpuinfo, "flags")) {
    return kMachine.warn("not known: /proc/cpuinfo has no flags", kMountProc);
  }
  if (!is_virtual(*cpuinfo)) {
    const std::string value = trimmed(nested);
    if (value == "Y" || value == "1") return kMachine.ok("yes; its KVM offers nested VMs");
    return kMachine.ok("yes");
  }
  if (!has_virtualisation(*cpuinfo)) {
    return kMachine.warn("no: this machine is itself a VM, and its processor shows neither vmx nor svm",
                         "use bare metal for many tenants, or let its host offer nested virtualisation");
  }
  return kMachine.warn("no: this machine is itself a VM, so KVM is nested",
                       "use bare metal where speed counts or tenants are strangers");
}

Finding judge_smt(const Text& active) {
  const std::string value = trimmed(active);
  if (value == "0") return kSmt.ok("off");
  if (value == "1") {
    return kSmt.warn("on",
                     "echo off > /sys/devices/system/cpu/smt/control; for good: `nosmt` on the kernel's "
                     "command line");
  }
  return kSmt.warn("not known: no /sys/devices/system/cpu/smt/active", kMountSysfs);
}

Finding judge_ksm(const Text& run) {
  if (!run) return kKsm.ok("not in this kernel");
  const std::string value = trimmed(run);
  if (value == "0") return kKsm.ok("off");
  if (value == "2") return kKsm.ok("off, merged pages are taken apart");
  return kKsm.warn("on", "echo 2 > /sys/kernel/mm/ksm/run; systemctl disable --now ksm ksmtuned");
}

Finding judge_swap(const Text& swaps, const std::function<bool(const std::string&)>& safe) {
  const auto names = swap_names(swaps.value_or(""));
  if (!names) return kSwap.warn("not known: no /proc/swaps", kMountProc);
  if (names->empty()) return kSwap.ok("none");
  std::vector<std::string> open;
  for (const auto& name : *names) {
    if (!safe(name)) open.push_back(name);
  }
  if (open.empty()) return kSwap.ok(fmt::format("encrypted or in memory: {}", fmt::join(*names, ", ")));
  return kSwap.warn(fmt::format("on, not encrypted: {}", fmt::join(open, ", ")),
                    "swapoff -a, and take it out of /etc/fstab; or encrypt it");
}

Finding judge_mitigations(const std::vector<Vulnerability>& all, std::string_view command_line, bool in_vm) {
  if (all.empty()) return kMitigations.warn("not known: the kernel does not tell", kMountSysfs);
  std::vector<std::string> open;
  for (const auto& one : all) {
    if (one.state.find("Vulnerable") == std::string::npos || lacks_microcode(one)) continue;
    open.push_back(one.name);
  }
  if (open.empty()) return kMitigations.ok("nothing that the kernel could close is open");
  std::string fix = "update the kernel and reboot; details: grep . /sys/devices/system/cpu/vulnerabilities/*";
  if (in_vm) fix = "let this VM's host pass on all features of its processor; else " + fix;
  if (has_word(command_line, "mitigations=off")) {
    fix = "take mitigations=off from the kernel's command line and reboot";
  }
  return kMitigations.warn(fmt::format("vulnerable: {}", fmt::join(open, ", ")), std::move(fix));
}

Finding judge_microcode(const std::vector<Vulnerability>& all, std::string_view cpuinfo) {
  const std::string revision = cpuinfo_field(cpuinfo, "microcode").value_or("not shown");
  std::vector<std::string> open;
  for (const auto& one : all) {
    if (lacks_microcode(one)) open.push_back(one.name);
  }
  if (open.empty()) return kMicrocode.ok("revision " + revision);
  const bool amd = cpuinfo_field(cpuinfo, "vendor_id").value_or("") == "AuthenticAMD";
  const std::string package = amd ? "amd64-microcode" : "intel-microcode";
  return kMicrocode.warn(fmt::format("revision {} is too old for: {}", revision, fmt::join(open, ", ")),
                         is_virtual(cpuinfo)
                             ? "on the machine that runs this VM: apt-get install " + package + ", and reboot"
                             : "apt-get install " + package + ", and reboot");
}

Finding judge_cgroups(std::string_view mounts, std::string_view controllers) {
  switch (cgroup_version(mounts, controllers)) {
    case 2:
      return kCgroups.ok("v2 with cpu, memory and pids");
    case 1:
      return kCgroups.warn("v1 with cpu, memory and pids; it works, v2 limits better and starts VMs faster",
                           "systemd.unified_cgroup_hierarchy=1 on the kernel's command line, and reboot");
    default:
      return kCgroups.bad("cpu, memory and pids are not all there",
                          "boot with systemd, or mount -t cgroup2 none /sys/fs/cgroup");
  }
}

Finding judge_forwarding(const Text& value) {
  if (trimmed(value) == "1") return kForwarding.ok("on");
  return kForwarding.warn("off; the agent turns it on",
                          "sysctl -w net.ipv4.ip_forward=1 if the agent may not");
}

Finding judge_kernel(const Text& release) {
  const std::string shown = trimmed(release);
  const auto version = model::parse_version(shown);
  if (!version) return kKernel.warn("version not known", kMountProc);
  if (*version < kPagemapScan) {
    return kKernel.warn(fmt::format("Linux {}: pauses read /proc/PID/pagemap instead", shown),
                        "install Linux 6.7 or newer (Debian 12: bookworm-backports)");
  }
  return kKernel.ok(fmt::format("Linux {}", shown));
}

Finding judge_userfaultfd(bool device, const Text& unprivileged) {
  if (device) return kUserfaultfd.ok("/dev/userfaultfd");
  if (!unprivileged) {
    return kUserfaultfd.warn("not in this kernel", "use a kernel with CONFIG_USERFAULTFD, as Debian's is");
  }
  if (trimmed(unprivileged) == "1")
    return kUserfaultfd.ok("open to every user (vm.unprivileged_userfaultfd)");
  return kUserfaultfd.warn("for root only, and a jailed monitor is not root",
                           "use Linux 6.1 or newer for /dev/userfaultfd");
}

Finding judge_overlayfs(const Text& filesystems, std::string_view modules) {
  if (has_filesystem(filesystems.value_or(""), modules, "overlay")) return kOverlayfs.ok("in this kernel");
  return kOverlayfs.warn("not in this kernel", "modprobe overlay; apt-get install linux-image-amd64");
}

Finding judge_memory(const Text& meminfo) {
  const auto mib = meminfo_mib(meminfo.value_or(""), "MemAvailable");
  if (!mib) return kMemory.warn("not known", kMountProc);
  const std::string detail = size_text(*mib * 1024 * 1024) + " available";
  if (*mib < kNeededMemoryMib) return kMemory.bad(detail, "stop other programs, or use a larger machine");
  if (*mib < kWantedMemoryMib) return kMemory.warn(detail, "2 GiB or more let several sandboxes run");
  return kMemory.ok(detail);
}

std::vector<Finding> check_processor() {
  const Text cpuinfo = read("/proc/cpuinfo");
  const bool in_vm = is_virtual(cpuinfo.value_or(""));
  const auto vulnerabilities = read_vulnerabilities();
  return {judge_machine(cpuinfo, read_nested()),
          judge_smt(read("/sys/devices/system/cpu/smt/active")),
          judge_mitigations(vulnerabilities, read("/proc/cmdline").value_or(""), in_vm),
          judge_microcode(vulnerabilities, cpuinfo.value_or("")),
          judge_ksm(read("/sys/kernel/mm/ksm/run")),
          judge_swap(read("/proc/swaps"), is_safe_swap),
          judge_memory(read("/proc/meminfo"))};
}

std::vector<Finding> check_kernel() {
  const Text release = read("/proc/sys/kernel/osrelease");
  return {judge_kernel(release),
          check_cgroups(),
          judge_userfaultfd(sys::exists("/dev/userfaultfd"), read("/proc/sys/vm/unprivileged_userfaultfd")),
          check_overlayfs(release),
          check_netns(),
          check_tun(),
          check_nft(),
          judge_forwarding(read("/proc/sys/net/ipv4/ip_forward"))};
}

}  // namespace wrenn::cli
