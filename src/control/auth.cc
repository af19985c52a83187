#include "control/auth.h"

#include "control/api_key.h"
#include "control/clock.h"
#include "control/limits.h"

namespace wrenn::control {
namespace {

// An address without its port: each connection has a new one.
std::string host_of(const std::string& peer) { return peer.substr(0, peer.rfind(':')); }

constexpr std::chrono::seconds kUseWritePeriod{60};

}  // namespace

Authenticator::Authenticator(asio::any_io_executor executor, store::Store* store)
    : store_(store), background_(std::move(executor)) {}

Task<Principal> Authenticator::check(std::string key, std::string peer) {
  const std::string host = host_of(peer);
  if (!looks_like_api_key(key)) co_return refuse(host);
  const std::string hash = hash_api_key(key);
  const auto now = Clock::now();
  if (const auto it = keys_.find(hash); it != keys_.end() && it->second.until > now) {
    note_use(&it->second);
    co_return it->second.principal;
  }
  if (is_blocked(host)) co_return refuse(host);
  auto owner = CO_TRY(co_await store_->find_key(hash));
  if (!owner) {
    keys_.erase(hash);
    co_return refuse(host);
  }
  if (keys_.size() >= kMaxCachedKeys) keys_.clear();
  Cached& cached = keys_[hash];
  cached.principal = {owner->team_id, owner->key_id};
  cached.until = Clock::now() + kKeyCacheTime;
  note_use(&cached);
  co_return cached.principal;
}

asio::awaitable<void> Authenticator::stop() { co_await background_.join(); }

bool Authenticator::is_blocked(const std::string& host) {
  const auto it = failures_.find(host);
  if (it == failures_.end()) return false;
  if (Clock::now() - it->second.window_start > kAuthWindow) {
    failures_.erase(it);
    return false;
  }
  return it->second.count >= kMaxAuthFailures;
}

std::unexpected<Error> Authenticator::refuse(const std::string& host) {
  if (is_blocked(host)) {
    return fail(
        Error(Code::kResourceExhausted, "too many failed authentications").with_reason("rate_limited"));
  }
  if (failures_.size() >= kMaxTrackedPeers) failures_.clear();
  Failures& failures = failures_[host];
  if (failures.count == 0) failures.window_start = Clock::now();
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
