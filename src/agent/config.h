#pragma once

#include <functional>
#include <optional>
#include <string>

#include "async/blocking.h"
#include "base/log.h"
#include "net/http.h"
#include "sandbox/context.h"

// The agent's settings, all from the environment (.env.example).
namespace wrenn::agent {

struct AgentConfig {
  sandbox::Config sandbox;
  net::Endpoint listen;
  std::optional<net::TlsFiles> tls;
  // Empty only with mutual TLS.
  std::string secret;
  log::Level log_level = log::Level::kInfo;
};

using Getenv = std::function<std::optional<std::string>(const std::string& name)>;

// Refuses settings that would let strangers in: an address other than loopback without TLS, TLS without a CA
// for clients and without a secret, a short secret. Makes AGENT_SHARED_SECRET_FILE with a random secret if it
// is not there.
Result<AgentConfig> read_config(async::Blocking blocking, const Getenv& getenv);
// The process's environment.
std::optional<std::string> process_env(const std::string& name);

// ":50051" and "localhost:50051" are loopback here; only an explicit address opens the agent to a network.
Result<net::Endpoint> listen_endpoint(const std::string& text);
bool is_loopback(const net::Endpoint& endpoint);

// The secret in `path`, made there (mode 0600) if there is no such file. Two programs may call it at once.
Result<std::string> load_or_make_secret(async::Blocking blocking, const std::string& path);

}  // namespace wrenn::agent
