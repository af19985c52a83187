#pragma once

#include <optional>
#include <string>

#include "sys/process.h"
#include "vmm/qemu/qmp.h"
#include "vmm/vmm.h"

namespace wrenn::vmm::qemu {

std::string qmp_path(const VmSpec& spec);

// A running QEMU. Its own messages go to a sealed memory file, so they stay bounded, survive the agent and
// can be read through /proc by the next one.
class QemuVm final : public Vm {
 public:
  // `child` is set when this process started it: only a parent can reap.
  QemuVm(const asio::any_io_executor& executor, VmSpec spec, ProcessIdentity process, sys::Fd pidfd,
         std::optional<sys::ChildProcess> child, sys::Fd log);

  // Takes the control connection; the VM runs or is paused.
  Task<> connect(Milliseconds limit);
  // Runs `fill` over the RAM, then loads the device state that was handed over at start.
  Task<> load_state(FillMemory fill);
  // What QEMU said on its standard error, the end of it.
  std::string log_tail() const;

  const ProcessIdentity& process() const override { return process_; }
  Task<> pause() override;
  Task<> resume() override;
  Task<> save_device_state(std::string path) override;
  Task<RamRegion> ram() override;
  Task<> kill() override;
  Task<> wait_exit() override;
  bool alive() const override;
  Task<VmStats> stats() override;

 private:
  // Runs a command, after reconnecting if the connection was lost.
  Task<boost::json::value> command(std::string name, boost::json::object arguments, Milliseconds limit);
  Task<std::string> status();
  Task<> wait_gone();
  // How it ended, for a person.
  std::string describe_exit();

  VmSpec spec_;
  ProcessIdentity process_;
  sys::Fd pidfd_;
  std::optional<sys::ChildProcess> child_;
  sys::Fd log_;
  QmpClient qmp_;
  bool killed_ = false;
};

}  // namespace wrenn::vmm::qemu
