#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "async/async.h"

namespace wrenn::envd {

// Ports on which somebody listens on loopback addresses only, with the address.
using LoopbackPorts = std::map<std::uint16_t, std::string>;

// Out of the texts of /proc/net/tcp and /proc/net/tcp6.
LoopbackPorts parse_loopback_ports(std::string_view tcp, std::string_view tcp6);

// Makes such ports reachable at `address` too, where the host's traffic arrives: programs under development
// often listen on localhost. Looks once a second, until cancelled.
Task<> forward_loopback_ports(std::string address, asio::thread_pool* pool);

}  // namespace wrenn::envd
