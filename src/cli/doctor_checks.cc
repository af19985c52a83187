#include "cli/doctor_checks.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "cli/doctor.h"
#include "cli/doctor_data.h"
#include "cli/doctor_host.h"
#include "cli/doctor_vmm.h"
#include "sys/file.h"
#include "sys/process.h"

namespace wrenn::cli {
namespace {

constexpr Milliseconds kToolLimit{10'000};

constexpr Check kRoot{"root", "the host agent makes VMs, networks and cgroups"};

Finding check_root() {
  if (::geteuid() == 0) return kRoot.ok("yes");
  return kRoot.bad("no", "run as root: sudo wrenn up");
}

}  // namespace

std::string own_folder() {
  std::array<char, 4096> buffer{};
  const ssize_t size = ::readlink("/proc/self/exe", buffer.data(), buffer.size());
  if (size <= 0) return {};
  const std::string self(buffer.data(), static_cast<std::size_t>(size));
  return self.substr(0, self.rfind('/'));
}

Result<std::string> output_of(std::vector<std::string> argv) {
  sys::SpawnSpec spec;
  spec.argv = std::move(argv);
  return sys::run_checked(async::Blocking::without_loop(), spec, kToolLimit);
}

std::string nearest_folder(std::string path) {
  while (path.size() > 1 && !sys::exists(path)) {
    const std::size_t cut = path.rfind('/');
    if (cut == std::string::npos) return ".";
    path = path.substr(0, std::max<std::size_t>(cut, 1));
  }
  return path;
}

Places places_of(const std::string& dir, const std::string& programs, const Environment& environment) {
  const auto path = [&](const char* name, const char* below) {
    return environment(name).value_or(dir + below);
  };
  return {.dir = dir,
          .programs = programs,
          .firecracker = environment("AGENT_FIRECRACKER_BIN").value_or(""),
          .search_path = environment("PATH").value_or(""),
          .kernels = path("AGENT_KERNEL_PATH", "/kernels"),
          .images = path("AGENT_IMAGES_PATH", "/images"),
          .sandboxes = path("AGENT_SANDBOXES_PATH", "/sandboxes"),
          .snapshots = path("AGENT_SNAPSHOTS_PATH", "/snapshots")};
}

std::vector<Finding> check_host(const Places& places) {
  std::vector<Finding> findings{check_root()};
  for (auto part : {check_monitors(places), check_processor(), check_kernel(), check_data(places)}) {
    for (auto& finding : part) findings.push_back(std::move(finding));
  }
  return findings;
}

std::string summary(const std::vector<Finding>& findings) {
  const auto count = [&](Verdict verdict) {
    return std::count_if(findings.begin(), findings.end(),
                         [verdict](const Finding& finding) { return finding.verdict == verdict; });
  };
  const auto warnings = count(Verdict::kWarn);
  return fmt::format("{} ok, {} {}, {} to be fixed", count(Verdict::kOk), warnings,
                     warnings == 1 ? "warning" : "warnings", count(Verdict::kFail));
}

}  // namespace wrenn::cli
