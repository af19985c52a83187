#pragma once

#include <string>

#include "sys/fd.h"
#include "vmm/vmm.h"

namespace wrenn::vmm::firecracker {

// What Firecracker sends over the socket of a memory backend "Uffd": one message with a descriptor beside it.
struct Handover {
  sys::Fd fault_fd;
  std::string mappings;  // see parse_mappings
};

// Accepts Firecracker on the listening `socket` and takes its message. kInternal when it has no descriptor.
Task<Handover> receive_handover(int socket);

}  // namespace wrenn::vmm::firecracker
