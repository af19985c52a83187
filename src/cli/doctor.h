#pragma once

#include "cli/context.h"

namespace wrenn::cli {

// Checks this machine and the service; the result is 1 if anything that must hold does not.
Task<int> doctor_command(Context* context);

enum class Verdict { kOk, kWarn, kFail };

// One line of the doctor's list. `fix` says what to do; empty when ok.
struct Finding {
  std::string name;
  Verdict verdict = Verdict::kOk;
  std::string detail;
  std::string fix;
};

// The checks that look at this machine only. Blocking. `dir` is where Wrenn keeps its things, `programs` the
// folder of its programs.
std::vector<Finding> check_host(const std::string& dir, const std::string& programs);

// "QEMU emulator version 7.2.19 (Debian ...)": {7, 2}; {0, 0} for anything else.
struct Version {
  int major = 0;
  int minor = 0;
  auto operator<=>(const Version&) const = default;
};
Version parse_qemu_version(std::string_view text);

// The value in MiB of a line of /proc/meminfo.
std::optional<std::uint64_t> meminfo_mib(std::string_view meminfo, std::string_view name);

// True when the text of /proc/self/mounts shows what limits a VM: cgroup v2, or v1's cpu, memory and pids.
bool has_cgroups(std::string_view mounts, std::string_view v2_controllers);

}  // namespace wrenn::cli
