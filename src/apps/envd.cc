#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>

#include "base/log.h"
#include "envd/app.h"
#include "envd/guest_boot.h"
#include "envd/limits.h"
#include "sys/process.h"

namespace {

using namespace wrenn;

constexpr std::size_t kWorkers = 2;
constexpr int kInitPid = 1;

Task<> reap() {
  asio::signal_set signals(co_await asio::this_coro::executor, SIGCHLD);
  while (true) {
    sys::reap_orphans();
    const auto [ec, number] = co_await signals.async_wait(asio::as_tuple(asio::use_awaitable));
    if (ec) co_return fail(async::canceled_error());
  }
}

Task<> serve(async::Loop* loop, std::string listen, bool reaping) {
  envd::App app(loop->executor(), &loop->pool());
  const net::Endpoint endpoint = CO_TRY(net::Endpoint::parse(listen));
  CO_TRY(app.listen(endpoint));
  async::Nursery nursery(loop->executor());
  if (reaping) nursery.spawn("reaper", reap());
  const Result<> served = co_await app.run();
  co_await nursery.cancel_and_join();
  co_return served;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App cli("The guest agent: processes and files of one sandbox, on port 49983.");
  cli.require_subcommand(1);
  auto* init = cli.add_subcommand("init", "Run as PID 1 of a guest: mount, set up the network, reap, serve.");
  auto* run = cli.add_subcommand("serve", "Serve only (outside a VM).");
  std::string listen = "127.0.0.1:" + std::to_string(envd::kPort);
  run->add_option("--listen", listen, "address:port")->capture_default_str();
  CLI11_PARSE(cli, argc, argv);

  log::configure("envd", log::Level::kInfo);
  std::signal(SIGPIPE, SIG_IGN);
  const bool as_init = init->parsed();
  if (as_init && ::getpid() != kInitPid) {
    log::error("`envd init` is for PID 1 of a guest; use `envd serve` elsewhere");
    return 2;
  }
  if (as_init) {
    envd::boot_guest();
    listen = "0.0.0.0:" + std::to_string(envd::kPort);
  }
  async::Loop loop(kWorkers);
  const Result<> done = loop.run(serve(&loop, listen, as_init));
  if (done || done.error().code() == Code::kCanceled) return 0;
  log::error("{}", done.error().to_string());
  return 1;
}
