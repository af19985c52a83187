#pragma once

#include <memory>

#include "net/connection.h"
#include "net/websocket.h"

// Inside src/net: WebSockets over our streams.
namespace wrenn::net {

// Takes the connection's stream over. kInvalidArgument if the request is no upgrade.
Task<std::unique_ptr<WebSocket>> accept_websocket_stream(Connection* connection, RequestHead request);
// Upgrades a fresh stream; a refusal is an Error by the HTTP status (401, 403, 404, 409, 503, ...).
Task<std::unique_ptr<WebSocket>> connect_websocket_stream(Stream stream, std::string host,
                                                          RequestHead request);

}  // namespace wrenn::net
