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
inline constexpr std::size_t kMaxPathBytes = 4096;
inline constexpr std::size_t kMaxListEntries = 100'000;
inline constexpr unsigned kMaxListDepth = 64;
// Further off than this, /init sets the clock.
inline constexpr std::chrono::milliseconds kClockTolerance{10};
inline constexpr int kProcessOomScore = 100;

}  // namespace wrenn::envd
