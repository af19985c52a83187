#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "net/connection.h"

// Inside src/net: a client's connections that wait for their next request.
namespace wrenn::net {

class Pool {
 public:
  // At most `max_idle` an endpoint, each at most `idle_time`.
  Pool(std::size_t max_idle, Milliseconds idle_time) : max_idle_(max_idle), idle_time_(idle_time) {}

  // One that can serve; null if there is none.
  std::shared_ptr<Connection> take(const std::string& endpoint);
  void put(const std::string& endpoint, std::shared_ptr<Connection> connection);
  void drop(const std::string& endpoint) { idle_.erase(endpoint); }
  // Endpoints that connections are kept for.
  std::size_t size() const { return idle_.size(); }

 private:
  using Clock = std::chrono::steady_clock;
  struct Idle {
    std::shared_ptr<Connection> connection;
    Clock::time_point since;
  };
  std::size_t max_idle_;
  Milliseconds idle_time_;
  std::unordered_map<std::string, std::vector<Idle>> idle_;  // newest last
};

}  // namespace wrenn::net
