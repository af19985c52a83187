#pragma once

#include <memory>

#include "net/http.h"

namespace wrenn::envd {

// The guest agent's HTTP server: GET /health, /metrics and /envs; /files and /files/compose; the Connect
// services process.Process and filesystem.Filesystem; and for the host POST /init, /quiesce, /freeze and
// /unfreeze.
class App {
 public:
  // `cgroup_root`: where processes get their cgroups; empty: they get none.
  App(asio::any_io_executor executor, asio::thread_pool* pool, std::string cgroup_root = "");
  ~App();
  Result<net::Endpoint> listen(const net::Endpoint& endpoint);
  // Serves until cancelled; then ends every process it started.
  Task<> run();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace wrenn::envd
