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
  // `accel`: "kvm" or "tcg"; `version`: of the QEMU binary. `lent_dir` gets the files lent to every VM.
  static Result<std::shared_ptr<QemuDriver>> make(async::Blocking blocking, asio::any_io_executor executor,
                                                  asio::thread_pool* pool, std::string accel,
                                                  std::string version, const std::string& lent_dir);

  Shape base_shape() const override { return shape_; }
  Task<std::shared_ptr<Vm>> boot(VmSpec spec) override;
  Task<std::shared_ptr<Vm>> load(VmSpec spec, SavedState from) override;
  Task<std::shared_ptr<Vm>> adopt(VmSpec spec, ProcessIdentity process) override;

 private:
  QemuDriver(asio::any_io_executor executor, asio::thread_pool* pool, Shape shape, std::string preload);
  Task<std::shared_ptr<Vm>> start(VmSpec spec, Start how, SavedState from);
  Result<sys::Jail> make_jail(async::Blocking blocking, const VmSpec& spec, Start how) const;
  Result<VmProcess> spawn(async::Blocking blocking, const VmSpec& spec, Start how,
                          const std::string& device_state, std::uint64_t tsc_khz) const;

  asio::any_io_executor executor_;
  asio::thread_pool* pool_;
  Shape shape_;
  std::string preload_;  // path of preload_library()
  TscClock tsc_;
};

// "7.2.22" from the first line of `qemu-system-x86_64 --version`. kFailedPrecondition when QEMU is
// missing.
Result<std::string> binary_version(async::Blocking blocking);

}  // namespace wrenn::vmm::qemu
