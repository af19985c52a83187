#pragma once

#include "net/connection.h"

// Inside src/net.
namespace wrenn::net {

class ConnectionStream : public ByteStream {
 public:
  explicit ConnectionStream(std::shared_ptr<Connection> connection) : connection_(std::move(connection)) {}
  ~ConnectionStream() override { connection_->stream.close(); }
  Task<std::size_t> read(std::span<char> buffer) override;
  Task<> write(std::string bytes) override;
  void shutdown_send() override { connection_->stream.shutdown_send(); }

 private:
  std::shared_ptr<Connection> connection_;
};

// Passes bytes on in both directions until both have ended, or one has failed, or one has ended and nothing
// came of the other for `quiet`.
Task<> tunnel(ByteStream* a, ByteStream* b, Milliseconds quiet = kHalfTunnelQuiet);

}  // namespace wrenn::net
