#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace wrenn::cli {

inline constexpr char kDefaultBaseUrl[] = "http://localhost:8000";
inline constexpr char kDefaultDir[] = "/var/lib/wrenn";

// How long a call of the API may take. Creating may boot a VM cold; pausing writes memory to disk.
inline constexpr std::chrono::milliseconds kCallLimit{30'000};
inline constexpr std::chrono::milliseconds kTransitionLimit{180'000};

inline constexpr std::size_t kMaxResponseBytes = std::size_t{64} * 1024 * 1024;
inline constexpr std::size_t kMaxErrorBytes = std::size_t{64} * 1024;
inline constexpr std::size_t kCopyBufferBytes = std::size_t{64} * 1024;

// wrenn up
inline constexpr std::uint64_t kMaxLogBytes = std::uint64_t{10} * 1024 * 1024;
inline constexpr std::chrono::milliseconds kReadyLimit{30'000};
inline constexpr std::chrono::milliseconds kPrepareLimit{600'000};
inline constexpr std::chrono::milliseconds kMigrateLimit{120'000};
inline constexpr std::chrono::milliseconds kFirstBackoff{500};
inline constexpr std::chrono::milliseconds kMaxBackoff{30'000};
// A child that ran this long is healthy again: its next restart comes at once.
inline constexpr std::chrono::milliseconds kHealthyAfter{60'000};
// The agent finishes a pause in flight before it exits.
inline constexpr std::chrono::milliseconds kStopLimit{60'000};

}  // namespace wrenn::cli
