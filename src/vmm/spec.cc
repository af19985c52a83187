// Checks that every driver makes.
#include <fmt/format.h>

#include <algorithm>

#include "sys/file.h"
#include "vmm/limits.h"
#include "vmm/vmm.h"

namespace wrenn::vmm {
namespace {

bool is_one_line(const std::string& text) {
  return std::ranges::none_of(text, [](char c) { return c == '\0' || c == '\n'; });
}

}  // namespace

Result<> check_spec(const VmSpec& spec) {
  const Shape& shape = spec.shape;
  if (shape.vcpus < 1 || shape.vcpus > kMaxVcpus) return fail(Code::kInvalidArgument, "vcpus must be 1..32");
  if (shape.memory_mib < kMinMemoryMib || shape.memory_mib > kMaxMemoryMib) {
    return fail(Code::kInvalidArgument, "memory must be 128..65536 MiB");
  }
  for (const std::string* text : {&spec.id, &spec.run_dir, &spec.kernel, &spec.initramfs, &spec.kernel_args,
                                  &spec.base.path, &spec.overlay.path, &spec.memory_file, &spec.netns,
                                  &spec.tap, &spec.mac, &spec.serial_log, &shape.cpu_model}) {
    if (!is_one_line(*text)) return fail(Code::kInvalidArgument, "a VM setting holds a line break");
  }
  if (spec.netns.find('/') != std::string::npos)
    return fail(Code::kInvalidArgument, "bad network namespace name");
  if (spec.uid == 0 || spec.gid == 0) return fail(Code::kInvalidArgument, "a VM needs a user of its own");
  return {};
}

Result<> check_same_machine(const Shape& wanted, const Shape& ours) {
  if (wanted.driver == ours.driver && wanted.accel == ours.accel && wanted.version == ours.version &&
      wanted.cpu_model == ours.cpu_model) {
    return {};
  }
  return fail(Error(Code::kFailedPrecondition,
                    fmt::format("made by {} {} ({}, {}), this host runs {} {} ({}, {})", wanted.driver,
                                wanted.version, wanted.accel, wanted.cpu_model, ours.driver, ours.version,
                                ours.accel, ours.cpu_model))
                  .with_reason("incompatible_vmm"));
}

Result<> check_memory_file(const VmSpec& spec) {
  const auto size = TRY(sys::file_size(spec.memory_file));
  if (size == spec.shape.memory_bytes()) return {};
  return fail(Error(Code::kDataLoss,
                    fmt::format("{} has {} bytes, not {} MiB", spec.memory_file, size, spec.shape.memory_mib))
                  .with_reason("snapshot_corrupt"));
}

// Pages are of 4 KiB (VmProcess sees to that), and what describes one takes 8 bytes: RAM / 512 for the
// monitor's page tables, as much under KVM for the guest's (EPT or NPT), as much for KVM's map back from them
// where guests run guests, and as much to spare. A disk thread that ends is counted for a moment beside the
// one that takes its place.
Footprint footprint_of(const Shape& shape) {
  const std::uint64_t ram = shape.memory_bytes();
  return {.memory_bytes = ram + ram / kRamPerTableByte + kMonitorBytes,
          .threads = static_cast<std::uint64_t>(shape.vcpus + 2 * kDiskThreads + kOtherThreads)};
}

}  // namespace wrenn::vmm
