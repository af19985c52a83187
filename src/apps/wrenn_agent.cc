// The host agent: VMs, disks, networks and snapshots of one host, served to the control plane by RPC.
#include <cstdio>
#include <string_view>

#include "agent/config.h"
#include "agent/limits.h"
#include "agent/service.h"
#include "async/async.h"
#include "base/log.h"
#include "sandbox/manager.h"
#include "sys/file.h"
#include "sys/process.h"
#include "vmm/vmm.h"

namespace {

using wrenn::Result;
using wrenn::Task;

constexpr int kUsageError = 2;
constexpr char kUsage[] =
    "usage: wrenn-agent [serve | prepare | probe]\n"
    "  serve    answer the control plane (default)\n"
    "  prepare  make the default template's snapshot, then exit\n"
    "  probe    print what would run the VMs, as JSON; boots a guest to find out\n"
    "Settings come from the environment; see .env.example.\n";

Task<> serve_rpc(wrenn::sandbox::Manager* manager, const wrenn::agent::AgentConfig* config,
                 wrenn::async::Loop* loop) {
  wrenn::agent::Service service(manager, config->secret);
  wrenn::net::ServerOptions options;
  options.max_connections = wrenn::agent::kMaxConnections;
  if (config->tls) options.tls = CO_TRY(wrenn::net::server_tls(*config->tls));
  wrenn::net::HttpServer server(
      loop->executor(), [&service](auto exchange) { return service.handle(std::move(exchange)); }, options);
  wrenn::net::Endpoint endpoint = config->listen;
  endpoint.tls = config->tls.has_value();
  const auto bound = CO_TRY(server.listen(endpoint));
  wrenn::async::Nursery upkeep(loop->executor());
  upkeep.spawn("reaper", manager->reap());
  upkeep.spawn("metrics", manager->measure());
  upkeep.spawn("mending", manager->mend());
  wrenn::log::info("listening on {}", bound.to_string());
  const Result<> served = co_await server.serve();
  co_await upkeep.cancel_and_join();
  if (!served && served.error().code() != wrenn::Code::kCanceled) co_return served;
  co_return Result<>{};
}

Task<> prepare(wrenn::sandbox::Manager* manager) {
  co_return co_await manager->prepare(
      [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); });
}

Task<> probe(const wrenn::sandbox::Config* config, wrenn::async::Loop* loop) {
  CO_TRY(wrenn::sys::mkdirs(config->cache_dir, 0700));
  wrenn::vmm::DriverChoice choice{config->driver, config->kernels_dir, config->cache_dir,
                                  config->firecracker};
  const auto driver =
      CO_TRY(co_await wrenn::vmm::choose_driver(loop->executor(), &loop->pool(), std::move(choice)));
  const wrenn::vmm::Shape shape = driver->base_shape();
  std::printf("{\"driver\":\"%s\",\"accel\":\"%s\",\"version\":\"%s\"}\n", shape.driver.c_str(),
              shape.accel.c_str(), shape.version.c_str());
  co_return Result<>{};
}

Task<> run(std::string command, const wrenn::agent::AgentConfig* config, wrenn::async::Loop* loop) {
  if (command == "probe") co_return co_await probe(&config->sandbox, loop);
  wrenn::sandbox::Manager manager(loop->executor(), &loop->pool(), config->sandbox);
  Result<> result;
  if (command == "prepare") {
    result = co_await prepare(&manager);
  } else {
    result = co_await manager.start();
    if (result) result = co_await serve_rpc(&manager, config, loop);
  }
  const Result<> stopped = co_await wrenn::async::shielded(manager.stop());
  if (!stopped) wrenn::log::warn("{}", stopped.error().to_string());
  co_return result;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "serve";
  if (command == "-h" || command == "--help") {
    std::fputs(kUsage, stdout);
    return 0;
  }
  if (argc > 2 || (command != "serve" && command != "prepare" && command != "probe")) {
    std::fputs(kUsage, stderr);
    return kUsageError;
  }
  const auto config =
      wrenn::agent::read_config(wrenn::async::Blocking::without_loop(), wrenn::agent::process_env);
  if (!config) {
    std::fprintf(stderr, "wrenn-agent: %s\n", config.error().message().c_str());
    return kUsageError;
  }
  wrenn::log::configure("agent", config->log_level);
  constexpr std::uint64_t kOpenFiles = 262'144;
  wrenn::sys::raise_open_files(kOpenFiles);
  wrenn::async::Loop loop(wrenn::agent::kPoolThreads);
  const Result<> result = loop.run(run(command, &*config, &loop));
  if (!result && result.error().code() != wrenn::Code::kCanceled) {
    wrenn::log::error("{}", result.error().to_string());
    return 1;
  }
  return 0;
}
