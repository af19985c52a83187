#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "async/async.h"
#include "control/batched_lookup.h"
#include "control/lru_map.h"
#include "store/store.h"

namespace wrenn::control {

// Who a request acts for.
struct Principal {
  std::string team_id;
  std::string key_id;
};

// Checks API keys. A key is always looked up, so that nobody's failures lock a good one out; a network that
// keeps failing gets its bad keys refused with "try later". However many keys are tried, the database sees
// one query at a time, and a good key is remembered for kKeyCacheTime, so that a busy client costs none.
class Authenticator {
 public:
  Authenticator(asio::any_io_executor executor, store::Store* store);
  // `address` is the client's. kUnauthenticated, or kResourceExhausted with reason "rate_limited".
  Task<Principal> check(std::string key, std::string address);
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

  std::unexpected<Error> refuse(const std::string& address);
  void note_use(Cached* cached);

  store::Store* store_;
  async::Nursery background_;
  BatchedLookup<store::KeyOwner> owners_;  // by the key's hash
  LruMap<Cached> keys_;                    // the same
  LruMap<Failures> failures_;              // by network
};

}  // namespace wrenn::control
