#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/async.h"
#include "sys/process_memory.h"

// A virtual machine monitor driving one VM. Two drivers: vmm/qemu and vmm/firecracker. Calls on one Vm are
// made one at a time by its sandbox's actor, but for stats(), which may come at any time.
namespace wrenn::vmm {

// Everything that shapes a VM's memory image; a snapshot made under one shape loads only under the same.
struct Shape {
  std::string driver;     // "qemu" or "firecracker"
  std::string accel;      // "kvm" or "tcg"
  std::string version;    // of the VMM binary, "7.2.22"
  std::string cpu_model;  // that guests see, with the host's own where that is what they get (KVM)
  int vcpus = 1;          // 1..32
  int memory_mib = 512;   // 128..65536
  std::uint64_t memory_bytes() const { return static_cast<std::uint64_t>(memory_mib) << 20U; }
};

struct DiskSpec {
  std::string path;
  bool read_only = false;
};

// What a VM may use of the host's devices, 0: all. Each lets a second's worth pass at once.
struct DeviceLimits {
  std::uint64_t disk_bytes_per_sec = 0;     // of each disk, read and written
  std::uint64_t disk_ops_per_sec = 0;       // of each disk
  std::uint64_t network_bytes_per_sec = 0;  // each way; held by Firecracker, under QEMU by the slot's rules
};

enum class Start { kBoot, kLoad };

struct VmSpec {
  std::string id;       // names sockets and logs
  std::string run_dir;  // exists; the driver's sockets, pid file and bounded log live here
  Shape shape;
  std::string kernel;  // bzImage (QEMU) or vmlinux (Firecracker)
  std::string initramfs;
  std::string kernel_args;
  DiskSpec base;     // guest vda, read-only
  DiskSpec overlay;  // guest vdb, writable
  // The RAM's file. boot: created sparse, or empty for anonymous memory. load: the template's memory, mapped
  // privately and never written.
  std::string memory_file;
  std::string netns;  // name below /run/netns; the VMM starts inside it
  // The monitor's own user and group, no other VM's and not root's.
  uid_t uid = 0;
  gid_t gid = 0;
  std::string tap = "tap0";
  std::string mac = "02:FC:00:00:00:05";
  DeviceLimits limits;
  // File for the guest's console output; empty: none, which is right for anything untrusted since the file is
  // unbounded. A load must say the same as its boot.
  std::string serial_log;
  // The new process writes its pid to each before exec, so that nothing of the VM runs outside its cgroup.
  std::vector<std::string> cgroup_procs_files;
};

// kInvalidArgument naming what cannot be run: sizes out of range, a line break, no user of its own.
Result<> check_spec(const VmSpec& spec);
// kFailedPrecondition reason "incompatible_vmm" unless a VM of shape `wanted` runs under driver `ours`.
Result<> check_same_machine(const Shape& wanted, const Shape& ours);
// kDataLoss unless the memory file is as big as the shape says.
Result<> check_memory_file(const VmSpec& spec);

// What the monitor of a VM may take of its host at most. Its cgroup must not allow less, or else a guest
// could end its own VM: the kernel kills a monitor that gets too big, and QEMU aborts when it cannot start a
// thread.
struct Footprint {
  std::uint64_t memory_bytes = 0;  // the guest's RAM included
  std::uint64_t threads = 0;
};
Footprint footprint_of(const Shape& shape);

// Kernel arguments every guest should boot with (VmSpec::kernel_args).
std::string default_kernel_args();

// Names a process beyond pid recycling.
struct ProcessIdentity {
  pid_t pid = 0;
  std::uint64_t start_time = 0;  // field 22 of /proc/PID/stat, clock ticks since boot
};

struct VmStats {
  std::uint64_t cpu_time_us = 0;
  std::uint64_t rss_bytes = 0;
  std::uint64_t throttled = 0;  // times a device waited for its limit, where the monitor tells (Firecracker)
  // The host's disk had no space for what the guest wrote, so the monitor stopped the VM (QEMU). Nothing is
  // lost: resume() writes it again, and stops as before while there is no space. Firecracker tells the guest
  // of an I/O error instead and lets it run.
  bool disk_full = false;
};

class Vm {
 public:
  virtual ~Vm() = default;  // never kills the VM: VMs outlive the agent
  virtual const ProcessIdentity& process() const = 0;
  // Stops the vCPUs and drains device I/O. Idempotent.
  virtual Task<> pause() = 0;
  virtual Task<> resume() = 0;
  // Writes the device state (no RAM) of the paused VM to a new file.
  virtual Task<> save_device_state(std::string path) = 0;
  // Guest RAM in the monitor's process, for capturing through /proc/PID/{pagemap,mem}.
  virtual Task<sys::ProcessMemory> ram() = 0;
  // Pages become the process's own when they are read, too.
  virtual bool loaded_on_demand() const { return false; }
  // Of a VM loaded on demand: the pages of its memory file that it asked for soon after it began, for
  // SavedState::prefetch of its next life. Bounded.
  virtual std::vector<sys::PageRun> working_set() const { return {}; }
  // Takes up to `mib` of free memory from the running guest until resume(), so that no capture keeps what was
  // once written to it. Answers how much the guest has given when it is that much, no longer grows, or
  // `limit` has passed.
  virtual bool can_reclaim() const { return false; }
  virtual Task<int> reclaim(int mib, Milliseconds limit) = 0;
  // SIGKILL and wait until the process is gone; ok if it already is.
  virtual Task<> kill() = 0;
  // Returns when the VM process has exited; the Error says how, Result ok after kill().
  virtual Task<> wait_exit() = 0;
  virtual bool alive() const = 0;
  virtual Task<VmStats> stats() = 0;
};

// What a load starts from, besides the disks and VmSpec::memory_file.
struct SavedState {
  std::string device_state;  // path
  // What the snapshot adds to the memory file; path empty: nothing. It is in place before the devices load,
  // whose state refers to what RAM holds (virtio rings).
  sys::StoredPages pages;
  // Pages of the memory file that will be needed soon; brought in beside the running guest where memory is
  // loaded on demand.
  std::vector<sys::PageRun> prefetch;
};

class Driver {
 public:
  virtual ~Driver() = default;
  // "qemu" / accel / version / cpu model of this machine; vcpus and memory left at defaults.
  virtual Shape base_shape() const = 0;
  // Starts the guest kernel from scratch; returns once the VMM runs (not the guest).
  virtual Task<std::shared_ptr<Vm>> boot(VmSpec spec) = 0;
  // Starts a VMM whose memory is spec.memory_file's, which is never written, and leaves the VM paused.
  virtual Task<std::shared_ptr<Vm>> load(VmSpec spec, SavedState from) = 0;
  // Takes over a VM started by an earlier agent. kNotFound when the process is gone or is another one.
  virtual Task<std::shared_ptr<Vm>> adopt(VmSpec spec, ProcessIdentity process) = 0;
};

// Chooses by `preference`: "auto", "firecracker", "qemu-kvm", "qemu-tcg". auto is Firecracker where its
// binary is there and KVM runs guests, else QEMU with KVM, else QEMU with emulation. KVM is proved by booting
// the guest kernel for a few seconds; the answer is remembered in `cache_dir` by boot id, kernel and VMM
// version.
struct DriverChoice {
  std::string preference = "auto";
  std::string kernels_dir;  // bzImage, vmlinux, initramfs.cpio.gz
  std::string cache_dir;    // also for files that the drivers lend their VMs; empty: a folder below /tmp
  std::string firecracker;  // its binary, with `jailer` beside it; empty or absent: not installed
};
Task<std::shared_ptr<Driver>> choose_driver(asio::any_io_executor executor, asio::thread_pool* pool,
                                            DriverChoice choice);

}  // namespace wrenn::vmm
