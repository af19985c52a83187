#pragma once

#include <string>

#include "vmm/qemu/qmp.h"
#include "vmm/vm_process.h"

namespace wrenn::vmm::qemu {

std::string qmp_path(const VmSpec& spec);
// The folder that a VM's QEMU sees as `/`.
std::string jail_path(const VmSpec& spec);

// A running QEMU.
class QemuVm final : public Vm {
 public:
  QemuVm(const asio::any_io_executor& executor, asio::thread_pool* pool, VmSpec spec, VmProcess process);

  // Takes the control connection; the VM runs or is paused.
  Task<> connect(Milliseconds limit);
  // Puts `pages` into the RAM, then loads the device state that was handed over at start.
  Task<> load_state(sys::StoredPages pages);
  Task<> give_up(Error why) { return process_.give_up(std::move(why), "QEMU"); }
  Result<> check_adopted(Result<> connected) const { return process_.check_adopted(std::move(connected)); }

  const ProcessIdentity& process() const override { return process_.identity(); }
  Task<> pause() override;
  Task<> resume() override;
  Task<> save_device_state(std::string path) override;
  Task<sys::ProcessMemory> ram() override;
  // Its balloon would punch holes into the memory file, which other VMs map.
  Task<int> reclaim(int mib, Milliseconds limit) override;
  Task<> kill() override;
  Task<> wait_exit() override;
  bool alive() const override { return process_.alive(); }
  Task<VmStats> stats() override;

 private:
  // Runs a command, after reconnecting if the connection was lost.
  Task<boost::json::value> command(std::string name, boost::json::object arguments, Milliseconds limit);
  Task<std::string> status();

  asio::thread_pool* pool_;
  VmSpec spec_;
  VmProcess process_;
  async::Mutex commands_;  // QEMU's connection takes one at a time
  QmpClient qmp_;
  bool disk_full_ = false;  // as of the last status()
};

}  // namespace wrenn::vmm::qemu
