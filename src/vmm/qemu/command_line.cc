#include "vmm/qemu/command_line.h"

#include <fmt/format.h>

#include <algorithm>

#include "vmm/limits.h"

namespace wrenn::vmm::qemu {
namespace {

// Translated guest code kept, for emulation. Bigger saves little time and costs host memory per sandbox.
constexpr int kTranslationCacheMib = 23;

// QEMU splits options at commas; a comma inside a value is doubled.
std::string quoted(const std::string& value) {
  std::string out;
  for (const char c : value) {
    out += c;
    if (c == ',') out += ',';
  }
  return out;
}

// A second's worth may pass at once; QEMU's own default is a tenth.
std::string throttle(const DeviceLimits& limits) {
  std::string out;
  const auto add = [&out](const char* what, std::uint64_t per_second) {
    if (per_second == 0) return;
    out += fmt::format(",throttling.{0}-total={1},throttling.{0}-total-max={1}", what, per_second);
  };
  add("bps", limits.disk_bytes_per_sec);
  add("iops", limits.disk_ops_per_sec);
  return out;
}

std::string accelerator(const Shape& shape) {
  if (shape.accel == "kvm") return "kvm";
  return fmt::format("tcg,thread={},tb-size={}", shape.vcpus > 1 ? "multi" : "single", kTranslationCacheMib);
}

}  // namespace

std::string cpu_model(const std::string& accel) {
  // Hosts whose KVM refuses to set that register (nested ones, newer kernels) would make QEMU abort.
  if (accel == "kvm") return "host,arch-capabilities=off";
  // With la57 the guest would walk five levels of page tables, which emulation pays for.
  return "max,la57=off";
}

std::vector<std::string> command_line(const VmSpec& spec, Start start, std::uint64_t tsc_khz) {
  const Shape& shape = spec.shape;
  const bool serial = !spec.serial_log.empty();
  std::vector<std::string> argv{
      kBinary, "-name", "guest=" + quoted(spec.id),
      // No devices but those below, no configuration files, no window, no reset: a guest that reboots ends.
      "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-sandbox",
      "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny", "-machine",
      fmt::format("microvm,acpi=on,isa-serial={},rtc=on,memory-backend=mem,mem-merge=off,"
                  "dump-guest-core=off,suppress-vmdesc=on",
                  serial ? "on" : "off"),
      "-accel", accelerator(shape), "-cpu", cpu_model(shape.accel), "-smp", std::to_string(shape.vcpus), "-m",
      fmt::format("{}M", shape.memory_mib),
      // A private mapping: pages the guest writes become anonymous, which is how a capture finds them.
      "-object",
      fmt::format("memory-backend-file,id=mem,size={}M,share=off,mem-path={}", shape.memory_mib,
                  quoted(spec.memory_file)),
      "-object", fmt::format("main-loop,id=main-loop,thread-pool-max={}", kDiskThreads), "-global",
      "migration.send-configuration=off", "-chardev",
      fmt::format("socket,id=qmp,fd={},server=on,wait=off", kQmpListenFd), "-mon",
      "chardev=qmp,mode=control"};
  const auto add = [&argv](std::initializer_list<std::string> words) { argv.insert(argv.end(), words); };
  add({"-drive",
       fmt::format("if=none,id=base,format=raw,readonly=on,file.locking=off{},file={}", throttle(spec.limits),
                   quoted(spec.base.path)),
       "-device", "virtio-blk-device,drive=base,logical_block_size=512"});
  // Without host flushes: a host crash loses the guest's memory, thus the sandbox, anyway, and a capture
  // syncs the file itself.
  add({"-drive",
       fmt::format("if=none,id=overlay,format=raw,cache=unsafe,discard=unmap{},file={}",
                   throttle(spec.limits), quoted(spec.overlay.path)),
       // A write that finds the host's disk full stops the VM, see VmStats::disk_full.
       "-device", "virtio-blk-device,drive=overlay,werror=enospc"});
  if (!spec.tap.empty()) {
    add({"-netdev", fmt::format("tap,id=net0,ifname={},script=no,downscript=no,vhost=off", quoted(spec.tap)),
         "-device", fmt::format("virtio-net-device,netdev=net0,mac={}", quoted(spec.mac))});
  }
  add({"-object", "rng-builtin,id=rng0", "-device", "virtio-rng-device,rng=rng0"});
  if (serial) {
    add({"-chardev", "file,id=serial,append=on,path=" + quoted(spec.serial_log), "-serial",
         "chardev:serial"});
  }
  if (start == Start::kLoad) {
    add({"-S", "-incoming", "defer"});
    return argv;
  }
  std::string kernel_args = spec.kernel_args;
  // The kernel's own measurement fails on a busy host, and without it the guest hangs.
  if (shape.accel == "tcg" && tsc_khz > 0) kernel_args += fmt::format(" tsc_early_khz={}", tsc_khz);
  add({"-kernel", spec.kernel, "-initrd", spec.initramfs, "-append", kernel_args});
  return argv;
}

std::vector<std::string> probe_command_line(const std::string& accel, const std::string& kernel,
                                            const std::string& initramfs) {
  return {kBinary,
          "-nodefaults",
          "-no-user-config",
          "-display",
          "none",
          "-no-reboot",
          "-machine",
          "microvm,acpi=on,isa-serial=on,rtc=on",
          "-accel",
          accel,
          "-cpu",
          cpu_model(accel),
          "-m",
          "128M",
          "-serial",
          "stdio",
          "-monitor",
          "none",
          "-kernel",
          kernel,
          "-initrd",
          initramfs,
          "-append",
          "console=ttyS0 quiet reboot=t panic=-1 wrenn.probe"};
}

}  // namespace wrenn::vmm::qemu
