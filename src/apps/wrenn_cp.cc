// The control plane: REST and WebSocket API, database, reconciler.
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "control/app.h"
#include "sys/process.h"

namespace {

using wrenn::Result;
using wrenn::Task;
namespace control = wrenn::control;

constexpr std::size_t kPoolThreads = 8;
constexpr int kUsageError = 2;
// Two listeners of 4096 connections each, and to the agent as many.
constexpr std::uint64_t kOpenFiles = 65'536;

Task<> run_migrate(wrenn::async::Loop* loop, control::Settings settings) {
  const int applied = CO_TRY(co_await control::migrate(loop, std::move(settings)));
  wrenn::log::info("applied {} migrations", applied);
  co_return Result<>{};
}

// Standard output carries the key alone, so that scripts can take it.
Task<> run_bootstrap(wrenn::async::Loop* loop, control::Settings settings) {
  const auto key = CO_TRY(co_await control::bootstrap(loop, std::move(settings)));
  if (key) std::printf("%s\n", key->c_str());
  if (!key) wrenn::log::info("an API key exists already");
  co_return Result<>{};
}

Task<> run_serve(wrenn::async::Loop* loop, control::Settings settings) {
  return control::serve(loop, std::move(settings), [](const wrenn::net::Endpoint& bound) {
    wrenn::log::info("listening on {}", bound.to_string());
  });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Wrenn's control plane. Settings come from the environment; see .env.example.", "wrenn-cp");
  app.require_subcommand(0, 1);
  app.add_subcommand("serve", "serve the API (default)");
  const CLI::App* migrate = app.add_subcommand("migrate", "bring the database to this version's schema");
  const CLI::App* bootstrap =
      app.add_subcommand("bootstrap", "make the default team and its first API key, and print the key");
  CLI11_PARSE(app, argc, argv);

  ::umask(077);
  auto settings = control::read_settings(wrenn::async::Blocking::without_loop(), control::process_env);
  if (!settings) {
    std::fprintf(stderr, "wrenn-cp: %s\n", settings.error().message().c_str());
    return kUsageError;
  }
  wrenn::log::configure("cp", settings->log_level);
  wrenn::sys::raise_open_files(kOpenFiles);
  wrenn::async::Loop loop(kPoolThreads);
  const auto task = migrate->parsed() ? run_migrate : bootstrap->parsed() ? run_bootstrap : run_serve;
  const Result<> result = loop.run(task(&loop, *std::move(settings)));
  if (!result && result.error().code() != wrenn::Code::kCanceled) {
    wrenn::log::error("{}", result.error().to_string());
    return 1;
  }
  return 0;
}
