#pragma once

#include <cstddef>
#include <cstdint>

namespace wrenn::connect {

inline constexpr std::size_t kEnvelopeHeaderBytes = 5;
// A stream's last frame holds an error and trailers; the same bound serves unary error bodies.
inline constexpr std::size_t kMaxEndStreamBytes = 64 * 1024;
inline constexpr std::size_t kCompressAboveBytes = 1024;
inline constexpr std::int64_t kDefaultUnaryTimeoutMs = 60'000;
// The protocol allows ten digits.
inline constexpr std::size_t kMaxTimeoutDigits = 10;

}  // namespace wrenn::connect
