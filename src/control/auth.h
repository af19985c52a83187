#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <unordered_map>

#include "async/async.h"
#include "store/store.h"

namespace wrenn::control {

// Who a request acts for.
struct Principal {
  std::string team_id;
  std::string key_id;
};

// Checks API keys. A good key is remembered for kKeyCacheTime, so that a busy client costs no query; a peer
// that keeps failing is refused for a while before any query is made.
class Authenticator {
 public:
  Authenticator(asio::any_io_executor executor, store::Store* store);
  // `peer` as Exchange::peer says. kUnauthenticated, or kResourceExhausted with reason "rate_limited".
  Task<Principal> check(std::string key, std::string peer);
  // Joins what runs in the background.
  asio::awaitable<void> stop();

 private:
  using Clock = std::chrono::steady_clock;
  struct Cached {
    Principal principal;
    Clock::time_point until;
    Clock::time_point used_written;
  };
  struct Failures {
    Clock::time_point window_start;
    int count = 0;
  };

  bool is_blocked(const std::string& host);
  std::unexpected<Error> refuse(const std::string& host);
  void note_use(Cached* cached);

  store::Store* store_;
  async::Nursery background_;
  std::unordered_map<std::string, Cached> keys_;
  std::unordered_map<std::string, Failures> failures_;
};

}  // namespace wrenn::control
