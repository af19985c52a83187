#pragma once

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <memory>
#include <span>
#include <string>

#include "net/http.h"

// Inside src/net: one byte stream for TCP, unix sockets and TLS.
namespace wrenn::net {

using Socket = asio::generic::stream_protocol::socket;
namespace ssl = asio::ssl;

// The error of a failed socket operation: kUnavailable, or kCanceled if the running coroutine was cancelled.
asio::awaitable<Error> stream_error(boost::system::error_code code);

// A connected socket, perhaps with TLS over it. Models Beast's AsyncStream, movable. At most one read and one
// write may run at once. A cancelled read leaves the stream usable; a cancelled write does not.
class Stream {
 public:
  using executor_type = asio::any_io_executor;
  using Tls = ssl::stream<Socket&>;

  explicit Stream(Socket socket);
  Stream(Stream&&) noexcept = default;
  Stream& operator=(Stream&&) noexcept = default;

  Task<> handshake_server(std::shared_ptr<ssl::context> context);
  // Checks the server's certificate against `host`.
  Task<> handshake_client(std::shared_ptr<ssl::context> context, std::string host);

  // 0 at the end of the stream.
  Task<std::size_t> read_some(std::span<char> buffer);
  Task<> write(std::array<asio::const_buffer, 3> buffers);

  // True if the peer neither closed nor sent anything meanwhile.
  bool quiet() const;
  void shutdown_send();
  // Pending operations end with an error.
  void close();
  bool is_open() const { return layers_ && layers_->socket.is_open(); }
  std::string peer() const;

  executor_type get_executor() { return layers_->socket.get_executor(); }
  template <class Buffers, class Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    if (layers_->tls) return layers_->tls->async_read_some(buffers, std::forward<Token>(token));
    return layers_->socket.async_read_some(buffers, std::forward<Token>(token));
  }
  template <class Buffers, class Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    if (layers_->tls) return layers_->tls->async_write_some(buffers, std::forward<Token>(token));
    return layers_->socket.async_write_some(buffers, std::forward<Token>(token));
  }

 private:
  struct Layers {
    explicit Layers(Socket s) : socket(std::move(s)) {}
    Socket socket;
    std::shared_ptr<ssl::context> context;
    std::unique_ptr<Tls> tls;
  };
  std::unique_ptr<Layers> layers_;
};

Result<std::shared_ptr<ssl::context>> make_server_tls(const TlsFiles& files);
Result<std::shared_ptr<ssl::context>> make_client_tls(const std::optional<TlsFiles>& files);

// Connects, without TLS.
Task<Stream> connect_stream(Endpoint endpoint);

}  // namespace wrenn::net
