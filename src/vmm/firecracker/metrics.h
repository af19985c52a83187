#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "sys/fd.h"
#include "vmm/vmm.h"

namespace wrenn::vmm::firecracker {

// Reads what a Firecracker counts: every minute, and when told to, it writes a line of JSON with what
// happened since the line before into a FIFO. That holds 64 KiB; what does not fit is dropped by Firecracker.
class Metrics {
 public:
  // Makes the FIFO for the VM's user.
  static Result<> make_pipe(const std::string& path, const VmSpec& spec);
  // Opens the FIFO of a VM that may have been another agent's.
  Result<> open(const std::string& path);
  // Takes what is there by now; never waits.
  void drain();
  std::uint64_t throttled() const { return throttled_; }

 private:
  sys::Fd pipe_;
  std::string line_;  // not complete yet
  std::uint64_t throttled_ = 0;
};

// Times that disks and network of one line's period waited for their limits; 0 for what is no such line.
std::uint64_t throttled_in(std::string_view line);

}  // namespace wrenn::vmm::firecracker
