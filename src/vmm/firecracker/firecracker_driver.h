#pragma once

#include <memory>
#include <string>

#include "vmm/firecracker/config.h"
#include "vmm/firecracker/firecracker_vm.h"
#include "vmm/vmm.h"

namespace wrenn::vmm::firecracker {

class FirecrackerDriver final : public Driver {
 public:
  // `binary`: Firecracker, with the jailer of the same version beside it. kFailedPrecondition when one of
  // them is missing, or a version that is refused.
  static Result<std::shared_ptr<FirecrackerDriver>> make(async::Blocking blocking,
                                                         asio::any_io_executor executor,
                                                         asio::thread_pool* pool, std::string binary);

  Shape base_shape() const override { return shape_; }
  Task<std::shared_ptr<Vm>> boot(VmSpec spec) override;
  Task<std::shared_ptr<Vm>> load(VmSpec spec, SavedState from) override;
  Task<std::shared_ptr<Vm>> adopt(VmSpec spec, ProcessIdentity process) override;

 private:
  FirecrackerDriver(asio::any_io_executor executor, asio::thread_pool* pool, std::string binary,
                    std::string jailer, model::Version version, Shape shape);
  Result<VmProcess> spawn(async::Blocking blocking, const VmSpec& spec,
                          const std::string& device_state) const;
  Task<std::shared_ptr<Vm>> start(VmSpec spec, SavedState from);

  asio::any_io_executor executor_;
  asio::thread_pool* pool_;
  std::string binary_;
  std::string jailer_;
  model::Version version_;
  Shape shape_;
};

}  // namespace wrenn::vmm::firecracker
