#pragma once

#include <array>
#include <boost/asio/any_completion_handler.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "net/http.h"
#include "net/limits.h"

// Inside src/net: one byte stream for TCP, unix sockets and TLS.
namespace wrenn::net {

using Socket = asio::generic::stream_protocol::socket;
using IoHandler = asio::any_completion_handler<void(boost::system::error_code, std::size_t)>;

// The error of a failed socket operation: kUnavailable, or kCanceled if the running coroutine was cancelled.
asio::awaitable<Error> stream_error(boost::system::error_code code);

// TLS over a socket. Virtual, so that only programs that make a TlsContext carry the TLS library.
class TlsStream {
 public:
  virtual ~TlsStream() = default;
  virtual void read_some(std::vector<asio::mutable_buffer> buffers, IoHandler handler) = 0;
  virtual void write_some(std::vector<asio::const_buffer> buffers, IoHandler handler) = 0;
};

class TlsContext {
 public:
  virtual ~TlsContext() = default;
  // Handshakes. The socket outlives the stream, the stream not the context.
  virtual Task<std::unique_ptr<TlsStream>> accept(Socket* socket) = 0;
  // Checks the server's certificate against `host`.
  virtual Task<std::unique_ptr<TlsStream>> connect(Socket* socket, std::string host) = 0;
};

// Ends silent and vanished TCP peers by the kernel: keep-alive probes and a limit for what is unacknowledged.
// Nothing for a unix socket.
void watch_peer(Socket* socket);

// A connected socket, perhaps with TLS over it. Models Beast's AsyncStream, movable. At most one read and one
// write may run at once. A cancelled read leaves the stream usable; a cancelled write does not. A write of
// which the peer takes nothing for the stall limit closes the stream.
class Stream {
 public:
  using executor_type = asio::any_io_executor;

  explicit Stream(Socket socket);
  Stream(Stream&&) noexcept = default;
  Stream& operator=(Stream&&) noexcept = default;

  Task<> handshake_server(std::shared_ptr<TlsContext> context);
  Task<> handshake_client(std::shared_ptr<TlsContext> context, std::string host);

  // By default kWriteStallLimit.
  void set_stall_limit(Milliseconds limit) { layers_->stall.limit = limit; }

  // What was read ahead comes first at the next read.
  void unread(std::string bytes) { layers_->early = std::move(bytes); }

  // 0 at the end of the stream.
  Task<std::size_t> read_some(std::span<char> buffer);
  Task<> write(std::array<asio::const_buffer, 3> buffers);

  // Sends all of a short text at once, or answers false: the socket is full or broken, or speaks TLS.
  bool write_now(std::string_view text);
  // Returns well once the connection is reset, or for a unix socket closed; a peer that merely ended its side
  // is none.
  Task<> wait_reset();
  // Whether a write waits for the peer, and how many have ended.
  bool writing() const { return layers_->writing; }
  std::uint64_t writes() const { return layers_->writes; }

  // True if the peer neither closed nor sent anything meanwhile.
  bool quiet() const;
  void shutdown_send();
  // Pending operations end with an error.
  void close();
  // Closes so that the peer sees a reset: nobody waits for what it may still send.
  void abort();
  bool is_open() const { return layers_ && layers_->socket.is_open(); }
  std::string peer() const;

  executor_type get_executor() { return layers_->socket.get_executor(); }
  template <class Buffers, class Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    if (!layers_->tls && layers_->early.empty()) {
      return layers_->socket.async_read_some(buffers, std::forward<Token>(token));
    }
    return asio::async_initiate<Token, void(boost::system::error_code, std::size_t)>(
        [layers = layers_.get()](auto handler, auto list) {
          if (layers->early.empty()) return layers->tls->read_some(std::move(list), std::move(handler));
          const std::size_t count = asio::buffer_copy(list, asio::buffer(layers->early));
          layers->early.erase(0, count);
          asio::post(layers->socket.get_executor(), [done = std::move(handler), count]() mutable {
            std::move(done)(boost::system::error_code(), count);
          });
        },
        token, list_of<asio::mutable_buffer>(buffers));
  }
  template <class Buffers, class Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    if (!layers_->tls) return layers_->socket.async_write_some(buffers, std::forward<Token>(token));
    return asio::async_initiate<Token, void(boost::system::error_code, std::size_t)>(
        [tls = layers_->tls.get()](auto handler, auto list) {
          tls->write_some(std::move(list), std::move(handler));
        },
        token, list_of<asio::const_buffer>(buffers));
  }

 private:
  template <class Buffer, class Buffers>
  static std::vector<Buffer> list_of(const Buffers& buffers) {
    return {asio::buffer_sequence_begin(buffers), asio::buffer_sequence_end(buffers)};
  }

  // Closes the socket when a write has made no progress for the limit. Its timer's handler may run after the
  // stream is gone, so it shares the flag that says so.
  struct Stall {
    explicit Stall(Socket* of) : socket(of), timer(of->get_executor()) {}
    ~Stall() { *watched = false; }
    void arm();
    void disarm();

    Socket* socket;
    asio::steady_timer timer;
    Milliseconds limit = kWriteStallLimit;
    std::shared_ptr<bool> watched = std::make_shared<bool>(false);  // a write waits
    bool expired = false;
  };

  struct Layers {
    explicit Layers(Socket s) : socket(std::move(s)), stall(&socket) {}
    Socket socket;
    Stall stall;
    std::string early;
    std::shared_ptr<TlsContext> context;
    std::unique_ptr<TlsStream> tls;
    std::uint64_t writes = 0;
    bool writing = false;
  };
  std::unique_ptr<Layers> layers_;
};

// Connects, without TLS.
Task<Stream> connect_stream(Endpoint endpoint);

}  // namespace wrenn::net
