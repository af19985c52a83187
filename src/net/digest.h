#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace wrenn::net {

// SHA-256, for keys and signatures.
std::array<std::uint8_t, 32> sha256(std::string_view bytes);
// HMAC-SHA-256, for secrets made from others.
std::array<std::uint8_t, 32> hmac_sha256(std::string_view key, std::string_view message);

}  // namespace wrenn::net
