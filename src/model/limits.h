#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

// The ranges of everything a client may ask for. The same numbers stand in proto/openapi.yaml.
namespace wrenn::model {

inline constexpr std::int64_t kMinVcpus = 1;
inline constexpr std::int64_t kMaxVcpus = 32;
inline constexpr std::int64_t kDefaultVcpus = 1;
inline constexpr std::int64_t kMinMemoryMb = 128;
inline constexpr std::int64_t kMaxMemoryMb = 65'536;
inline constexpr std::int64_t kDefaultMemoryMb = 512;
inline constexpr std::int64_t kMaxTimeoutSec = 31'536'000;  // a year; 0 means never
inline constexpr std::int64_t kDefaultExecTimeoutSec = 30;
inline constexpr std::int64_t kMaxExecTimeoutSec = 86'400;
inline constexpr std::size_t kMaxNameBytes = 64;
inline constexpr std::size_t kMaxPathBytes = 4'096;
inline constexpr std::size_t kMaxCommandBytes = 128 * 1024;
inline constexpr std::size_t kMaxArgs = 1'024;
inline constexpr char kDefaultTemplate[] = "minimal";
// A guest whose processes were frozen for a pause and that nobody initialised since goes on after this, by
// its own clock; the agent needs less from there to a resumed guest's /init (sandbox/limits.h).
inline constexpr std::chrono::milliseconds kGuestFreezeLimit{60'000};

}  // namespace wrenn::model
