#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace wrenn::net {

// SHA-256, for keys and signatures.
std::array<std::uint8_t, 32> sha256(std::string_view bytes);

}  // namespace wrenn::net
