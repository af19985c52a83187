#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/async.h"

// A virtual machine monitor driving one VM. Two drivers: vmm/qemu and vmm/firecracker. Calls on one Vm are
// made one at a time by its sandbox's actor.
namespace wrenn::vmm {

// Everything that shapes a VM's memory image; a snapshot made under one shape loads only under the same.
struct Shape {
  std::string driver;   // "qemu" or "firecracker"
  std::string accel;    // "kvm" or "tcg"
  std::string version;  // of the VMM binary, "7.2.22"
  std::string cpu_model;
  int vcpus = 1;         // 1..32
  int memory_mib = 512;  // 128..65536
};

struct DiskSpec {
  std::string path;
  bool read_only = false;
};

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
  std::string tap = "tap0";
  std::string mac = "02:FC:00:00:00:05";
  // File for the guest's console output; empty: no serial port, which is right for anything untrusted since
  // the file is unbounded. A load must say the same as its boot.
  std::string serial_log;
  // The new process writes its pid to each before exec, so that nothing of the VM runs outside its cgroup.
  std::vector<std::string> cgroup_procs_files;
};

// Kernel arguments every guest should boot with (VmSpec::kernel_args).
std::string default_kernel_args();

// Names a process beyond pid recycling.
struct ProcessIdentity {
  pid_t pid = 0;
  std::uint64_t start_time = 0;  // field 22 of /proc/PID/stat, clock ticks since boot
};

// Where guest RAM lies in the VMM's address space, for capturing through /proc/PID/{pagemap,mem}.
struct RamRegion {
  std::uint64_t address = 0;  // in the VMM process
  std::uint64_t size = 0;     // bytes
};

struct VmStats {
  std::uint64_t cpu_time_us = 0;
  std::uint64_t rss_bytes = 0;
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
  virtual Task<RamRegion> ram() = 0;
  // SIGKILL and wait until the process is gone; ok if it already is.
  virtual Task<> kill() = 0;
  // Returns when the VM process has exited; the Error says how, Result ok after kill().
  virtual Task<> wait_exit() = 0;
  virtual bool alive() const = 0;
  virtual Task<VmStats> stats() = 0;
};

using FillMemory = std::function<Task<>(pid_t, RamRegion)>;

class Driver {
 public:
  virtual ~Driver() = default;
  // "qemu" / accel / version / cpu model of this machine; vcpus and memory left at defaults.
  virtual Shape base_shape() const = 0;
  // Starts the guest kernel from scratch; returns once the VMM runs (not the guest).
  virtual Task<std::shared_ptr<Vm>> boot(VmSpec spec) = 0;
  // Starts a VMM with spec.memory_file mapped privately, loads the device state, and leaves the VM paused.
  // `fill`, if given, changes the RAM before the devices load: device state refers to what RAM holds (virtio
  // rings), so the pages a snapshot adds to spec.memory_file must be there first.
  virtual Task<std::shared_ptr<Vm>> load(VmSpec spec, std::string device_state, FillMemory fill) = 0;
  // Takes over a VM started by an earlier agent. kNotFound when the process is gone or is another one.
  virtual Task<std::shared_ptr<Vm>> adopt(VmSpec spec, ProcessIdentity process) = 0;
};

// Chooses by `preference`: "auto", "qemu-kvm", "qemu-tcg" (later "firecracker"). auto proves KVM by booting
// `kernel` with `initramfs` for a few seconds and remembers the answer in `cache_dir` by boot id, kernel and
// VMM version.
struct DriverChoice {
  std::string preference = "auto";
  std::string kernel;
  std::string initramfs;
  std::string cache_dir;
};
Task<std::shared_ptr<Driver>> choose_driver(asio::any_io_executor executor, DriverChoice choice);

}  // namespace wrenn::vmm
