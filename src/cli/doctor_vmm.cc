#include "cli/doctor_vmm.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstdlib>

#include "base/bytes.h"
#include "cli/doctor_checks.h"
#include "cli/doctor_host.h"
#include "cli/up.h"
#include "sys/file.h"
#include "sys/process.h"

namespace wrenn::cli {
namespace {

using model::Version;
using model::version_after;

constexpr Milliseconds kProbeLimit{60'000};
constexpr Version kOldestQemu{7, 2, 0};
constexpr std::uint32_t kOthersWrite = 022;
constexpr std::uint32_t kSticky = 01000;

constexpr Check kKvm{"KVM", "without it guests are emulated, which is several times slower"};
constexpr Check kQemu{"QEMU", "it runs VMs with KVM and without"};
constexpr Check kFirecracker{"Firecracker", "it runs VMs with less code in reach of a guest than QEMU"};
constexpr Check kJailer{"jailer", "it shuts Firecracker in, should a guest break out of its VM"};

// Older ones follow symbolic links out of the jail (CVE-2026-1386).
constexpr Version kRepairedJailer{1, 14, 1};
constexpr const char* kInstall =
    "install firecracker and jailer, both 1.14.4, or both 1.15.1 or newer: "
    "https://github.com/firecracker-microvm/firecracker/releases";

std::string first_line(std::string_view text) { return std::string(text.substr(0, text.find('\n'))); }

bool is_program(const std::string& path) {
  return !sys::is_directory(path) && ::access(path.c_str(), X_OK) == 0;
}

// The agent's own choice, or empty.
std::string find_firecracker(const Places& places) {
  if (!places.firecracker.empty()) return is_program(places.firecracker) ? places.firecracker : "";
  std::string_view rest = places.search_path;
  std::string candidate = places.dir + "/bin/firecracker";
  while (true) {
    if (is_program(candidate)) return candidate;
    if (rest.empty()) return {};
    const std::size_t end = rest.find(':');
    candidate = std::string(rest.substr(0, end)) + "/firecracker";
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  }
}

// Every folder from the root to `path`, as far as they are there, by their real names.
std::vector<FolderOwner> way_to(const std::string& path) {
  std::array<char, PATH_MAX> buffer{};
  const std::string there = nearest_folder(path);
  const std::string real = ::realpath(there.c_str(), buffer.data()) != nullptr ? buffer.data() : there;
  std::vector<FolderOwner> way;
  std::size_t end = 0;
  while (end != std::string::npos && end < real.size()) {
    const std::string folder = end == 0 ? "/" : real.substr(0, end);
    struct stat info{};
    if (::stat(folder.c_str(), &info) == 0) way.push_back({folder, info.st_uid, info.st_mode});
    end = real.find('/', end + 1);
  }
  struct stat info{};
  if (::stat(real.c_str(), &info) == 0) way.push_back({real, info.st_uid, info.st_mode});
  return way;
}

struct KvmProof {
  Finding finding;
  std::string driver;  // that the agent chooses; empty if it was not asked
};

KvmProof prove_kvm(const Places& places) {
  if (!sys::exists("/dev/kvm")) {
    return {kKvm.warn("no /dev/kvm", kvm_device_fix(sys::read_file("/proc/cpuinfo").value_or(""))), ""};
  }
  if (!missing_guest_files(places.dir).empty()) {
    return {kKvm.warn("not tried: no guest to boot yet", "scripts/build-guest.sh"), ""};
  }
  if (::geteuid() != 0) return {kKvm.warn("not tried: needs root", "sudo wrenn doctor"), ""};
  const std::string agent = places.programs + "/wrenn-agent";
  if (!sys::exists(agent)) return {kKvm.warn("not tried: no " + agent, "make build"), ""};
  sys::SpawnSpec spec;
  spec.argv = {"env", "WRENN_DIR=" + places.dir, "AGENT_DRIVER=auto", agent, "probe"};
  const auto printed = sys::run_checked(async::Blocking::without_loop(), spec, kProbeLimit);
  if (!printed) {
    return {kKvm.warn("not known: " + printed.error().message(), "correct what the agent says"), ""};
  }
  const auto probed = parse_probe(*printed);
  return {judge_kvm(*printed, places.dir), probed ? probed->driver : ""};
}

Finding check_qemu() {
  const auto printed = output_of({"qemu-system-x86_64", "--version"});
  if (printed) return judge_qemu(*printed);
  return kQemu.bad(printed.error().message(), "apt-get install qemu-system-x86");
}

// What the program prints about its version, or why it does not.
std::string version_of(const std::string& program) {
  const auto printed = output_of({program, "--version"});
  return printed ? *printed : printed.error().message();
}

}  // namespace

std::string open_to_others(const std::vector<FolderOwner>& way) {
  for (std::size_t i = 0; i < way.size(); ++i) {
    const FolderOwner& folder = way[i];
    const bool sticky = (folder.mode & kSticky) != 0 && i + 1 < way.size();
    if (folder.uid != 0 || ((folder.mode & kOthersWrite) != 0 && !sticky)) return folder.path;
  }
  return {};
}

std::string kvm_device_fix(std::string_view cpuinfo) {
  if (has_virtualisation(cpuinfo)) {
    return "modprobe kvm_intel || modprobe kvm_amd; in a container: --device /dev/kvm";
  }
  if (is_virtual(cpuinfo)) return "switch nested virtualisation on at the host of this VM, or use bare metal";
  return "switch VT-x or AMD-V on in the firmware (BIOS)";
}

Finding judge_kvm(std::string_view printed, const std::string& dir) {
  const auto probed = parse_probe(printed);
  if (!probed) return kKvm.warn("not known: the agent said " + first_line(printed), "make build");
  if (probed->accel == "kvm") return kKvm.ok("a guest booted on it by " + probed->driver);
  return kKvm.warn("/dev/kvm is there but a guest does not run on it",
                   "use bare metal, or a host whose nested virtualisation works; to try again without a "
                   "reboot: rm " +
                       dir + "/cache/kvm-probe-*");
}

Finding judge_qemu(std::string_view printed) {
  const auto version = version_after(printed, "version ");
  if (!version) return kQemu.bad("no version in: " + first_line(printed), "apt-get install qemu-system-x86");
  if (*version < kOldestQemu) {
    return kQemu.bad("version " + version->text() + " is too old",
                     "install QEMU 7.2 or newer (Debian 12 has it)");
  }
  return kQemu.ok("version " + version->text());
}

Finding judge_firecracker(const std::string& path, std::string_view printed, bool kvm_works,
                          std::string_view chosen) {
  if (path.empty()) {
    if (!kvm_works) return kFirecracker.ok("not installed; it would need KVM");
    return kFirecracker.warn("not installed: QEMU is used", kInstall);
  }
  const auto version = model::firecracker_version(printed);
  if (!version) return kFirecracker.bad(path + " tells no version: " + first_line(printed), kInstall);
  const std::string shown = "version " + version->text() + " (" + path + ")";
  const std::string_view refused = model::why_refused(*version);
  if (!refused.empty()) return kFirecracker.bad(shown + " " + std::string(refused), kInstall);
  if (kvm_works && chosen != "firecracker") {
    return kFirecracker.warn(shown + " is not used: the agent chose " + std::string(chosen),
                             "AGENT_FIRECRACKER_BIN=" + path + "; `wrenn-agent probe` says what is wrong");
  }
  return kFirecracker.ok(shown);
}

Finding judge_jailer(const std::string& path, std::string_view printed,
                     const std::optional<Version>& firecracker, const std::string& open) {
  if (path.empty()) return kJailer.warn("none beside Firecracker, which is then not used", kInstall);
  const auto version = version_after(printed, "Jailer v");
  if (!version) return kJailer.bad(path + " tells no version: " + first_line(printed), kInstall);
  const std::string shown = "version " + version->text() + " (" + path + ")";
  if (*version < kRepairedJailer && !open.empty()) {
    return kJailer.bad(
        shown + " is safe only where root alone writes (CVE-2026-1386), and others can write to " + open,
        "chown root " + open + "; chmod go-w " + open + "; or " + kInstall);
  }
  if (firecracker && *firecracker != *version) {
    return kJailer.warn(shown + " is not of Firecracker's version, which is then not used", kInstall);
  }
  if (*version >= kRepairedJailer) return kJailer.ok(shown);
  return kJailer.ok(shown + "; safe, for only root writes where jails are made");
}

std::vector<Finding> check_monitors(const Places& places) {
  const KvmProof kvm = prove_kvm(places);
  const bool kvm_works = kvm.finding.verdict == Verdict::kOk;
  std::vector<Finding> findings{kvm.finding, check_qemu()};
  // Where Firecracker is proved, VMs run without QEMU.
  Finding& qemu = findings.back();
  if (kvm.driver == "firecracker" && qemu.verdict == Verdict::kFail) qemu.verdict = Verdict::kWarn;
  const std::string firecracker = find_firecracker(places);
  if (firecracker.empty()) {
    findings.push_back(places.firecracker.empty()
                           ? judge_firecracker("", "", kvm_works, kvm.driver)
                           : kFirecracker.warn("AGENT_FIRECRACKER_BIN is no program: " + places.firecracker,
                                               "correct it, or unset it"));
    return findings;
  }
  const std::string printed = version_of(firecracker);
  findings.push_back(judge_firecracker(firecracker, printed, kvm_works, kvm.driver));
  const std::string jailer = firecracker.substr(0, firecracker.rfind('/') + 1) + "jailer";
  const bool found = is_program(jailer);
  findings.push_back(judge_jailer(found ? jailer : "", found ? version_of(jailer) : "",
                                  model::firecracker_version(printed),
                                  open_to_others(way_to(places.sandboxes))));
  return findings;
}

}  // namespace wrenn::cli
