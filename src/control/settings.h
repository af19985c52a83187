#pragma once

#include <functional>
#include <optional>
#include <string>

#include "async/blocking.h"
#include "base/log.h"
#include "control/client_address.h"
#include "net/http.h"

namespace wrenn::control {

using Getenv = std::function<std::optional<std::string>(const std::string&)>;
std::optional<std::string> process_env(const std::string& name);

struct Settings {
  std::string database_url;
  net::Endpoint listen;
  std::optional<net::Endpoint> proxy_listen;  // traffic to sandboxes only
  std::string domain = "localhost";           // of <port>-<id>.<domain>
  TrustedProxies proxies;                     // whose word on clients' addresses is believed
  net::Endpoint agent;
  std::string agent_secret;  // empty with mutual TLS
  std::optional<net::TlsFiles> agent_tls;
  log::Level log_level = log::Level::kInfo;
};

// From the environment; see .env.example. kInvalidArgument names the variable that is wrong.
Result<Settings> read_settings(async::Blocking blocking, const Getenv& getenv);

// The secret in a file of mode 0600, made at random if it is missing: whoever of control plane and agent
// starts first makes it.
Result<std::string> load_or_make_secret(async::Blocking blocking, const std::string& path);

}  // namespace wrenn::control
