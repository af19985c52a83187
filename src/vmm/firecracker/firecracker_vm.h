#pragma once

#include <string>

#include "vmm/firecracker/api.h"
#include "vmm/firecracker/config.h"
#include "vmm/firecracker/handover.h"
#include "vmm/firecracker/metrics.h"
#include "vmm/pager.h"
#include "vmm/vm_process.h"

namespace wrenn::vmm::firecracker {

// A running Firecracker in its jail.
class FirecrackerVm final : public Vm {
 public:
  FirecrackerVm(const asio::any_io_executor& executor, asio::thread_pool* pool, VmSpec spec,
                VmProcess process);

  Task<> connect(Milliseconds limit);
  // Loads the state in the jail. Without pages of a snapshot the memory file is mapped privately. With them
  // the memory must be right before the devices look at their rings, and Firecracker lets nobody in between:
  // so it is loaded on demand, from an image of ours.
  Task<> load_state(model::Version version, SavedState from);
  // Goes on serving a VM whose memory an earlier agent loaded on demand.
  Task<> adopt_memory();
  // Writes down where the memory lies, before the guest can make that unclear.
  Task<> remember_memory();
  // After an agent that ended while it saved the VM.
  void go_on() const { process_.go_on(); }
  Result<> open_metrics();
  Task<> give_up(Error why) { return process_.give_up(std::move(why), "Firecracker"); }
  Result<> check_adopted(Result<> connected) const { return process_.check_adopted(std::move(connected)); }

  const ProcessIdentity& process() const override { return process_.identity(); }
  Task<> pause() override;
  Task<> resume() override;
  Task<> save_device_state(std::string path) override;
  Task<sys::ProcessMemory> ram() override;
  bool loaded_on_demand() const override { return pager_ != nullptr; }
  std::vector<sys::PageRun> working_set() const override;
  bool can_reclaim() const override { return true; }
  Task<int> reclaim(int mib, Milliseconds limit) override;
  Task<> kill() override { return process_.kill(); }
  Task<> wait_exit() override { return process_.wait_exit(); }
  bool alive() const override { return process_.alive(); }
  Task<VmStats> stats() override;

 private:
  Task<> command(std::string method, std::string target, boost::json::object body, Milliseconds limit);
  Task<> set_state(std::string state);
  Task<> save_once();
  Result<std::uint64_t> packets_taken() const;
  Task<sys::ProcessMemory> find_memory();
  Task<> set_balloon(int mib);
  Task<int> balloon_size();

  Task<> load_memory(model::Version version, SavedState from);
  Task<> load_on_demand(model::Version version, SavedState from);

  Task<std::unique_ptr<Pager>> start_pager(Handover handover, MemoryImage image,
                                           std::vector<sys::PageRun> prefetch);

  asio::thread_pool* pool_;
  VmSpec spec_;
  VmProcess process_;
  ApiClient api_;
  Metrics metrics_;
  bool held_ = false;             // see save_device_state
  std::unique_ptr<Pager> pager_;  // set when the memory is loaded on demand
};

}  // namespace wrenn::vmm::firecracker
