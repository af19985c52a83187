#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace wrenn {

// Lower-case hexadecimal.
std::string to_hex(std::span<const std::uint8_t> bytes);
// Standard base64 with padding.
std::string to_base64(std::string_view bytes);
// Accepts padded and unpadded, standard and URL-safe alphabets (as protobuf JSON does).
Result<std::string> from_base64(std::string_view text);

// True if `text` is well-formed UTF-8 (no surrogates, no overlong forms).
bool is_utf8(std::string_view text);
// The length of the longest prefix of `text` that does not end inside a multi-byte character; equals
// text.size() when nothing is cut. For splitting streams without breaking characters.
std::size_t utf8_complete_prefix(std::string_view text);

// Compares in time that depends on the lengths only. For secrets.
bool equal_constant_time(std::string_view a, std::string_view b);

// Fills from the kernel's CSPRNG; never fails.
void fill_random(std::span<std::uint8_t> out);
// `prefix` + 128 random bits as 26 lower-case base32 characters (RFC 4648 alphabet, no padding).
std::string random_id(std::string_view prefix);

std::string ascii_lower(std::string_view text);
bool ascii_iequal(std::string_view a, std::string_view b);
std::string_view trim(std::string_view text);

}  // namespace wrenn
