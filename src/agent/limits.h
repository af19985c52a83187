#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "async/task.h"

namespace wrenn::agent {

inline constexpr std::size_t kMaxMessageBytes = 4 * 1024 * 1024;
inline constexpr std::size_t kMaxEnvs = 256;
inline constexpr std::uint32_t kMaxListDepth = 64;
// Of all processes in a list together.
inline constexpr std::size_t kMaxListedArgs = 100'000;
inline constexpr std::string_view kProxyPrefix = "/proxy/";
// A port that has just opened, or is about to, gets a second chance.
inline constexpr int kConnectTries = 4;
inline constexpr Milliseconds kConnectPause{100};
inline constexpr std::size_t kPoolThreads = 8;
// Connections that the agent serves, and how many of them may carry traffic of guests' ports at a time, in
// all and for one sandbox: what is left is the control plane's, whatever guests and their visitors do.
inline constexpr std::size_t kMaxConnections = 8'192;
inline constexpr std::size_t kMaxProxied = 6'144;
inline constexpr std::size_t kMaxProxiedOfSandbox = 1'024;

}  // namespace wrenn::agent
