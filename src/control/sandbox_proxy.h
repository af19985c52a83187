#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "control/sandbox_service.h"
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
  // `secret`: what the agent wants to see; empty with mutual TLS.
  SandboxProxy(SandboxService* service, std::shared_ptr<net::HttpClient> http, net::Endpoint agent,
               std::string secret, std::string domain);

  // Whether a request that came to the API is for a sandbox, by its Host alone.
  bool claims(const net::RequestHead& head) const;
  Task<> handle(std::shared_ptr<net::Exchange> exchange);

 private:
  Task<> pass(std::shared_ptr<net::Exchange> exchange, TrafficTarget target);
  // Running when it returns well.
  Task<store::Sandbox> awake(TrafficTarget target);
  Result<> check_access(const net::RequestHead& head, const TrafficTarget& target,
                        const store::Sandbox& sandbox) const;

  SandboxService* service_;
  std::shared_ptr<net::HttpClient> http_;
  net::Endpoint agent_;
  std::string secret_;
  std::string domain_;
};

}  // namespace wrenn::control
