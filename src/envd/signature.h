#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "envd/session.h"

namespace wrenn::envd {

// What a signed URL allows: one operation on one path, as E2B clients compute it.
std::string file_signature(std::string_view path, std::string_view operation, std::string_view user,
                           std::string_view token, std::string_view expiry);

// Whether a request for /files may go on: it carries the access token, or a signature over its own query that
// has not expired at `now_unix`. Always when no token is set. kUnauthenticated otherwise.
Result<> authorize_file(const net::RequestHead& head, const Settings& settings, std::int64_t now_unix);

}  // namespace wrenn::envd
