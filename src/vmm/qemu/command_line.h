#pragma once

#include <string>
#include <vector>

#include "vmm/vmm.h"

namespace wrenn::vmm::qemu {

inline constexpr const char* kBinary = "qemu-system-x86_64";
// Descriptors the process inherits.
inline constexpr int kQmpListenFd = 3;
inline constexpr int kStateFd = 4;

// The processor guests see, as QEMU is told.
std::string cpu_model(const std::string& accel);

// argv of a VM whose files are at spec's paths in its jail. `tsc_khz`: speed of the counter an emulated guest
// sees; 0 leaves it to the guest's kernel.
std::vector<std::string> command_line(const VmSpec& spec, Start start, std::uint64_t tsc_khz);
// argv of a diskless guest that boots `kernel` to the probe of `initramfs`, its console on standard output.
std::vector<std::string> probe_command_line(const std::string& accel, const std::string& kernel,
                                            const std::string& initramfs);

}  // namespace wrenn::vmm::qemu
