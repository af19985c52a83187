#include "net/pool.h"

namespace wrenn::net {

std::shared_ptr<Connection> Pool::take(const std::string& endpoint) {
  const auto found = idle_.find(endpoint);
  if (found == idle_.end()) return nullptr;
  std::shared_ptr<Connection> taken;
  auto& waiting = found->second;
  while (!taken && !waiting.empty()) {
    Idle last = std::move(waiting.back());
    waiting.pop_back();
    const bool usable = Clock::now() - last.since < idle_time_ && last.connection->stream.quiet();
    if (usable) taken = std::move(last.connection);
  }
  if (waiting.empty()) idle_.erase(found);
  return taken;
}

void Pool::put(const std::string& endpoint, std::shared_ptr<Connection> connection) {
  if (max_idle_ == 0) return;
  auto& waiting = idle_[endpoint];
  const auto now = Clock::now();
  std::erase_if(waiting, [&](const Idle& old) { return now - old.since >= idle_time_; });
  if (waiting.size() < max_idle_) waiting.push_back({std::move(connection), now});
}

}  // namespace wrenn::net
