#pragma once

#include <boost/json/object.hpp>
#include <memory>
#include <optional>
#include <string>

#include "control/api_error.h"
#include "control/json_input.h"
#include "net/websocket.h"

namespace wrenn::control {

// A WebSocket that carries JSON objects as text messages.
class JsonSocket {
 public:
  explicit JsonSocket(std::unique_ptr<net::WebSocket> socket) : socket_(std::move(socket)) {}

  // Nullopt once the client has left; kInvalidArgument for what is no JSON object.
  Task<std::optional<JsonInput>> receive();
  // kDeadlineExceeded after `limit`, of which the client has been told; kCanceled when the client has left.
  Task<JsonInput> receive_within(Milliseconds limit, std::string what);
  // kDeadlineExceeded for a client that stopped reading.
  Task<> send(boost::json::object frame);
  Task<> close();
  // {"type":"error","data":MESSAGE,"code":CODE,"fatal":BOOL}
  Task<> send_error(PublicError error, bool fatal);
  // Ends the session with a fatal error.
  Task<> refuse(PublicError error);

 private:
  std::unique_ptr<net::WebSocket> socket_;
};

}  // namespace wrenn::control
