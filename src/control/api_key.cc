#include "control/api_key.h"

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "net/digest.h"

namespace wrenn::control {
namespace {
constexpr std::string_view kPrefix = "wrn_";
constexpr std::size_t kRandomBytes = 20;
constexpr std::size_t kShownChars = 10;
}  // namespace

std::string new_api_key() {
  std::array<std::uint8_t, kRandomBytes> random;
  fill_random(random);
  return std::string(kPrefix) + to_hex(random);
}

bool looks_like_api_key(std::string_view text) {
  return text.starts_with(kPrefix) && text.size() == kPrefix.size() + 2 * kRandomBytes &&
         std::ranges::all_of(text.substr(kPrefix.size()),
                             [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

std::string hash_api_key(std::string_view key) { return to_hex(net::sha256(key)); }

std::string api_key_prefix(std::string_view key) { return std::string(key.substr(0, kShownChars)); }

}  // namespace wrenn::control
