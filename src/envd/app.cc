#include "envd/app.h"

#include <unistd.h>

#include <boost/json.hpp>

#include "base/bytes.h"
#include "connect/connect.h"
#include "envd/files_route.h"
#include "envd/filesystem_service.h"
#include "envd/init_route.h"
#include "envd/limits.h"
#include "envd/process_service.h"

namespace wrenn::envd {
namespace {

using ExchangePtr = std::shared_ptr<net::Exchange>;

net::Headers json_headers() {
  net::Headers headers;
  headers.set("Content-Type", "application/json");
  return headers;
}

}  // namespace

struct App::State {
  State(asio::any_io_executor executor, asio::thread_pool* workers)
      : pool(workers),
        processes(executor),
        server(executor, [this](ExchangePtr e) { return handle(std::move(e)); }) {
    serve_processes(&router, &processes, &settings);
    serve_filesystem(&router, pool, &settings);
  }

  asio::thread_pool* pool;
  Settings settings;
  ProcessTable processes;
  connect::Router router;
  net::HttpServer server;

  bool authorized(const net::Exchange& exchange) const {
    return settings.access_token.empty() ||
           equal_constant_time(exchange.request().headers.get("x-access-token"), settings.access_token);
  }

  Task<> handle(ExchangePtr exchange) {
    const std::string& method = exchange->request().method;
    const std::string path = exchange->request().path();
    if (path == "/health" && method == "GET") co_return co_await exchange->respond(204, {}, "");
    if (path == "/init" && method == "POST") co_return co_await serve_init(exchange, &settings);
    if (!authorized(*exchange)) {
      co_return co_await respond_error(exchange,
                                       Error(Code::kUnauthenticated, "X-Access-Token is missing or wrong"));
    }
    if (path == "/files" && (method == "GET" || method == "POST")) {
      co_return co_await serve_file(exchange, pool, &settings);
    }
    if (path == "/envs" && method == "GET") co_return co_await serve_envs(exchange);
    if (path == "/quiesce" && method == "POST") co_return co_await quiesce(exchange);
    if (router.knows(path)) co_return co_await router.handle(exchange);
    co_return co_await respond_error(exchange, Error(Code::kNotFound, "no such route"));
  }

  Task<> serve_envs(ExchangePtr exchange) {
    boost::json::object envs;
    for (const auto& [name, value] : settings.envs) envs[name] = value;
    co_return co_await exchange->respond(200, json_headers(), boost::json::serialize(envs));
  }

  // What the guest has written reaches its disk before the snapshot of memory and disk is taken.
  Task<> quiesce(ExchangePtr exchange) {
    CO_TRY(co_await async::offload(*pool, []() -> Result<> {
      ::sync();
      return {};
    }));
    co_return co_await exchange->respond(204, {}, "");
  }
};

App::App(asio::any_io_executor executor, asio::thread_pool* pool)
    : state_(std::make_unique<State>(std::move(executor), pool)) {}

App::~App() = default;

Result<net::Endpoint> App::listen(const net::Endpoint& endpoint) { return state_->server.listen(endpoint); }

Task<> App::run() {
  const Result<> served = co_await state_->server.serve();
  co_await state_->processes.shutdown();
  co_return served;
}

}  // namespace wrenn::envd
