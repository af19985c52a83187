#pragma once

#include <memory>

#include "net/http.h"

namespace wrenn::envd {

// The guest agent's HTTP server: GET /health, POST /init, GET /envs, POST /quiesce, GET and POST /files, and
// the Connect services process.Process and filesystem.Filesystem.
class App {
 public:
  App(asio::any_io_executor executor, asio::thread_pool* pool);
  ~App();
  Result<net::Endpoint> listen(const net::Endpoint& endpoint);
  // Serves until cancelled; then ends every process it started.
  Task<> run();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace wrenn::envd
