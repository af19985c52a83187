#include "control/sandbox_proxy.h"

#include <fmt/format.h>

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <charconv>

#include "base/bytes.h"
#include "base/log.h"
#include "control/api_error.h"
#include "control/guest_traffic.h"
#include "control/limits.h"
#include "control/request_id.h"
#include "net/forward.h"

namespace wrenn::control {
namespace {

using ExchangePtr = std::shared_ptr<net::Exchange>;
using store::Sandbox;

bool is_up(const Sandbox& row) {
  return row.transition == model::Transition::kNone && row.status == model::Status::kRunning;
}

// It is worth waiting for it, or waking it.
bool may_come_up(const Sandbox& row) {
  const bool settled = row.transition == model::Transition::kNone;
  return row.auto_resume && row.transition != model::Transition::kDestroying &&
         (row.status == model::Status::kPaused || !settled);
}

constexpr const char* kErrorHeader = "X-Wrenn-Error";

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

// The agent's own answer, told from the guest's by its header.
std::optional<Error> agent_error(const net::ResponseHead& head) {
  const std::string_view text = head.headers.get(kErrorHeader);
  if (text.empty()) return std::nullopt;
  const std::size_t space = text.find(' ');
  const std::string reason(space == std::string_view::npos ? "" : text.substr(space + 1));
  if (reason == "port_closed") return port_closed();
  const Code code = code_from_name(text.substr(0, space));
  if (code == Code::kNotFound || reason == "not_running" || reason == "sandbox_paused" ||
      reason == "sandbox_stopped") {
    return not_reachable(reason);
  }
  if (reason == "too_many_requests") return Error(code, std::string(text)).with_reason(reason);
  return Error(code, "the host refused: " + std::string(text)).with_reason("agent_error");
}

bool wants_page(const net::RequestHead& head) {
  return head.headers.get("accept").find("text/html") != std::string_view::npos;
}

Task<> refuse(ExchangePtr exchange, TrafficTarget target, PublicError error, std::string request_id) {
  net::Headers headers;
  headers.set("Cache-Control", "no-store");
  headers.set("X-Request-Id", std::move(request_id));
  if (error.retry_after_sec() > 0) headers.set("Retry-After", std::to_string(error.retry_after_sec()));
  if (wants_page(exchange->request())) {
    headers.set("Content-Type", "text/html; charset=utf-8");
    // Neither id nor port can hold what HTML would take for markup, and the messages are ours.
    const std::string page =
        fmt::format("<!doctype html><title>{0}</title><h1>{0}</h1><p>Sandbox {1}, port {2}</p>\n",
                    error.message(), target.sandbox_id, target.port);
    co_return co_await exchange->respond(error.status(), std::move(headers), page);
  }
  headers.set("Content-Type", "application/json");
  const boost::json::object body{{"sandboxId", target.sandbox_id},
                                 {"message", error.message()},
                                 {"port", target.port},
                                 {"code", error.status()}};
  co_return co_await exchange->respond(error.status(), std::move(headers), boost::json::serialize(body));
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

SandboxProxy::SandboxProxy(const asio::any_io_executor& executor, store::Store* store,
                           SandboxService* service, std::shared_ptr<net::HttpClient> http,
                           const Settings& settings)
    : service_(service),
      http_(std::move(http)),
      agent_(settings.agent),
      secret_(settings.agent_secret),
      domain_(settings.domain),
      proxies_(settings.proxies),
      sandboxes_(executor,
                 [store](std::vector<std::string> ids) { return store->find_sandboxes(std::move(ids)); }),
      wakes_(executor, kMaxWakes) {}

bool SandboxProxy::claims(const net::RequestHead& head) const {
  return target_of_host(head.headers.get("host"), domain_).has_value();
}

asio::awaitable<void> SandboxProxy::stop() {
  co_await wakes_.stop();
  co_await sandboxes_.stop();
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
  const std::string request_id = request_id_of(exchange->request());
  const PublicError told(done.error());
  if (told.is_failure()) {
    log::warn("traffic to {}:{}: {} (request {})", target->sandbox_id, target->port, done.error().to_string(),
              request_id);
  }
  co_return co_await refuse(exchange, *target, told, request_id);
}

Task<Sandbox> SandboxProxy::find(std::string sandbox_id) {
  auto row = CO_TRY(co_await sandboxes_.find(std::move(sandbox_id)));
  if (!row) co_return fail(not_reachable("unknown"));
  co_return *std::move(row);
}

Task<> SandboxProxy::wake(std::string sandbox_id) {
  const auto give_up = std::chrono::steady_clock::now() + kWakeDeadline;
  while (true) {
    const Sandbox row = CO_TRY(co_await find(sandbox_id));
    if (is_up(row)) co_return Result<>{};
    if (!may_come_up(row)) co_return fail(not_reachable(std::string(model::status_name(row.status))));
    if (row.transition == model::Transition::kNone) {
      auto resumed = co_await service_->resume(row.team_id, row.id);
      if (resumed) co_return Result<>{};
      const std::string& reason = resumed.error().reason();
      if (reason != "busy" && reason != "invalid_state") co_return fail(std::move(resumed).error());
    }
    if (std::chrono::steady_clock::now() > give_up) {
      co_return fail(
          Error(Code::kFailedPrecondition, "The sandbox is changing its state").with_reason("busy"));
    }
    CO_TRY(co_await async::sleep_for(kWakePause));
  }
}

Task<> SandboxProxy::pass(ExchangePtr exchange, TrafficTarget target) {
  const net::RequestHead& asked = exchange->request();
  const Sandbox known = CO_TRY(co_await find(target.sandbox_id));
  if (auto preflight = preflight_answer(asked, target.port, known)) {
    co_return co_await exchange->respond(204, *std::move(preflight), "");
  }
  // Refused before it could wake anybody.
  CO_TRY(check_access(asked, target.port, known));
  if (!is_up(known)) {
    if (!may_come_up(known)) co_return fail(not_reachable(std::string(model::status_name(known.status))));
    CO_TRY(check_may_wake(asked, target.port, known));
    CO_TRY(co_await wakes_.join(known.id, [this, id = known.id] { return wake(id); }));
  }
  service_->note_activity(target.sandbox_id);
  net::RequestHead head = asked;
  head.target = fmt::format("/proxy/{}/{}{}", target.sandbox_id, target.port, asked.target);
  head.headers = headers_for_guest(asked.headers, target.port, proxies_.caller_of(asked, exchange->peer()));
  if (!secret_.empty()) head.headers.set("Proxy-Authorization", "Bearer " + secret_);
  auto done = co_await net::forward(exchange, http_.get(), agent_, std::move(head), agent_error);
  service_->note_activity(target.sandbox_id);
  if (!done) co_return fail(from_agent(std::move(done).error()));
  co_return done;
}

}  // namespace wrenn::control
