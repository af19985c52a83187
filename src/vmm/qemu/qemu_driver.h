#pragma once

#include <memory>
#include <string>

#include "vmm/proc.h"
#include "vmm/qemu/command_line.h"
#include "vmm/qemu/qemu_vm.h"
#include "vmm/vmm.h"

namespace wrenn::vmm::qemu {

class QemuDriver final : public Driver {
 public:
  // `accel`: "kvm" or "tcg"; `version`: of the QEMU binary.
  QemuDriver(asio::any_io_executor executor, std::string accel, std::string version);

  Shape base_shape() const override { return shape_; }
  Task<std::shared_ptr<Vm>> boot(VmSpec spec) override;
  Task<std::shared_ptr<Vm>> load(VmSpec spec, std::string device_state, FillMemory fill) override;
  Task<std::shared_ptr<Vm>> adopt(VmSpec spec, ProcessIdentity process) override;

 private:
  Task<std::shared_ptr<Vm>> start(VmSpec spec, Start how, std::string device_state, FillMemory fill);
  Result<std::shared_ptr<QemuVm>> spawn(VmSpec spec, Start how, std::string device_state,
                                        std::uint64_t tsc_khz) const;

  asio::any_io_executor executor_;
  Shape shape_;
  TscClock tsc_;
};

// "7.2.22" from the first line of `qemu-system-x86_64 --version`. Blocking. kFailedPrecondition when QEMU is
// missing.
Result<std::string> binary_version();

}  // namespace wrenn::vmm::qemu
