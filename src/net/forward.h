#pragma once

#include <functional>

#include "net/http.h"

namespace wrenn::net {

// Without the headers that concern one hop only: Connection and those it names, Keep-Alive, Proxy-*, TE,
// Trailer, Transfer-Encoding, Upgrade, and Expect, which the server answers itself.
Headers end_to_end(const Headers& headers);

// An Error here ends the forwarding before the client got anything: an answer that means something to us.
using Refusal = std::function<std::optional<Error>(const ResponseHead&)>;

// Passes the request on to `endpoint` under `head` (its method, target and end-to-end headers are sent as
// they are) and its answer back, both piece by piece as they come. A GET without a body that asks to upgrade
// becomes a tunnel; others are passed on without that wish. The client's leaving ends it. An Error before
// anything was answered is the caller's to tell: reason "connect_failed" when the endpoint takes no
// connection, kInvalidArgument when the request's body is malformed.
Task<> forward(std::shared_ptr<Exchange> exchange, HttpClient* client, Endpoint endpoint, RequestHead head,
               Refusal refusal = {});

}  // namespace wrenn::net
