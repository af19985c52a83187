#pragma once

#include <gtest/gtest.h>

#include <functional>

#include "net/connection.h"
#include "net/http.h"

// For tests inside src/net: servers on ports of their own, and a client that sends bytes as they are.
namespace wrenn::net {

// Runs `script` while every handler is served; `places` are theirs, in the same order.
struct Served {
  async::Loop* loop = nullptr;
  std::vector<Endpoint> places;
};
using Script = std::function<Task<>(Served)>;

inline Task<> run_served(Served served, std::vector<std::unique_ptr<HttpServer>>* servers, Script script) {
  async::Nursery nursery(served.loop->executor());
  for (auto& server : *servers) nursery.spawn("server", server->serve(Milliseconds(200)));
  const Result<> done =
      co_await async::with_timeout(script(std::move(served)), Milliseconds(30'000), "the test");
  EXPECT_TRUE(done) << done.error().to_string();
  co_await nursery.cancel_and_join();
  co_return Result<>{};
}

inline void serving(const std::vector<Handler>& handlers, Script script, ServerOptions options = {}) {
  async::Loop loop(1);
  Served served{.loop = &loop, .places = {}};
  std::vector<std::unique_ptr<HttpServer>> servers;
  for (const Handler& handler : handlers) {
    servers.push_back(std::make_unique<HttpServer>(loop.executor(), handler, options));
    served.places.push_back(servers.back()->listen(Endpoint{.host = "127.0.0.1"}).value());
  }
  EXPECT_TRUE(loop.run_plain(run_served(std::move(served), &servers, std::move(script))));
}

inline Task<std::shared_ptr<Connection>> raw_connection(Endpoint at) {
  co_return std::make_shared<Connection>(CO_TRY(co_await connect_stream(std::move(at))));
}

inline Task<> send_raw(std::shared_ptr<Connection> connection, std::string bytes) {
  co_return co_await connection->stream.write({asio::buffer(bytes)});
}

// What comes until the server ends the connection.
inline Task<std::string> read_to_end(std::shared_ptr<Connection> connection) {
  while (CO_TRY(co_await connection->fill())) {
  }
  co_return std::string(connection->input.view());
}

// What comes until it ends with `last`.
inline Task<std::string> read_up_to(std::shared_ptr<Connection> connection, std::string last) {
  while (!connection->input.view().ends_with(last)) {
    if (!CO_TRY(co_await connection->fill())) co_return fail(Code::kUnavailable, "ended too early");
  }
  std::string got(connection->input.view());
  connection->input.consume(got.size());
  co_return got;
}

inline Task<std::string> talk(Endpoint at, std::string bytes) {
  const auto connection = CO_TRY(co_await raw_connection(std::move(at)));
  CO_TRY(co_await send_raw(connection, std::move(bytes)));
  co_return co_await read_to_end(connection);
}

}  // namespace wrenn::net
