#pragma once

#include <cstdint>

#include "async/task.h"

namespace wrenn::host {

inline constexpr int kMaxSlots = 32767;
// Users of VMs, one a slot: from here up to 2^31 nobody else gives numbers out (systemd's UIDS-GIDS.md).
inline constexpr std::uint32_t kFirstVmUid = 0x70000000;
inline constexpr Milliseconds kCommandLimit{20'000};
// After a failure to prepare or remove a slot the pool waits this long before it tries again.
inline constexpr Milliseconds kRefillPause{1'000};
// After a slot could not be removed, or a process still lives in it.
inline constexpr Milliseconds kRemoveRetry{500};
// How long a request for a slot waits for one that is being made or removed.
inline constexpr Milliseconds kSettleLimit{10'000};
inline constexpr Milliseconds kCgroupEmptyLimit{5'000};
// Period over which the CPU quota is spent, microseconds (the kernel's default).
inline constexpr int kCpuPeriodUs = 100'000;

}  // namespace wrenn::host
