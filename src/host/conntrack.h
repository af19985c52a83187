#pragma once

#include <cstdint>

#include "async/blocking.h"
#include "base/result.h"

namespace wrenn::host {

// Takes the connections that `address` (IPv4, in network order) began out of this namespace's connection
// tracking, where an established one would stay for days. Linux 5.14 can; kUnimplemented before.
Result<> forget_connections_from(async::Blocking blocking, std::uint32_t address);

}  // namespace wrenn::host
