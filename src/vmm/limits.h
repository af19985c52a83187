#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace wrenn::vmm {

// From spawning the monitor to its greeting. Generous: many may start at once on a busy host.
inline constexpr std::chrono::seconds kStartLimit{60};
// One command that touches no disk.
inline constexpr std::chrono::seconds kCommandLimit{10};
// Commands that drain or write disks.
inline constexpr std::chrono::seconds kDiskCommandLimit{60};
// From SIGKILL to the process being gone; exit frees all of the guest's memory.
inline constexpr std::chrono::seconds kKillLimit{30};
// Booting the probe guest under KVM; it takes well below a second where KVM works. Whoever names the driver
// has a reason, nested virtualisation perhaps, and may wait longer.
inline constexpr std::chrono::seconds kProbeLimit{4};
inline constexpr std::chrono::seconds kPatientProbeLimit{30};
// One message of the monitor.
inline constexpr std::size_t kMaxMonitorMessageBytes = std::size_t{1024} * 1024;
// What is kept of a monitor's own error output.
inline constexpr std::size_t kMonitorLogBytes = std::size_t{64} * 1024;
// Threads that QEMU starts for requests to disks: by default 64 (THREAD_POOL_MAX_THREADS_DEFAULT in its
// include/block/aio.h), as many as the guest has requests in flight.
inline constexpr int kDiskThreads = 16;
// All other threads of a monitor but the vCPUs': 3 of QEMU's or of Firecracker's, and some to spare.
inline constexpr int kOtherThreads = 32;
// A monitor's own memory: its heap, device buffers and, under emulation, translated code.
inline constexpr std::uint64_t kMonitorBytes = std::uint64_t{256} << 20U;
// One byte of page tables and the like for so many of guest RAM; see footprint_of.
inline constexpr std::uint64_t kRamPerTableByte = 128;
// What else a monitor may write into a file than disk or memory: device state, console.
inline constexpr std::uint64_t kOtherFileBytes = std::uint64_t{64} << 20U;
inline constexpr int kMaxVcpus = 32;
inline constexpr int kMinMemoryMib = 128;
inline constexpr int kMaxMemoryMib = 65536;

}  // namespace wrenn::vmm
