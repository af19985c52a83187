#pragma once

#include <string>
#include <string_view>

namespace wrenn::control {

// "wrn_" + 160 random bits in hex.
std::string new_api_key();
bool looks_like_api_key(std::string_view text);
// What the database keeps: SHA-256 in hex, and the first characters for people.
std::string hash_api_key(std::string_view key);
std::string api_key_prefix(std::string_view key);

}  // namespace wrenn::control
