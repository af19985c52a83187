#include "envd/app.h"

#include <fcntl.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <charconv>

#include "base/bytes.h"
#include "base/log.h"
#include "connect/connect.h"
#include "envd/files_route.h"
#include "envd/filesystem_service.h"
#include "envd/init_route.h"
#include "envd/limits.h"
#include "envd/metrics_route.h"
#include "envd/process_service.h"
#include "envd/watch_service.h"
#include "model/limits.h"
#include "sys/fd.h"

namespace wrenn::envd {
namespace {

// Only the sandbox's own disk: sync(2) would wait for whatever else a guest has mounted, for ever where that
// is a file system of its own making that does not answer.
void sync_disk(async::Blocking /*blocking*/) {
  const sys::Fd root(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid() || ::syncfs(root.get()) != 0) log::warn("sync: {}", fail_errno("/").error().to_string());
}

using ExchangePtr = std::shared_ptr<net::Exchange>;

net::Headers json_headers() {
  net::Headers headers;
  headers.set("Content-Type", "application/json");
  return headers;
}

}  // namespace

struct App::State {
  State(asio::any_io_executor executor, asio::thread_pool* workers, std::string cgroup_root)
      : pool(workers),
        groups(std::move(cgroup_root)),
        processes(executor, &groups),
        watches(executor, workers, &settings),
        tasks(executor),
        server(executor, [this](ExchangePtr e) { return handle(std::move(e)); }) {
    serve_processes(&router, pool, &processes, &settings);
    serve_filesystem(&router, pool, &settings);
    watches.serve(&router);
  }

  asio::thread_pool* pool;
  Settings settings;
  ProcessGroups groups;
  ProcessTable processes;
  WatchService watches;
  Metrics metrics;
  async::Nursery tasks;
  std::uint64_t freezes = 0;
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
    if (path == "/init" && method == "POST") co_return co_await serve_init(exchange, &settings, &groups);
    // It checks the token itself, or a signature in its place.
    if (path == "/files" && (method == "GET" || method == "POST")) {
      co_return co_await serve_file(exchange, pool, &settings);
    }
    if (!authorized(*exchange)) {
      co_return co_await respond_error(exchange,
                                       Error(Code::kUnauthenticated, "X-Access-Token is missing or wrong"));
    }
    if (path == "/files/compose" && method == "POST") {
      co_return co_await serve_file(exchange, pool, &settings);
    }
    if (path == "/envs" && method == "GET") co_return co_await serve_envs(exchange);
    if (path == "/metrics" && method == "GET") co_return co_await metrics.serve(exchange);
    if (path == "/quiesce" && method == "POST") co_return co_await quiesce(exchange);
    if (path == "/freeze" && method == "POST") co_return co_await freeze(exchange);
    if (path == "/unfreeze" && method == "POST") co_return co_await unfreeze(exchange);
    if (router.knows(path)) co_return co_await router.handle(exchange);
    co_return co_await respond_error(exchange, Error(Code::kNotFound, "no such route"));
  }

  Task<> serve_envs(ExchangePtr exchange) {
    boost::json::object envs;
    for (const auto& [name, value] : settings.envs) envs[name] = value;
    co_return co_await exchange->respond(200, json_headers(), boost::json::serialize(envs));
  }

  // Before a pause: processes stand still, so that after the resume none runs before /init has renewed clock
  // and randomness; and what they wrote reaches the disk.
  Task<> quiesce(ExchangePtr exchange) {
    const auto asked = begin_freeze();
    CO_TRY(co_await async::offload(*pool, [asked](async::Blocking blocking) -> Result<> {
      const int frozen = ProcessGroups::count_frozen(blocking, asked, kFreezeLimit);
      if (frozen < static_cast<int>(asked.size())) log::warn("a process does not stop for the pause");
      sync_disk(blocking);
      return {};
    }));
    net::Headers headers;
    if (const auto free = free_memory()) headers.set("X-Envd-Memory-Free", std::to_string(*free));
    co_return co_await exchange->respond(204, std::move(headers), "");
  }

  std::vector<std::string> begin_freeze() {
    auto asked = groups.freeze();
    tasks.spawn("freeze watchdog", thaw_later(++freezes));
    return asked;
  }

  Task<> thaw_later(std::uint64_t freeze_number) {
    CO_TRY(co_await async::sleep_for(model::kGuestFreezeLimit));
    if (!groups.frozen() || freezes != freeze_number) co_return Result<>{};
    log::warn("still frozen, and nobody came: processes go on");
    co_return groups.thaw();
  }

  // With maxWaitMs waits until the processes stand still, and says how many groups did.
  Task<> freeze(ExchangePtr exchange) {
    const std::string text = exchange->request().query("maxWaitMs").value_or("");
    std::int64_t wait_ms = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), wait_ms);
    if (!text.empty() && (ec != std::errc() || end != text.data() + text.size())) {
      co_return co_await respond_error(exchange, Error(Code::kInvalidArgument, "maxWaitMs must be a number"));
    }
    const auto asked = begin_freeze();
    if (wait_ms <= 0) co_return co_await exchange->respond(204, {}, "");
    const Milliseconds limit = std::min(Milliseconds(wait_ms), kMaxFreezeWait);
    const int frozen =
        CO_TRY(co_await async::offload(*pool, [asked, limit](async::Blocking blocking) -> Result<int> {
          return ProcessGroups::count_frozen(blocking, asked, limit);
        }));
    const boost::json::object counts{
        {"frozen", frozen}, {"unconfirmed", static_cast<int>(asked.size()) - frozen}, {"mode", "legacy"}};
    co_return co_await exchange->respond(200, json_headers(), boost::json::serialize(counts));
  }

  Task<> unfreeze(ExchangePtr exchange) {
    const Result<> thawed = groups.thaw();
    if (!thawed) co_return co_await respond_error(exchange, thawed.error());
    co_return co_await exchange->respond(204, {}, "");
  }
};

App::App(asio::any_io_executor executor, asio::thread_pool* pool, std::string cgroup_root)
    : state_(std::make_unique<State>(std::move(executor), pool, std::move(cgroup_root))) {}

App::~App() = default;

Result<net::Endpoint> App::listen(const net::Endpoint& endpoint) { return state_->server.listen(endpoint); }

Task<> App::run() {
  const Result<> served = co_await state_->server.serve();
  co_await state_->tasks.cancel_and_join();
  co_await state_->watches.shutdown();
  const Result<> thawed = state_->groups.thaw();
  if (!thawed) log::warn("{}", thawed.error().to_string());
  co_await state_->processes.shutdown();
  co_return served;
}

}  // namespace wrenn::envd
