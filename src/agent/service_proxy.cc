// Traffic to the ports of a guest.
#include <fmt/format.h>

#include <charconv>

#include "agent/limits.h"
#include "agent/service.h"
#include "net/forward.h"

namespace wrenn::agent {
namespace {

using sandbox::RunningGuest;
using ExchangePtr = std::shared_ptr<net::Exchange>;

constexpr const char* kErrorHeader = "X-Wrenn-Error";

struct ProxyTarget {
  std::string sandbox_id;
  std::uint16_t port = 0;
  std::string target;  // as the guest gets it
};

Result<ProxyTarget> parse_target(std::string_view target) {
  target.remove_prefix(kProxyPrefix.size());
  const std::size_t slash = target.find('/');
  const auto malformed = [] { return fail(Code::kInvalidArgument, "the path must be /proxy/ID/PORT/..."); };
  if (slash == std::string_view::npos) return malformed();
  ProxyTarget out;
  out.sandbox_id = target.substr(0, slash);
  target.remove_prefix(slash + 1);
  const auto [end, ec] = std::from_chars(target.data(), target.data() + target.size(), out.port);
  if (ec != std::errc() || out.port == 0) return malformed();
  out.target = target.substr(static_cast<std::size_t>(end - target.data()));
  if (!out.target.starts_with('/')) return malformed();
  return out;
}

Task<> attempt(net::Endpoint endpoint, ExchangePtr exchange, net::RequestHead head, net::HttpClient* http) {
  // A guest must not pass for us.
  const auto check = [](const net::ResponseHead& answer) -> std::optional<Error> {
    if (!answer.headers.has(kErrorHeader)) return std::nullopt;
    return Error(Code::kInternal, "the answer carries a header that is ours");
  };
  co_return co_await net::forward(std::move(exchange), http, std::move(endpoint), std::move(head), check);
}

Task<> proxy_body(RunningGuest guest, ExchangePtr exchange, net::RequestHead head, std::uint16_t port,
                  net::HttpClient* http) {
  // All tries are for the guest that the request was admitted to.
  net::Endpoint endpoint;
  endpoint.host = guest.host_ip;
  endpoint.port = port;
  for (int tries = 1;; ++tries) {
    Result<> done = co_await attempt(endpoint, exchange, head, http);
    const bool closed = !done && done.error().reason() == "connect_failed";
    if (!closed) co_return done;
    if (tries == kConnectTries) {
      co_return fail(Error(Code::kUnavailable, "nothing listens on port " + std::to_string(port))
                         .with_reason("port_closed"));
    }
    CO_TRY(co_await async::sleep_for(kConnectPause));
  }
}

Task<> refuse(ExchangePtr exchange, Error error) {
  net::Headers headers;
  headers.set(kErrorHeader, fmt::format("{} {}", code_name(error.code()), error.reason()));
  headers.set("Content-Type", "text/plain; charset=utf-8");
  constexpr int kBadGateway = 502;
  co_return co_await exchange->respond(kBadGateway, std::move(headers), error.message());
}

}  // namespace

// One of the requests under way to guests' ports.
class Service::ProxyPlace {
 public:
  static Result<ProxyPlace> take(Service* service, const std::string& sandbox_id) {
    const auto of_this = service->proxied_of_.find(sandbox_id);
    const bool own_full = of_this != service->proxied_of_.end() && of_this->second >= kMaxProxiedOfSandbox;
    if (own_full || service->proxied_ >= kMaxProxied) {
      return fail(Error(Code::kResourceExhausted, own_full
                                                      ? "too many requests to ports of this sandbox at a time"
                                                      : "too many requests to ports of sandboxes at a time")
                      .with_reason("too_many_requests"));
    }
    return ProxyPlace(service, sandbox_id);
  }
  ProxyPlace(ProxyPlace&& other) noexcept
      : service_(std::exchange(other.service_, nullptr)), sandbox_id_(std::move(other.sandbox_id_)) {}
  ProxyPlace& operator=(ProxyPlace&&) = delete;
  ~ProxyPlace() {
    if (service_ == nullptr) return;
    --service_->proxied_;
    const auto of_this = service_->proxied_of_.find(sandbox_id_);
    if (--of_this->second == 0) service_->proxied_of_.erase(of_this);
  }

 private:
  ProxyPlace(Service* service, std::string sandbox_id)
      : service_(service), sandbox_id_(std::move(sandbox_id)) {
    ++service_->proxied_;
    ++service_->proxied_of_[sandbox_id_];
  }

  Service* service_;
  std::string sandbox_id_;
};

Task<> Service::proxy(std::shared_ptr<net::Exchange> exchange) {
  const auto forwarded = [](Service* self, ExchangePtr each) -> Task<> {
    net::RequestHead head = each->request();
    const ProxyTarget target = CO_TRY(parse_target(head.target));
    head.target = target.target;
    head.headers = net::end_to_end(head.headers);
    const auto sandbox = CO_TRY(self->manager_->find(target.sandbox_id));
    const auto place = CO_TRY(ProxyPlace::take(self, target.sandbox_id));
    co_return co_await sandbox->operate(proxy_body, each, std::move(head), target.port, &self->ports_);
  };
  Result<> done = co_await forwarded(this, exchange);
  if (done || exchange->started()) co_return done;
  co_return co_await refuse(exchange, done.error());
}

}  // namespace wrenn::agent
