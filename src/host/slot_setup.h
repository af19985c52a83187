#pragma once

#include <string>
#include <vector>

#include "host/host.h"

// Making and removing one slot, by iproute2 and nft. Off the request path, since the pool keeps slots
// ready.
namespace wrenn::host {

// Tables `wrenn_agent` of the host: what leaves a slot reaches neither this host nor private ranges, and no
// IPv6 at all leaves one.
Result<> install_host_rules(async::Blocking blocking, bool internet);
Result<> remove_host_rules(async::Blocking blocking);
Result<> enable_ip_forward(async::Blocking blocking);
Result<> create_slot(async::Blocking blocking, int index, const NetworkOptions& options);
// Ok when parts are absent. kFailedPrecondition reason "slot_occupied" while a process lives in it: the next
// user of the slot would share its address and user with it.
Result<> remove_slot(async::Blocking blocking, int index);
// Indexes of slots that exist on this host.
Result<std::vector<int>> existing_slots(async::Blocking blocking);

}  // namespace wrenn::host
