#include "cli/doctor_checks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <boost/json/parse.hpp>
#include <charconv>

#include "base/bytes.h"
#include "cli/doctor.h"
#include "cli/up.h"
#include "sys/file.h"
#include "sys/process.h"

namespace wrenn::cli {
namespace {

constexpr Milliseconds kToolLimit{10'000};
constexpr Milliseconds kProbeLimit{60'000};
constexpr Version kOldestQemu{7, 2};
constexpr std::uint64_t kWantedDiskMib = 5 * 1024;
constexpr std::uint64_t kNeededDiskMib = 1024;
constexpr std::uint64_t kWantedMemoryMib = 2048;
constexpr std::uint64_t kNeededMemoryMib = 512;

Finding ok(const char* name, std::string detail) { return {name, Verdict::kOk, std::move(detail), ""}; }
Finding warn(const char* name, std::string detail, std::string fix) {
  return {name, Verdict::kWarn, std::move(detail), std::move(fix)};
}
Finding bad(const char* name, std::string detail, std::string fix) {
  return {name, Verdict::kFail, std::move(detail), std::move(fix)};
}

Result<std::string> output_of(std::vector<std::string> argv, Milliseconds limit) {
  sys::SpawnSpec spec;
  spec.argv = std::move(argv);
  return sys::run_checked(spec, limit);
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

Finding check_root() {
  if (::geteuid() == 0) return ok("root", "yes");
  return bad("root", "the host agent makes VMs, networks and cgroups", "run as root: sudo wrenn up");
}

// Only the agent can tell whether KVM runs a guest: it boots one. Opening the device proves nothing.
Finding check_kvm(const std::string& programs, const std::string& dir) {
  const char* const fix =
      "use a machine with hardware virtualisation (bare metal, or nested virtualisation enabled)";
  if (!sys::exists("/dev/kvm")) {
    return warn("KVM", "no /dev/kvm: guests are emulated, which is slower", fix);
  }
  if (!missing_guest_files(dir).empty())
    return warn("KVM", "not tried: no guest to boot yet", "scripts/build-guest.sh");
  if (::geteuid() != 0) return warn("KVM", "not tried: needs root", "sudo wrenn doctor");
  sys::SpawnSpec spec;
  spec.argv = {"env", "WRENN_DIR=" + dir, programs + "/wrenn-agent", "probe"};
  const auto probed = sys::run_checked(spec, kProbeLimit);
  if (!probed) return warn("KVM", "not known: " + probed.error().message(), "make build");
  boost::system::error_code ec;
  const json::value value = json::parse(trim(*probed), ec);
  const json::value* accel = !ec && value.is_object() ? value.get_object().if_contains("accel") : nullptr;
  if (accel == nullptr || !accel->is_string())
    return warn("KVM", "not known: " + first_line(*probed), "make build");
  if (accel->get_string() == "kvm") return ok("KVM", "a guest booted on it");
  return warn("KVM", "/dev/kvm is there but a guest does not run on it: guests are emulated, which is slower",
              fix);
}

Finding check_qemu() {
  const auto text = output_of({"qemu-system-x86_64", "--version"}, kToolLimit);
  if (!text) return bad("QEMU", text.error().message(), "apt-get install qemu-system-x86");
  const Version version = parse_qemu_version(*text);
  const std::string shown = fmt::format("{}.{}", version.major, version.minor);
  if (version < kOldestQemu) {
    return bad("QEMU", "version " + shown + " is too old", "install QEMU 7.2 or newer (Debian 12 has it)");
  }
  return ok("QEMU", "version " + shown);
}

Finding check_tun() {
  const auto device = sys::open_file("/dev/net/tun", O_RDWR);
  if (device) return ok("/dev/net/tun", "opens");
  return bad("/dev/net/tun", device.error().message(),
             "modprobe tun; in a container: --device /dev/net/tun --cap-add NET_ADMIN");
}

Finding check_nft() {
  const auto listed = output_of({"nft", "list", "tables"}, kToolLimit);
  if (listed) return ok("nftables", "usable");
  const char* fix = ::geteuid() == 0 ? "apt-get install nftables; modprobe nf_tables" : "sudo wrenn doctor";
  return ::geteuid() == 0 ? bad("nftables", listed.error().message(), fix)
                          : warn("nftables", "not tried: needs root", fix);
}

Finding check_forwarding() {
  const auto value = sys::read_file("/proc/sys/net/ipv4/ip_forward");
  if (value && trim(*value) == "1") return ok("ip_forward", "on");
  return warn("ip_forward", "off; the agent turns it on",
              "sysctl -w net.ipv4.ip_forward=1 if the agent may not");
}

Finding check_cgroups() {
  const auto mounts = sys::read_file("/proc/self/mounts");
  const auto controllers = sys::read_file("/sys/fs/cgroup/cgroup.controllers");
  if (mounts && has_cgroups(*mounts, controllers.value_or(""))) return ok("cgroups", "cpu, memory and pids");
  return bad("cgroups", "cpu, memory and pids controllers are not all mounted",
             "boot with systemd, or mount -t cgroup2 none /sys/fs/cgroup");
}

Finding check_disk(const std::string& dir) {
  std::string place = dir;
  while (place.size() > 1 && !sys::exists(place))
    place = place.substr(0, std::max<std::size_t>(place.rfind('/'), 1));
  struct statvfs status{};
  if (::statvfs(place.c_str(), &status) != 0) return bad("disk", "cannot look at " + place, "check the path");
  const std::uint64_t free_mib = status.f_bavail * status.f_frsize / (1024 * 1024);
  const std::string detail = size_text(free_mib * 1024 * 1024) + " free below " + place;
  if (free_mib < kNeededDiskMib) return bad("disk", detail, "free at least 1 GiB, or set WRENN_DIR");
  if (free_mib < kWantedDiskMib) return warn("disk", detail, "5 GiB or more leave room for snapshots");
  return ok("disk", detail);
}

Finding check_memory() {
  const auto text = sys::read_file("/proc/meminfo");
  const auto mib = text ? meminfo_mib(*text, "MemAvailable") : std::nullopt;
  if (!mib) return warn("memory", "not known", "mount /proc");
  const std::string detail = size_text(*mib * 1024 * 1024) + " available";
  if (*mib < kNeededMemoryMib) return bad("memory", detail, "a default sandbox has 512 MiB");
  if (*mib < kWantedMemoryMib) return warn("memory", detail, "2 GiB or more let several sandboxes run");
  return ok("memory", detail);
}

Finding check_guest(const std::string& dir) {
  const auto missing = missing_guest_files(dir);
  if (missing.empty()) return ok("guest image", "kernel and template minimal below " + dir);
  return bad("guest image", missing.front() + " is missing", "scripts/build-guest.sh");
}

}  // namespace

std::string own_folder() {
  std::array<char, 4096> buffer{};
  const ssize_t size = ::readlink("/proc/self/exe", buffer.data(), buffer.size());
  if (size <= 0) return {};
  const std::string self(buffer.data(), static_cast<std::size_t>(size));
  return self.substr(0, self.rfind('/'));
}

Version parse_qemu_version(std::string_view text) {
  constexpr std::string_view kMark = "version ";
  const std::size_t at = text.find(kMark);
  if (at == std::string_view::npos) return {};
  Version version;
  const char* const end = text.data() + text.size();
  const auto major = std::from_chars(text.data() + at + kMark.size(), end, version.major);
  if (major.ec != std::errc() || major.ptr == end || *major.ptr != '.') return {};
  std::from_chars(major.ptr + 1, end, version.minor);
  return version;
}

std::optional<std::uint64_t> meminfo_mib(std::string_view meminfo, std::string_view name) {
  const std::string wanted = std::string(name) + ":";
  std::size_t at = meminfo.find(wanted);
  if (at == std::string_view::npos || (at > 0 && meminfo[at - 1] != '\n')) return std::nullopt;
  at = meminfo.find_first_not_of(' ', at + wanted.size());
  std::uint64_t kib = 0;
  if (at == std::string_view::npos) return std::nullopt;
  const auto parsed = std::from_chars(meminfo.data() + at, meminfo.data() + meminfo.size(), kib);
  if (parsed.ec != std::errc()) return std::nullopt;
  return kib / 1024;
}

bool has_cgroups(std::string_view mounts, std::string_view v2_controllers) {
  const auto in_v2 = [&](std::string_view name) {
    return (" " + std::string(trim(v2_controllers)) + " ").find(" " + std::string(name) + " ") !=
           std::string::npos;
  };
  if (in_v2("cpu") && in_v2("memory") && in_v2("pids")) return true;
  bool cpu = false;
  bool memory = false;
  bool pids = false;
  while (!mounts.empty()) {
    const std::size_t end = mounts.find('\n');
    const std::string_view line = mounts.substr(0, end);
    mounts = end == std::string_view::npos ? std::string_view() : mounts.substr(end + 1);
    if (line.find(" cgroup ") == std::string_view::npos) continue;
    const std::string options = "," + std::string(line.substr(line.find(" cgroup ") + 8)) + ",";
    const auto has = [&](const char* name) { return options.find(name) != std::string::npos; };
    cpu = cpu || has(",cpu,") || has(",cpu ");
    memory = memory || has(",memory,") || has(",memory ");
    pids = pids || has(",pids,") || has(",pids ");
  }
  return cpu && memory && pids;
}

std::vector<Finding> check_host(const std::string& dir, const std::string& programs) {
  return {check_root(),       check_kvm(programs, dir), check_qemu(),    check_tun(),    check_nft(),
          check_forwarding(), check_cgroups(),          check_disk(dir), check_memory(), check_guest(dir)};
}

}  // namespace wrenn::cli
