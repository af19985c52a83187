#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "async/async.h"

namespace wrenn::net {

struct WebSocketMessage {
  std::string data;
  bool text = true;
};

// An open WebSocket. One receiver and one sender may run at once; sends from several coroutines queue.
class WebSocket {
 public:
  virtual ~WebSocket() = default;
  // Nullopt once the peer closed. Messages above the limit (default 1 MiB) close the socket with 1009.
  virtual Task<std::optional<WebSocketMessage>> receive() = 0;
  virtual Task<> send(WebSocketMessage message) = 0;
  virtual Task<> close(std::uint16_t code, std::string reason) = 0;
};

}  // namespace wrenn::net
