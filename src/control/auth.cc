#include "control/auth.h"

#include "control/api_key.h"
#include "control/client_address.h"
#include "control/clock.h"
#include "control/limits.h"

namespace wrenn::control {
namespace {

constexpr std::chrono::seconds kUseWritePeriod{60};

}  // namespace

Authenticator::Authenticator(asio::any_io_executor executor, store::Store* store)
    : store_(store),
      background_(executor),
      owners_(executor,
              [store](std::vector<std::string> hashes) { return store->find_keys(std::move(hashes)); }),
      keys_(kMaxCachedKeys),
      failures_(kMaxTrackedNetworks) {}

Task<Principal> Authenticator::check(std::string key, std::string address) {
  if (!looks_like_api_key(key)) co_return refuse(address);
  const std::string hash = hash_api_key(key);
  if (Cached* known = keys_.find(hash); known != nullptr && known->until > Clock::now()) {
    note_use(known);
    co_return known->principal;
  }
  const auto owner = CO_TRY(co_await owners_.find(hash));
  if (!owner) {
    keys_.erase(hash);
    co_return refuse(address);
  }
  Cached& cached = keys_.at(hash);
  cached.principal = {owner->team_id, owner->key_id};
  cached.until = Clock::now() + kKeyCacheTime;
  note_use(&cached);
  co_return cached.principal;
}

asio::awaitable<void> Authenticator::stop() {
  co_await owners_.stop();
  co_await background_.join();
}

std::unexpected<Error> Authenticator::refuse(const std::string& address) {
  Failures& failures = failures_.at(network_of(address));
  if (Clock::now() - failures.window_start > kAuthWindow) failures = {Clock::now(), 0};
  if (failures.count >= kMaxAuthFailures) {
    return fail(
        Error(Code::kResourceExhausted, "too many failed authentications").with_reason("rate_limited"));
  }
  ++failures.count;
  return fail(Code::kUnauthenticated, "missing or unknown API key; send it in the header X-API-Key");
}

void Authenticator::note_use(Cached* cached) {
  const auto now = Clock::now();
  if (now - cached->used_written < kUseWritePeriod) return;
  cached->used_written = now;
  background_.spawn("note use of an API key", store_->touch_key(cached->principal.key_id, wall_clock()));
}

}  // namespace wrenn::control
