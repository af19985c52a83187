#include "control/guest_traffic.h"

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "net/digest.h"
#include "net/forward.h"

namespace wrenn::control {
namespace {

constexpr std::string_view kAccessTokenHeader = "x-access-token";  // the guest agent's
constexpr std::string_view kTrafficTokenHeader = "e2b-traffic-access-token";
constexpr std::string_view kApiKeyHeader = "x-api-key";
constexpr char kPreflightSeconds[] = "600";
constexpr std::string_view kTrafficTokenPurpose = "wrenn traffic access token 1";

// envd's routes for its host: from outside they do not exist.
constexpr std::array<std::string_view, 8> kHostRoutes = {"/init",     "/quiesce",  "/freeze", "/unfreeze",
                                                         "/collapse", "/fsfreeze", "/fsthaw", "/upgrade"};

std::string normalized(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  while (path.starts_with("//")) path.erase(0, 1);
  return path;
}

bool is_host_route(const std::string& path) {
  return std::ranges::find(kHostRoutes, normalized(path)) != kHostRoutes.end();
}

// By its lower-case name. A guest has no use for any of them; its own agent needs its own.
bool is_credential(std::string_view name, std::uint16_t port) {
  if (name == kAccessTokenHeader) return port != kEnvdPort;
  return name == kApiKeyHeader || name == kTrafficTokenHeader;
}

// Who claims to have passed the request on. We speak X-Forwarded-*; what else an unknown client says of
// itself goes no further.
bool is_claim(std::string_view name, const Caller& caller) {
  constexpr std::array<std::string_view, 4> kOurs = {"forwarded", "x-forwarded-for", "x-forwarded-host",
                                                     "x-forwarded-proto"};
  if (std::ranges::find(kOurs, name) != kOurs.end()) return true;
  return !caller.through_proxy && (name.starts_with("x-forwarded-") || name == "x-real-ip");
}

}  // namespace

std::string traffic_token(const store::Sandbox& sandbox) {
  if (sandbox.access_token.empty()) return {};
  return to_hex(net::hmac_sha256(sandbox.access_token, kTrafficTokenPurpose));
}

std::optional<net::Headers> preflight_answer(const net::RequestHead& head, std::uint16_t port,
                                             const store::Sandbox& sandbox) {
  const bool wants_token = port == kEnvdPort || !sandbox.public_traffic;
  const std::string method(head.headers.get("Access-Control-Request-Method"));
  if (!wants_token || head.method != "OPTIONS" || !head.headers.has("Origin") || method.empty())
    return std::nullopt;
  net::Headers headers;
  headers.set("Access-Control-Allow-Origin", "*");
  headers.set("Access-Control-Allow-Methods", method);
  const std::string asked(head.headers.get("Access-Control-Request-Headers"));
  if (!asked.empty()) headers.set("Access-Control-Allow-Headers", asked);
  headers.set("Access-Control-Max-Age", kPreflightSeconds);
  return headers;
}

Result<> check_access(const net::RequestHead& head, std::uint16_t port, const store::Sandbox& sandbox) {
  if (port == kEnvdPort) {
    if (is_host_route(head.path())) return fail(Code::kNotFound, "no such route");
    return {};  // envd checks its token itself
  }
  if (sandbox.public_traffic) return {};
  const std::string token = traffic_token(sandbox);
  if (!token.empty() && equal_constant_time(head.headers.get(kTrafficTokenHeader), token)) return {};
  return fail(Code::kPermissionDenied,
              "This port is not public: send the sandbox's traffic_access_token in E2B-Traffic-Access-Token");
}

Result<> check_may_wake(const net::RequestHead& head, std::uint16_t port, const store::Sandbox& sandbox) {
  if (port != kEnvdPort) return {};
  const std::string path = normalized(head.path());
  const bool open = path == "/health" || (path == "/files" && head.query("signature"));
  const std::string_view given = head.headers.get(kAccessTokenHeader);
  if (open || sandbox.access_token.empty() || equal_constant_time(given, sandbox.access_token)) return {};
  return fail(Code::kUnauthenticated, "X-Access-Token is missing or wrong");
}

net::Headers headers_for_guest(const net::Headers& asked, std::uint16_t port, const Caller& caller) {
  net::Headers out;
  for (const auto& [name, value] : net::end_to_end(asked).all()) {
    const std::string lower = ascii_lower(name);
    if (!is_credential(lower, port) && !is_claim(lower, caller)) out.add(name, value);
  }
  out.set("X-Forwarded-For", caller.forwarded_for);
  out.set("X-Forwarded-Host", caller.host);
  out.set("X-Forwarded-Proto", caller.proto);
  return out;
}

}  // namespace wrenn::control
