#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "control/batched_lookup.h"
#include "control/client_address.h"
#include "control/sandbox_service.h"
#include "control/settings.h"
#include "control/shared_calls.h"
#include "net/http.h"

namespace wrenn::control {

// Where a request for a sandbox's port goes.
struct TrafficTarget {
  std::string sandbox_id;
  std::uint16_t port = 0;
  bool operator==(const TrafficTarget&) const = default;
};

// By Host: <port>-<id>.<domain>, else by E2b-Sandbox-Id and E2b-Sandbox-Port (49983 without). Nullopt for a
// request to no sandbox.
std::optional<TrafficTarget> traffic_target(const net::RequestHead& head, const std::string& domain);

// Traffic to the ports of sandboxes: HTTP/1.1 with streamed bodies, WebSockets and what else upgrades. Counts
// as activity and, where the sandbox wants it, wakes it.
class SandboxProxy {
 public:
  SandboxProxy(const asio::any_io_executor& executor, store::Store* store, SandboxService* service,
               std::shared_ptr<net::HttpClient> http, const Settings& settings);

  // Whether a request that came to the API is for a sandbox, by its Host alone.
  bool claims(const net::RequestHead& head) const;
  Task<> handle(std::shared_ptr<net::Exchange> exchange);
  // Once no request runs any more.
  asio::awaitable<void> stop();

 private:
  Task<> pass(std::shared_ptr<net::Exchange> exchange, TrafficTarget target);
  Task<store::Sandbox> find(std::string sandbox_id);
  // Running when it returns well. One attempt serves all requests that wait for the sandbox.
  Task<> wake(std::string sandbox_id);

  SandboxService* service_;
  std::shared_ptr<net::HttpClient> http_;
  net::Endpoint agent_;
  std::string secret_;
  std::string domain_;
  TrustedProxies proxies_;
  BatchedLookup<store::Sandbox> sandboxes_;
  SharedCalls<void> wakes_;
};

}  // namespace wrenn::control
