#pragma once

#include <optional>
#include <string>

#include "sys/process.h"
#include "vmm/proc.h"
#include "vmm/vmm.h"

namespace wrenn::vmm {

// The process of a VM, started here or by an earlier agent. What it says on its standard error goes to a
// sealed memory file: bounded, there after the agent's end, and readable through /proc by the next one.
class VmProcess {
 public:
  // Starts it in a session and a PID namespace of its own, without a way to privileges or to leave its
  // memory in a core file, first to go when memory runs out; its pages are of 4 KiB. Its standard output and
  // error are the log unless spec.stdout_fd is set.
  static Result<VmProcess> start(sys::SpawnSpec spec);
  // kNotFound when the process is gone or its number is another's.
  static Result<VmProcess> adopt(ProcessIdentity identity);

  const ProcessIdentity& identity() const { return identity_; }
  int pidfd() const { return pidfd_.get(); }
  bool alive() const;
  // Stops the process where it stands until go_on(); it may be killed meanwhile. kDeadlineExceeded.
  Task<> hold();
  void go_on() const;
  // See Vm.
  Task<> kill();
  Task<> wait_exit();
  Result<VmStats> stats();
  // The text of its /proc/PID/maps.
  Result<std::string> maps() const;
  // How it ended, for a person; kUnavailable.
  Error exit_error();
  // The end of what it said.
  std::string log_tail() const;
  // Ends a VM that did not come up. Never ok: `why`, with the end of what `monitor` said.
  Task<> give_up(Error why, std::string monitor);
  // What a connection to an adopted VM came to: kNotFound when the VM went meanwhile.
  Result<> check_adopted(Result<> connected) const;

 private:
  VmProcess(ProcessIdentity identity, sys::Fd pidfd, std::optional<sys::ChildProcess> child, sys::Fd log);
  Task<> wait_gone();
  Task<> wait_held();

  ProcessIdentity identity_;
  sys::Fd pidfd_;
  std::optional<sys::ChildProcess> child_;  // only a parent can reap
  sys::Fd log_;
  bool killed_ = false;
};

}  // namespace wrenn::vmm
