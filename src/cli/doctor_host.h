#pragma once

#include "cli/doctor.h"

// The doctor's look at processor and kernel. Each judge_ function decides by text alone; nullopt stands for a
// file that is not there.
namespace wrenn::cli {

using Text = std::optional<std::string>;

bool is_virtual(std::string_view cpuinfo);
// True when the processor can run VMs: vmx or svm.
bool has_virtualisation(std::string_view cpuinfo);

// `nested`: the parameter of kvm_intel or kvm_amd, "Y", "N", "1" or "0".
Finding judge_machine(const Text& cpuinfo, const Text& nested);
Finding judge_smt(const Text& active);
Finding judge_ksm(const Text& run);
// `safe` is asked for each swap whether its content never reaches a disk readable.
Finding judge_swap(const Text& swaps, const std::function<bool(const std::string&)>& safe);

// A file of /sys/devices/system/cpu/vulnerabilities.
struct Vulnerability {
  std::string name;
  std::string state;
};
// Those that only newer microcode can close are judge_microcode's.
Finding judge_mitigations(const std::vector<Vulnerability>& all, std::string_view command_line, bool in_vm);
Finding judge_microcode(const std::vector<Vulnerability>& all, std::string_view cpuinfo);

Finding judge_cgroups(std::string_view mounts, std::string_view controllers);
Finding judge_forwarding(const Text& value);
Finding judge_kernel(const Text& release);
Finding judge_userfaultfd(bool device, const Text& unprivileged);
Finding judge_overlayfs(const Text& filesystems, std::string_view modules);
Finding judge_memory(const Text& meminfo);

// Processor, kernel, memory and network of this machine. Blocking.
std::vector<Finding> check_processor();
std::vector<Finding> check_kernel();

}  // namespace wrenn::cli
