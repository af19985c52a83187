#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace wrenn::connect {

Result<std::string> gzip_compress(std::string_view plain);
// kInvalidArgument when malformed; kResourceExhausted, reason "too_large", once the output passes `limit`
// bytes.
Result<std::string> gzip_decompress(std::string_view packed, std::size_t limit);

}  // namespace wrenn::connect
