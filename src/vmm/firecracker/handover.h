#pragma once

#include <string_view>

#include "sys/fd.h"
#include "vmm/vmm.h"

namespace wrenn::vmm::firecracker {

// What Firecracker sends over the socket of a memory backend "Uffd": one message with a descriptor beside it.
struct Handover {
  sys::Fd fault_fd;
  RamRegion ram;
};

// Accepts Firecracker on the listening `socket` and takes its message. kInternal when it is malformed.
Task<Handover> receive_handover(int socket);
// The message: a JSON array of mappings, of which we take just one.
Result<RamRegion> parse_mappings(std::string_view text);

}  // namespace wrenn::vmm::firecracker
