#pragma once

#include "async/async.h"
#include "control/settings.h"

// What the program wrenn-cp does, one call a subcommand.
namespace wrenn::control {

// Opens the database (making the folder of an SQLite file), migrates it, and serves until cancelled.
// `on_ready` gets the bound endpoint.
Task<> serve(async::Loop* loop, Settings settings, std::function<void(net::Endpoint)> on_ready);
// Answers the number of migrations applied.
Task<int> migrate(async::Loop* loop, Settings settings);
// Migrates, and makes the default team and an API key if no key exists: the key, or nullopt.
Task<std::optional<std::string>> bootstrap(async::Loop* loop, Settings settings);

}  // namespace wrenn::control
