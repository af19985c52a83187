#pragma once

#include "envd/process_groups.h"
#include "envd/session.h"
#include "net/http.h"

namespace wrenn::envd {

// POST /init: takes the host's clock, mixes its entropy into the kernel's generator and reseeds it, replaces
// environment, default user, folder and access token, and gives the machine its id unless its owner has. 204;
// 400 malformed, or without at least 32 bytes of entropy; 401 when a token is set and the request presents
// another one.
// Then processes that a pause froze go on.
Task<> serve_init(std::shared_ptr<net::Exchange> exchange, Settings* settings, ProcessGroups* groups);

// Seconds and nanoseconds since 1970 of an RFC 3339 time in UTC ("...Z"). For tests too.
Result<std::chrono::nanoseconds> parse_rfc3339(const std::string& text);

}  // namespace wrenn::envd
