#pragma once

#include <string>
#include <vector>

#include "host/host.h"

// Making and removing one slot, by iproute2 and nft. Blocking; off the request path, since the pool keeps
// slots ready.
namespace wrenn::host {

// Table `wrenn_agent` of the host: what leaves a slot reaches neither this host nor private ranges.
Result<> install_host_rules(bool internet);
Result<> remove_host_rules();
Result<> enable_ip_forward();
Result<> create_slot(int index, std::uint64_t bytes_per_sec);
// Ok when parts are absent.
Result<> remove_slot(int index);
// Indexes of slots that exist on this host.
Result<std::vector<int>> existing_slots();

}  // namespace wrenn::host
