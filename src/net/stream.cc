#include "net/stream.h"

#include <sys/socket.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>

namespace wrenn::net {
namespace {

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
using asio::ip::tcp;
using boost::system::error_code;

Error tls_error(std::string_view what, const error_code& ec) {
  return Error(Code::kInvalidArgument, std::string(what) + ": " + ec.message());
}

// Loads own certificate and key, if named.
Result<> load_identity(ssl::context& context, const TlsFiles& files) {
  error_code ec;
  if (!files.certificate.empty()) context.use_certificate_chain_file(files.certificate, ec);
  if (ec) return fail(tls_error("TLS certificate " + files.certificate, ec));
  if (!files.key.empty()) context.use_private_key_file(files.key, ssl::context::pem, ec);
  if (ec) return fail(tls_error("TLS key " + files.key, ec));
  return {};
}

std::shared_ptr<ssl::context> new_context(ssl::context::method method) {
  auto context = std::make_shared<ssl::context>(method);
  error_code ignored;
  context->set_options(ssl::context::default_workarounds | ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1,
                       ignored);
  return context;
}

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
  if (host == "localhost" || host.empty()) {
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
  }
  co_return Stream(std::move(socket));
}

}  // namespace

asio::awaitable<Error> stream_error(error_code code) {
  if (co_await async::is_cancelled()) co_return async::canceled_error();
  if (code == asio::error::operation_aborted || code == asio::error::bad_descriptor) {
    co_return Error(Code::kUnavailable, "connection closed here");
  }
  co_return Error(Code::kUnavailable, "connection lost: " + code.message());
}

Stream::Stream(Socket socket) : layers_(std::make_unique<Layers>(std::move(socket))) {}

Task<> Stream::handshake_server(std::shared_ptr<ssl::context> context) {
  layers_->context = std::move(context);
  layers_->tls = std::make_unique<Tls>(layers_->socket, *layers_->context);
  const auto [ec] = co_await layers_->tls->async_handshake(ssl::stream_base::server, kTuple);
  if (ec) co_return fail(co_await stream_error(ec));
  co_return Result<>{};
}

Task<> Stream::handshake_client(std::shared_ptr<ssl::context> context, std::string host) {
  layers_->context = std::move(context);
  layers_->tls = std::make_unique<Tls>(layers_->socket, *layers_->context);
  error_code ec;
  layers_->tls->set_verify_mode(ssl::verify_peer, ec);
  layers_->tls->set_verify_callback(ssl::host_name_verification(host), ec);
  asio::ip::make_address(host, ec);
  // Server name indication is for names only.
  if (ec)
    SSL_ctrl(layers_->tls->native_handle(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
             host.data());
  const auto [failed] = co_await layers_->tls->async_handshake(ssl::stream_base::client, kTuple);
  if (failed) co_return fail((co_await stream_error(failed)).in("TLS handshake with " + host));
  co_return Result<>{};
}

Task<std::size_t> Stream::read_some(std::span<char> buffer) {
  if (co_await async::is_cancelled()) co_return fail(async::canceled_error());
  const auto [ec, count] = co_await async_read_some(asio::buffer(buffer.data(), buffer.size()), kTuple);
  if (!ec) co_return count;
  if (ec == asio::error::eof) co_return std::size_t{0};
  co_return fail(co_await stream_error(ec));
}

Task<> Stream::write(std::array<asio::const_buffer, 3> buffers) {
  if (co_await async::is_cancelled()) co_return fail(async::canceled_error());
  const auto [ec, count] = co_await asio::async_write(*this, buffers, kTuple);
  if (!ec) co_return Result<>{};
  Error error = co_await stream_error(ec);
  co_return fail(std::move(error));
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

Result<std::shared_ptr<ssl::context>> make_server_tls(const TlsFiles& files) {
  auto context = new_context(ssl::context::tls_server);
  TRY(load_identity(*context, files));
  if (!files.client_ca.empty()) {
    error_code ec;
    context->load_verify_file(files.client_ca, ec);
    if (ec) return fail(tls_error("TLS client CA " + files.client_ca, ec));
    context->set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert, ec);
  }
  return context;
}

Result<std::shared_ptr<ssl::context>> make_client_tls(const std::optional<TlsFiles>& files) {
  auto context = new_context(ssl::context::tls_client);
  error_code ec;
  if (files) TRY(load_identity(*context, *files));
  if (files && !files->client_ca.empty()) {
    context->load_verify_file(files->client_ca, ec);
    if (ec) return fail(tls_error("TLS CA " + files->client_ca, ec));
  } else {
    context->set_default_verify_paths(ec);
  }
  context->set_verify_mode(ssl::verify_peer, ec);
  return context;
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
