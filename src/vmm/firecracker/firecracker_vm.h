#pragma once

#include <string>

#include "vmm/firecracker/api.h"
#include "vmm/firecracker/config.h"
#include "vmm/pager.h"
#include "vmm/vm_process.h"

namespace wrenn::vmm::firecracker {

// A running Firecracker in its jail.
class FirecrackerVm final : public Vm {
 public:
  FirecrackerVm(const asio::any_io_executor& executor, VmSpec spec, VmProcess process);

  Task<> connect(Milliseconds limit);
  // Loads the state in the jail. Without `fill` the memory file is mapped privately. With it the memory must
  // be right before the devices look at their rings, and Firecracker lets nobody in between: so it is loaded
  // on demand, from an image of ours that `fill` has completed.
  Task<> load_state(Version version, FillMemory fill);
  // Goes on serving a VM whose memory an earlier agent loaded on demand.
  Task<> adopt_memory();
  std::string log_tail() const { return process_.log_tail(); }

  const ProcessIdentity& process() const override { return process_.identity(); }
  Task<> pause() override;
  Task<> resume() override;
  Task<> save_device_state(std::string path) override;
  Task<RamRegion> ram() override;
  Task<> kill() override { return process_.kill(); }
  Task<> wait_exit() override { return process_.wait_exit(); }
  bool alive() const override { return process_.alive(); }
  Task<VmStats> stats() override;

 private:
  Task<> command(std::string method, std::string target, boost::json::object body, Milliseconds limit);
  Task<> set_state(std::string state);
  Task<> load_on_demand(Version version, FillMemory fill);

  VmSpec spec_;
  VmProcess process_;
  ApiClient api_;
  std::unique_ptr<Pager> pager_;  // set when the memory is loaded on demand
};

}  // namespace wrenn::vmm::firecracker
