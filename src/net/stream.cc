#include "net/stream.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>

namespace wrenn::net {
namespace {

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
using asio::ip::tcp;
using boost::system::error_code;

struct Resolution {
  explicit Resolution(const asio::any_io_executor& executor) : resolver(executor), finished(executor) {}
  tcp::resolver resolver;
  async::Condition finished;
  bool done = false;
  error_code error;
  std::vector<tcp::endpoint> endpoints;
};

// A lookup cannot be interrupted, so a cancelled caller leaves it behind instead of waiting for it.
Task<std::vector<tcp::endpoint>> resolve(std::string host, std::uint16_t port) {
  error_code ec;
  if (host.empty()) co_return fail(Code::kInternal, "an endpoint without a host cannot be connected to");
  if (host == "localhost") {
    co_return std::vector<tcp::endpoint>{{asio::ip::address_v4::loopback(), port},
                                         {asio::ip::address_v6::loopback(), port}};
  }
  const auto address = asio::ip::make_address(host, ec);
  if (!ec) co_return std::vector<tcp::endpoint>{{address, port}};
  auto state = std::make_shared<Resolution>(co_await asio::this_coro::executor);
  state->resolver.async_resolve(host, std::to_string(port),
                                [state](const error_code& error, const tcp::resolver::results_type& found) {
                                  state->done = true;
                                  state->error = error;
                                  for (const auto& entry : found)
                                    state->endpoints.push_back(entry.endpoint());
                                  state->finished.notify_all();
                                });
  while (!state->done) CO_TRY(co_await state->finished.wait());
  if (state->error || state->endpoints.empty()) {
    co_return fail(Code::kUnavailable, "cannot resolve " + host + ": " + state->error.message());
  }
  co_return std::move(state->endpoints);
}

Task<Stream> connect_to(asio::generic::stream_protocol::endpoint address, std::string name) {
  if (co_await async::is_cancelled()) co_return fail(async::canceled_error());
  Socket socket(co_await asio::this_coro::executor);
  const auto [ec] = co_await socket.async_connect(address, kTuple);
  if (ec) {
    if (co_await async::is_cancelled()) co_return fail(async::canceled_error());
    co_return fail(Code::kUnavailable, "cannot connect to " + name + ": " + ec.message());
  }
  if (address.protocol().family() != AF_UNIX) {
    error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    watch_peer(&socket);
  }
  co_return Stream(std::move(socket));
}

void set_int(int fd, int level, int name, int value) {
  static_cast<void>(::setsockopt(fd, level, name, &value, sizeof value));
}

}  // namespace

void watch_peer(Socket* socket) {
  const int fd = socket->native_handle();
  set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepAliveIdleSec);
  set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, kKeepAliveProbeSec);
  set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(kPeerGoneLimit.count()));
}

asio::awaitable<Error> stream_error(error_code code) {
  if (co_await async::is_cancelled()) co_return async::canceled_error();
  if (code == asio::error::operation_aborted || code == asio::error::bad_descriptor) {
    co_return Error(Code::kUnavailable, "connection closed here");
  }
  co_return Error(Code::kUnavailable, "connection lost: " + code.message());
}

Stream::Stream(Socket socket) : layers_(std::make_unique<Layers>(std::move(socket))) {}

Task<> Stream::handshake_server(std::shared_ptr<TlsContext> context) {
  layers_->context = std::move(context);
  layers_->tls = CO_TRY(co_await layers_->context->accept(&layers_->socket));
  co_return Result<>{};
}

Task<> Stream::handshake_client(std::shared_ptr<TlsContext> context, std::string host) {
  layers_->context = std::move(context);
  layers_->tls = CO_TRY(co_await layers_->context->connect(&layers_->socket, std::move(host)));
  co_return Result<>{};
}

Task<std::size_t> Stream::read_some(std::span<char> buffer) {
  if (co_await async::is_cancelled()) co_return fail(async::canceled_error());
  const auto [ec, count] = co_await async_read_some(asio::buffer(buffer.data(), buffer.size()), kTuple);
  if (!ec) co_return count;
  if (ec == asio::error::eof) co_return std::size_t{0};
  co_return fail(co_await stream_error(ec));
}

void Stream::Stall::arm() {
  *watched = true;
  timer.expires_after(limit);
  timer.async_wait([this, alive = watched](const error_code& ec) {
    // A write that goes on has armed it anew.
    if (ec || !*alive || timer.expiry() > std::chrono::steady_clock::now()) return;
    expired = true;
    error_code ignored;
    socket->close(ignored);
  });
}

void Stream::Stall::disarm() {
  *watched = false;
  timer.cancel();
}

Task<> Stream::write(std::array<asio::const_buffer, 3> buffers) {
  if (co_await async::is_cancelled()) co_return fail(async::canceled_error());
  layers_->writing = true;
  error_code failed;
  for (std::size_t left = asio::buffer_size(buffers); left > 0 && !failed;) {
    layers_->stall.arm();
    const auto [ec, count] = co_await async_write_some(buffers, kTuple);
    layers_->stall.disarm();
    failed = ec;
    left -= count;
    std::size_t taken = count;
    for (asio::const_buffer& buffer : buffers) {
      const std::size_t of_this = std::min(taken, buffer.size());
      buffer += of_this;
      taken -= of_this;
    }
  }
  layers_->writing = false;
  ++layers_->writes;
  if (!failed) co_return Result<>{};
  if (layers_->stall.expired) {
    co_return fail(
        Error(Code::kUnavailable, "the peer takes nothing of what is sent").with_reason("stalled"));
  }
  Error error = co_await stream_error(failed);
  co_return fail(std::move(error));
}

bool Stream::write_now(std::string_view text) {
  if (layers_->tls) return false;
  const ssize_t sent =
      ::send(layers_->socket.native_handle(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent > 0 && static_cast<std::size_t>(sent) < text.size()) close();  // half a line cannot be taken back
  return sent == static_cast<ssize_t>(text.size());
}

Task<> Stream::wait_reset() {
  if (co_await async::is_cancelled()) co_return fail(async::canceled_error());
  const auto [ec] = co_await layers_->socket.async_wait(Socket::wait_error, kTuple);
  if (ec && co_await async::is_cancelled()) co_return fail(async::canceled_error());
  co_return Result<>{};
}

bool Stream::quiet() const {
  char byte = 0;
  const ssize_t got = ::recv(layers_->socket.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

void Stream::shutdown_send() {
  error_code ignored;
  layers_->socket.shutdown(Socket::shutdown_send, ignored);
}

void Stream::close() {
  error_code ignored;
  if (layers_) layers_->socket.close(ignored);
}

void Stream::abort() {
  error_code ignored;
  if (layers_) layers_->socket.set_option(asio::socket_base::linger(true, 0), ignored);
  close();
}

std::string Stream::peer() const {
  error_code ec;
  const auto remote = layers_->socket.remote_endpoint(ec);
  if (ec || remote.protocol().family() == AF_UNIX) return "unix";
  tcp::endpoint endpoint;
  endpoint.resize(remote.size());
  std::memcpy(endpoint.data(), remote.data(), remote.size());
  const std::string host = endpoint.address().to_string();
  const std::string port = std::to_string(endpoint.port());
  return endpoint.address().is_v6() ? "[" + host + "]:" + port : host + ":" + port;
}

Task<Stream> connect_stream(Endpoint endpoint) {
  if (!endpoint.unix_path.empty()) {
    try {
      const asio::local::stream_protocol::endpoint address(endpoint.unix_path);
      co_return co_await connect_to(address, endpoint.to_string());
    } catch (const boost::system::system_error& error) {
      co_return fail(Code::kInvalidArgument, "unix socket path: " + error.code().message());
    }
  }
  const auto addresses = CO_TRY(co_await resolve(endpoint.host, endpoint.port));
  Error last(Code::kUnavailable, "no address for " + endpoint.host);
  for (const auto& address : addresses) {
    Result<Stream> stream = co_await connect_to(address, endpoint.to_string());
    if (stream || stream.error().code() == Code::kCanceled) co_return stream;
    last = std::move(stream).error();
  }
  co_return fail(std::move(last));
}

}  // namespace wrenn::net
