#pragma once

#include <cstddef>

#include "async/task.h"

namespace wrenn::envd {

inline constexpr std::uint16_t kPort = 49983;
inline constexpr const char* kVersion = "0.6.4";
inline constexpr std::size_t kMaxProcesses = 4096;
inline constexpr std::size_t kPipeChunkBytes = std::size_t{32} * 1024;
inline constexpr std::size_t kPtyChunkBytes = std::size_t{16} * 1024;
// Events a subscriber may lag behind before the process waits for it.
inline constexpr std::size_t kSubscriberEvents = 8;
inline constexpr Milliseconds kRememberExits{30'000};
inline constexpr Milliseconds kDefaultKeepalive{90'000};
inline constexpr std::size_t kFileChunkBytes = std::size_t{256} * 1024;
inline constexpr std::size_t kMaxInitBytes = std::size_t{1024} * 1024;
// An attribute's name has 255 bytes in Linux, 9 of them are ours; the sum is E2B's limit.
inline constexpr std::size_t kMaxMetadataKeyBytes = 246;
inline constexpr std::size_t kMaxMetadataBytes = 4096;
inline constexpr std::size_t kMaxAttributeListBytes = std::size_t{64} * 1024;  // the kernel's limit
inline constexpr std::size_t kMaxComposeSources = 1000;
inline constexpr std::size_t kComposeStepBytes = std::size_t{16} * 1024 * 1024;
inline constexpr std::size_t kMaxWatchedFolders = 8192;  // of one watch
inline constexpr std::size_t kMaxPolledWatchers = 256;
inline constexpr std::size_t kMaxPolledEvents = 10'000;
inline constexpr std::size_t kMaxPathBytes = 4096;
inline constexpr std::size_t kMaxListEntries = 100'000;
inline constexpr unsigned kMaxListDepth = 64;
inline constexpr std::size_t kMaxForwardedPorts = 256;
inline constexpr Milliseconds kPortScanPeriod{1'000};
// Further off than this, /init sets the clock.
inline constexpr std::chrono::milliseconds kClockTolerance{10};
// What processes of the API leave to the rest of the guest, at most an eighth of its memory.
inline constexpr std::uint64_t kReservedMemoryBytes = std::uint64_t{128} * 1024 * 1024;
inline constexpr Milliseconds kFreezeLimit{500};
inline constexpr Milliseconds kMaxFreezeWait{10'000};
// Less from the host is refused: clones that share their generator's state would go on sharing it.
inline constexpr std::size_t kMinEntropyBytes = 32;
inline constexpr std::size_t kMachineIdDigits = 32;
// Every process of the API costs envd a few descriptors. Processes get the usual limit, above which select(2)
// does not work.
inline constexpr std::uint64_t kOwnOpenFiles = 65'536;
inline constexpr std::uint64_t kProcessOpenFiles = 1024;
inline constexpr int kProcessOomScore = 100;

}  // namespace wrenn::envd
