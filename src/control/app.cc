#include "control/app.h"

#include <filesystem>

#include "base/bytes.h"
#include "control/api_key.h"
#include "control/clock.h"
#include "control/http_api.h"
#include "control/limits.h"
#include "control/reconciler.h"
#include "control/sandbox_proxy.h"

namespace wrenn::control {
namespace {

constexpr char kDefaultTeamId[] = "team-default";
constexpr Milliseconds kDatabaseStartTime{60'000};
constexpr Milliseconds kDatabaseRetryPause{1'000};

Result<std::unique_ptr<store::Store>> open_store(async::Loop* loop, const Settings& settings) {
  if (settings.database_url.find("://") == std::string::npos) {
    std::error_code ignored;  // the open below tells
    std::filesystem::create_directories(std::filesystem::path(settings.database_url).parent_path(), ignored);
  }
  return store::Store::open(settings.database_url, loop);
}

// A database that starts together with this program may need a moment.
Task<int> migrate_when_up(store::Store* store) {
  const auto give_up = std::chrono::steady_clock::now() + kDatabaseStartTime;
  while (true) {
    auto applied = co_await store->migrate();
    if (applied || applied.error().reason() != "db_unavailable" ||
        std::chrono::steady_clock::now() > give_up) {
      co_return applied;
    }
    log::warn("waiting for the database: {}", applied.error().message());
    CO_TRY(co_await async::sleep_for(kDatabaseRetryPause));
  }
}

Result<net::ClientOptions> client_options(const Settings& settings) {
  net::ClientOptions options;
  if (settings.agent.tls) options.tls = TRY(net::client_tls(settings.agent_tls.value_or(net::TlsFiles{})));
  return options;
}

// The parts of a serving control plane, wired.
class ControlPlane {
 public:
  ControlPlane(async::Loop* loop, const Settings& settings, net::ClientOptions client, store::Store* store)
      : http_(std::make_shared<net::HttpClient>(loop->executor(), std::move(client))),
        agent_(http_, settings.agent, settings.agent_secret),
        auth_(loop->executor(), store),
        service_(loop->executor(), store, &agent_),
        reconciler_(loop->executor(), store, &agent_, &service_),
        api_(loop->executor(), store, &service_, &auth_, &agent_, settings.proxies),
        proxy_(loop->executor(), store, &service_, http_, settings),
        background_(loop->executor()),
        server_(loop->executor(), [this](auto exchange) { return route(std::move(exchange)); }),
        proxy_server_(loop->executor(),
                      [this](auto exchange) { return proxy_.handle(std::move(exchange)); }) {
    service_.on_sync([this] { return reconciler_.sync(); });
  }

  Result<net::Endpoint> listen(const Settings& settings) {
    if (settings.proxy_listen) {
      const auto bound = TRY(proxy_server_.listen(*settings.proxy_listen));
      log::info("traffic to sandboxes on {}", bound.to_string());
      proxied_ = true;
    }
    return server_.listen(settings.listen);
  }

  Task<> run() {
    background_.spawn("reconciler", reconciler_.run());
    background_.spawn("leases and activity", service_.keep_alive());
    auto served = co_await serve();
    CO_TRY(co_await async::shielded(stop()));
    if (!served && served.error().code() != Code::kCanceled) co_return served;
    co_return Result<>{};
  }

 private:
  // Preview addresses may lead to the API's port too.
  Task<> route(std::shared_ptr<net::Exchange> exchange) {
    if (proxy_.claims(exchange->request())) return proxy_.handle(std::move(exchange));
    return api_.handle(std::move(exchange));
  }

  Task<> serve() {
    if (!proxied_) co_return co_await server_.serve();
    co_return co_await async::run_until(server_.serve(), proxy_server_.serve());
  }

  // Callers before what they call: the servers have stopped. Leases are kept until the last transition ended.
  Task<> stop() {
    co_await proxy_.stop();
    co_await api_.stop();
    co_await service_.stop();
    co_await background_.cancel_and_join();
    co_await reconciler_.stop();
    co_await auth_.stop();
    co_return Result<>{};
  }

  std::shared_ptr<net::HttpClient> http_;
  AgentClient agent_;
  Authenticator auth_;
  SandboxService service_;
  Reconciler reconciler_;
  HttpApi api_;
  SandboxProxy proxy_;
  async::Nursery background_;
  net::HttpServer server_;
  net::HttpServer proxy_server_;
  bool proxied_ = false;
};

}  // namespace

Task<> serve(async::Loop* loop, Settings settings, std::function<void(net::Endpoint)> on_ready) {
  auto store = CO_TRY(open_store(loop, settings));
  CO_TRY(co_await migrate_when_up(store.get()));
  auto client = CO_TRY(client_options(settings));
  ControlPlane control_plane(loop, settings, std::move(client), store.get());
  const net::Endpoint bound = CO_TRY(control_plane.listen(settings));
  on_ready(bound);
  co_return co_await control_plane.run();
}

Task<int> migrate(async::Loop* loop, Settings settings) {
  auto store = CO_TRY(open_store(loop, settings));
  co_return co_await migrate_when_up(store.get());
}

Task<std::optional<std::string>> bootstrap(async::Loop* loop, Settings settings) {
  auto store = CO_TRY(open_store(loop, settings));
  CO_TRY(co_await migrate_when_up(store.get()));
  std::string key = new_api_key();
  const model::Time now = wall_clock();
  store::ApiKey row{random_id("key-"), kDefaultTeamId,      "bootstrap",
                    hash_api_key(key), api_key_prefix(key), now};
  if (!CO_TRY(co_await store->bootstrap({kDefaultTeamId, "Default", now}, std::move(row)))) {
    co_return std::optional<std::string>{};
  }
  co_return std::optional<std::string>(std::move(key));
}

}  // namespace wrenn::control
