#pragma once

#include <memory>
#include <string>

#include "net/connection.h"

// Inside src/net: one request being answered on a server connection.
namespace wrenn::net {

std::string response_head(int status, const Headers& headers, bool http10);

class ServerExchange : public Exchange {
 public:
  ServerExchange(std::shared_ptr<Connection> connection, ParsedHead head, std::unique_ptr<Parser> parser);

  const RequestHead& request() const override { return head_.request; }
  BodyLength body_length() const override;
  std::string peer() const override { return peer_; }
  Task<std::size_t> read(std::span<char> buffer) override;
  Task<> respond(int status, Headers headers, std::string body) override;
  using Exchange::start;
  Task<> start(int status, Headers headers, BodyLength length) override;
  Task<> write(std::string bytes) override;
  Task<> finish() override;
  bool started() const override { return phase_ != Phase::kWaiting; }
  Task<std::unique_ptr<WebSocket>> accept_websocket() override;
  Task<std::unique_ptr<ByteStream>> switch_protocols(std::string protocol, Headers headers) override;
  Task<> wait_disconnect() override;

  // After the handler returned: answers what it left open. True if the connection can serve again.
  Task<bool> settle(Result<> handled);
  bool upgraded() const { return phase_ == Phase::kUpgraded; }

 private:
  enum class Phase { kWaiting, kStarted, kFinished, kUpgraded };
  Task<> send_head(int status, Headers headers, BodyLength length, std::string body);
  Task<> watch_half_closed();
  // True if what the client still sends of this request is known to be little.
  bool rest_is_bounded();
  Task<> drain();

  std::shared_ptr<Connection> connection_;
  ParsedHead head_;
  BodySource source_;
  std::string peer_;
  Phase phase_ = Phase::kWaiting;
  bool chunked_ = false;
  bool bodiless_ = false;  // HEAD, 204, 304: nothing follows the head
  bool close_ = false;
  bool continue_owed_ = false;
  bool malformed_ = false;  // the request's body
  BodyLength left_;         // of the answer's body
};

}  // namespace wrenn::net
