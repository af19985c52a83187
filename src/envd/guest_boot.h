#pragma once

#include "async/blocking.h"
#include "base/result.h"

namespace wrenn::envd {

// The guest's address, the same in every guest.
inline constexpr const char* kGuestAddress = "169.254.0.21";

// What PID 1 of a guest does before it serves: mounts, hostname, network. Steps that fail are logged and the
// boot goes on, since a guest without, say, cgroups is still of use.
void boot_guest(async::Blocking blocking);

}  // namespace wrenn::envd
