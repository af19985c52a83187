#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "control/client_address.h"
#include "net/http.h"
#include "store/store.h"

// What a program in a sandbox gets to see of a request, and who may send it one.
namespace wrenn::control {

inline constexpr std::uint16_t kEnvdPort = 49983;

// The token for ports that are not public. Made from the guest agent's, which it does not open.
std::string traffic_token(const store::Sandbox& sandbox);

// The answer to a browser that asks whether a page of another origin may send the token that the port wants.
// Browsers ask without it, and the request itself still needs it. Nullopt for any other request.
std::optional<net::Headers> preflight_answer(const net::RequestHead& head, std::uint16_t port,
                                             const store::Sandbox& sandbox);

// Whether the request may go to that port.
Result<> check_access(const net::RequestHead& head, std::uint16_t port, const store::Sandbox& sandbox);
// Whether it may wake a paused sandbox for it: what the guest agent would refuse must not.
Result<> check_may_wake(const net::RequestHead& head, std::uint16_t port, const store::Sandbox& sandbox);

// The headers as the guest gets them: without hop-by-hop ones, without whatever opens something of ours, and
// with X-Forwarded-* as we know them. The only way of headers into a guest.
net::Headers headers_for_guest(const net::Headers& asked, std::uint16_t port, const Caller& caller);

}  // namespace wrenn::control
