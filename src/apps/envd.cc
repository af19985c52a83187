#include <unistd.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <cstdio>
#include <span>

#include "base/log.h"
#include "envd/app.h"
#include "envd/guest_boot.h"
#include "envd/limits.h"
#include "envd/port_forwarder.h"
#include "sys/process.h"

namespace {

using namespace wrenn;

// Some may hang on a file system of the guest's own that does not answer.
constexpr std::size_t kWorkers = 8;
constexpr int kInitPid = 1;
constexpr int kUsageError = 2;

Task<> reap() {
  asio::signal_set signals(co_await asio::this_coro::executor, SIGCHLD);
  while (true) {
    sys::reap_orphans();
    const auto [ec, number] = co_await signals.async_wait(asio::as_tuple(asio::use_awaitable));
    if (ec) co_return fail(async::canceled_error());
  }
}

Task<> serve(async::Loop* loop, std::string listen, bool as_init) {
  envd::App app(loop->executor(), &loop->pool(), as_init ? "/sys/fs/cgroup" : "");
  const net::Endpoint endpoint = CO_TRY(net::Endpoint::parse(listen));
  CO_TRY(app.listen(endpoint));
  async::Nursery nursery(loop->executor());
  if (as_init) nursery.spawn("reaper", reap());
  if (as_init) nursery.spawn("ports", envd::forward_loopback_ports(envd::kGuestAddress, &loop->pool()));
  const Result<> served = co_await app.run();
  co_await nursery.cancel_and_join();
  co_return served;
}

constexpr const char* kUsage =
    "usage: envd init | envd serve [--listen ADDRESS:PORT]\n"
    "  init   run as PID 1 of a guest: mount, set up the network, reap, serve on port 49983\n"
    "  serve  serve only, outside of a VM (default 127.0.0.1:49983)\n";

struct Command {
  bool as_init = false;
  std::string listen = "127.0.0.1:" + std::to_string(envd::kPort);
};

std::optional<Command> parse_command(std::span<char*> args) {
  const std::vector<std::string> words(args.begin(), args.end());
  Command command;
  command.as_init = words == std::vector<std::string>{"init"};
  if (command.as_init || words == std::vector<std::string>{"serve"}) return command;
  if (words.size() != 3 || words[0] != "serve" || words[1] != "--listen") return std::nullopt;
  command.listen = words[2];
  return command;
}

}  // namespace

int main(int argc, char** argv) {
  const std::span<char*> args(argv, static_cast<std::size_t>(argc));
  if (args.size() == 2 && (std::string_view(args[1]) == "--help" || std::string_view(args[1]) == "-h")) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  const auto command = parse_command(args.subspan(1));
  if (!command) {
    std::fputs(kUsage, stderr);
    return kUsageError;
  }
  log::configure("envd", log::Level::kInfo);
  std::signal(SIGPIPE, SIG_IGN);
  sys::raise_open_files(envd::kOwnOpenFiles);
  if (command->as_init && ::getpid() != kInitPid) {
    log::error("`envd init` is for PID 1 of a guest; use `envd serve` elsewhere");
    return kUsageError;
  }
  std::string listen = command->listen;
  if (command->as_init) {
    envd::boot_guest(async::Blocking::without_loop());
    listen = "0.0.0.0:" + std::to_string(envd::kPort);
  }
  async::Loop loop(kWorkers);
  const Result<> done = loop.run(serve(&loop, listen, command->as_init));
  if (done || done.error().code() == Code::kCanceled) return 0;
  log::error("{}", done.error().to_string());
  return 1;
}
