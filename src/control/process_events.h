#pragma once

#include "connect/connect.h"
#include "control/json_socket.h"
#include "control/text_stream.h"
#include "hostagent/v1/hostagent.pb.h"

namespace wrenn::control {

// What a process does, as frames: {"type":"start"}, {"type":"stdout"|"stderr"}, and {"type":"exit"}, after
// which the socket closes.
class ProcessEventSender {
 public:
  explicit ProcessEventSender(JsonSocket* socket) : socket_(socket) {}
  // `events`: a stream of ExecStreamResponse.
  Task<> run(connect::ClientCall* events);

 private:
  Task<> send_output(bool err, std::optional<TextStream::Piece> piece);
  Task<> send_exit(hostagent::v1::ExecStreamEnd end);

  JsonSocket* socket_;
  TextStream stdout_;
  TextStream stderr_;
};

}  // namespace wrenn::control
