#include "control/sandbox_proxy.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <charconv>

#include "base/bytes.h"
#include "base/log.h"
#include "control/api_error.h"
#include "control/limits.h"
#include "net/forward.h"

namespace wrenn::control {
namespace {

using ExchangePtr = std::shared_ptr<net::Exchange>;

constexpr std::uint16_t kEnvdPort = 49983;
// envd's routes for its host: from outside they do not exist.
constexpr std::array<std::string_view, 8> kHostRoutes = {"/init",     "/quiesce",  "/freeze", "/unfreeze",
                                                         "/collapse", "/fsfreeze", "/fsthaw", "/upgrade"};
constexpr const char* kErrorHeader = "X-Wrenn-Error";
// Clients of E2B look for these words.
constexpr const char* kNotFoundText = "The sandbox was not found";
constexpr const char* kPortClosedText = "The sandbox is running but port is not open";

std::optional<std::uint16_t> parse_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (text.empty() || ec != std::errc() || end != text.data() + text.size() || port == 0) return std::nullopt;
  return port;
}

// "8080-sb-abc.example.com:443" in the domain "example.com".
std::optional<TrafficTarget> target_of_host(std::string_view host, const std::string& domain) {
  const std::size_t colon = host.rfind(':');
  if (colon != std::string_view::npos && host.find(']') == std::string_view::npos)
    host = host.substr(0, colon);
  const std::string name = ascii_lower(host);
  const std::size_t dot = name.find('.');
  if (dot == std::string::npos || name.substr(dot + 1) != domain) return std::nullopt;
  const std::size_t dash = name.find('-');
  if (dash == std::string::npos || dash > dot) return std::nullopt;
  const auto port = parse_port(std::string_view(name).substr(0, dash));
  std::string id = name.substr(dash + 1, dot - dash - 1);
  if (!port || !model::is_sandbox_id(id)) return std::nullopt;
  return TrafficTarget{std::move(id), *port};
}

std::string normalized(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  while (path.starts_with("//")) path.erase(0, 1);
  return path;
}

bool is_host_route(const std::string& path) {
  return std::ranges::find(kHostRoutes, normalized(path)) != kHostRoutes.end();
}

Error not_found(std::string why) {
  return Error(Code::kUnavailable, kNotFoundText).with_reason(std::move(why));
}

// The agent's own answer, told from the guest's by its header.
std::optional<Error> agent_error(const net::ResponseHead& head) {
  const std::string_view text = head.headers.get(kErrorHeader);
  if (text.empty()) return std::nullopt;
  const std::size_t space = text.find(' ');
  const std::string reason(space == std::string_view::npos ? "" : text.substr(space + 1));
  if (reason == "port_closed") return Error(Code::kUnavailable, kPortClosedText).with_reason(reason);
  const Code code = code_from_name(text.substr(0, space));
  if (code == Code::kNotFound || reason == "not_running" || reason == "sandbox_paused" ||
      reason == "sandbox_stopped") {
    return not_found(reason);
  }
  return Error(code, "the sandbox's host failed").with_reason("agent_error");
}

int status_of(const Error& error) {
  const std::string& reason = error.reason();
  if (error.message() == kNotFoundText || reason == "port_closed" || reason == "connect_failed") return 502;
  return to_api_error(error).status;
}

bool wants_page(const net::RequestHead& head) {
  return head.headers.get("accept").find("text/html") != std::string_view::npos;
}

Task<> refuse(ExchangePtr exchange, TrafficTarget target, Error error) {
  const int status = status_of(error);
  net::Headers headers;
  headers.set("Cache-Control", "no-store");
  if (wants_page(exchange->request())) {
    headers.set("Content-Type", "text/html; charset=utf-8");
    // Neither id nor port can hold what HTML would take for markup, and the messages are ours.
    const std::string page =
        fmt::format("<!doctype html><title>{0}</title><h1>{0}</h1><p>Sandbox {1}, port {2}</p>\n",
                    error.message(), target.sandbox_id, target.port);
    co_return co_await exchange->respond(status, std::move(headers), page);
  }
  headers.set("Content-Type", "application/json");
  const boost::json::object body{{"sandboxId", target.sandbox_id},
                                 {"message", error.message()},
                                 {"port", target.port},
                                 {"code", status}};
  co_return co_await exchange->respond(status, std::move(headers), boost::json::serialize(body));
}

}  // namespace

std::optional<TrafficTarget> traffic_target(const net::RequestHead& head, const std::string& domain) {
  if (auto target = target_of_host(head.headers.get("host"), domain)) return target;
  std::string id(head.headers.get("e2b-sandbox-id"));
  if (!model::is_sandbox_id(id)) return std::nullopt;
  if (!head.headers.has("e2b-sandbox-port")) return TrafficTarget{std::move(id), kEnvdPort};
  const auto port = parse_port(head.headers.get("e2b-sandbox-port"));
  if (!port) return std::nullopt;
  return TrafficTarget{std::move(id), *port};
}

SandboxProxy::SandboxProxy(SandboxService* service, std::shared_ptr<net::HttpClient> http,
                           net::Endpoint agent, std::string secret, std::string domain)
    : service_(service),
      http_(std::move(http)),
      agent_(std::move(agent)),
      secret_(std::move(secret)),
      domain_(std::move(domain)) {}

bool SandboxProxy::claims(const net::RequestHead& head) const {
  return target_of_host(head.headers.get("host"), domain_).has_value();
}

Task<> SandboxProxy::handle(ExchangePtr exchange) {
  const auto target = traffic_target(exchange->request(), domain_);
  if (!target) {
    net::Headers headers;
    headers.set("Content-Type", "application/json");
    co_return co_await exchange->respond(
        400, std::move(headers),
        R"({"code":400,"message":"name a sandbox: <port>-<id>.<domain> as Host, or E2b-Sandbox-Id"})");
  }
  Result<> done = co_await pass(exchange, *target);
  if (done || exchange->started() || done.error().code() == Code::kCanceled) co_return done;
  log::debug("traffic to {}:{}: {}", target->sandbox_id, target->port, done.error().to_string());
  co_return co_await refuse(exchange, *target, done.error());
}

Task<store::Sandbox> SandboxProxy::awake(TrafficTarget target) {
  using model::Status, model::Transition;
  const auto give_up = std::chrono::steady_clock::now() + kWakeDeadline;
  while (true) {
    auto row = CO_TRY(co_await service_->find(target.sandbox_id));
    if (!row) co_return fail(not_found("unknown"));
    const bool settled = row->transition == Transition::kNone;
    if (settled && row->status == Status::kRunning) co_return *std::move(row);
    const bool may_wake = row->auto_resume && (row->status == Status::kPaused || !settled);
    if (!may_wake || row->transition == Transition::kDestroying) {
      co_return fail(not_found(std::string(model::status_name(row->status))));
    }
    if (settled) {
      auto resumed = co_await service_->resume(row->team_id, row->id);
      if (resumed) co_return resumed;
      const std::string& reason = resumed.error().reason();
      if (reason != "busy" && reason != "invalid_state") co_return resumed;
    }
    if (std::chrono::steady_clock::now() > give_up) {
      co_return fail(
          Error(Code::kFailedPrecondition, "The sandbox is changing its state").with_reason("busy"));
    }
    CO_TRY(co_await async::sleep_for(kWakePause));
  }
}

Result<> SandboxProxy::check_access(const net::RequestHead& head, const TrafficTarget& target,
                                    const store::Sandbox& sandbox) const {
  if (target.port == kEnvdPort) {
    if (is_host_route(head.path())) return fail(Code::kNotFound, "no such route");
    return {};  // envd checks its token itself
  }
  if (sandbox.public_traffic) return {};
  for (const char* name : {"x-access-token", "e2b-traffic-access-token"}) {
    const std::string_view given = head.headers.get(name);
    if (!sandbox.access_token.empty() && equal_constant_time(given, sandbox.access_token)) return {};
  }
  return fail(Code::kPermissionDenied, "This port is not public: send the sandbox's token in X-Access-Token");
}

Task<> SandboxProxy::pass(ExchangePtr exchange, TrafficTarget target) {
  const net::RequestHead& asked = exchange->request();
  // Refused before it could wake anybody.
  const auto known = CO_TRY(co_await service_->find(target.sandbox_id));
  if (!known) co_return fail(not_found("unknown"));
  CO_TRY(check_access(asked, target, *known));
  CO_TRY(co_await awake(target));
  service_->note_activity(target.sandbox_id);
  net::RequestHead head = asked;
  head.target = fmt::format("/proxy/{}/{}{}", target.sandbox_id, target.port,
                            asked.target.starts_with('/') ? asked.target : "/" + asked.target);
  head.headers = net::end_to_end(asked.headers);
  const std::string peer = exchange->peer();
  head.headers.add("X-Forwarded-For", peer.substr(0, peer.rfind(':')));
  if (!head.headers.has("x-forwarded-host"))
    head.headers.set("X-Forwarded-Host", std::string(asked.headers.get("host")));
  if (!secret_.empty()) head.headers.set("Proxy-Authorization", "Bearer " + secret_);
  const Result<> done = co_await net::forward(exchange, http_.get(), agent_, std::move(head), agent_error);
  service_->note_activity(target.sandbox_id);
  co_return done;
}

}  // namespace wrenn::control
