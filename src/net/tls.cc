#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/ssl/stream.hpp>

#include "net/stream.h"

namespace wrenn::net {
namespace {

namespace ssl = asio::ssl;
using boost::system::error_code;
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

Error tls_error(std::string_view what, const error_code& ec) {
  return Error(Code::kInvalidArgument, std::string(what) + ": " + ec.message());
}

class OpenSslStream : public TlsStream {
 public:
  OpenSslStream(Socket* socket, ssl::context* context) : stream(*socket, *context) {}
  void read_some(std::vector<asio::mutable_buffer> buffers, IoHandler handler) override {
    stream.async_read_some(buffers, std::move(handler));
  }
  void write_some(std::vector<asio::const_buffer> buffers, IoHandler handler) override {
    stream.async_write_some(buffers, std::move(handler));
  }
  ssl::stream<Socket&> stream;
};

class OpenSslContext : public TlsContext {
 public:
  explicit OpenSslContext(ssl::context::method method) : context_(method) {
    error_code ignored;
    context_.set_options(
        ssl::context::default_workarounds | ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1, ignored);
  }

  // Loads own certificate and key, if named.
  Result<> load_identity(const TlsFiles& files) {
    error_code ec;
    if (!files.certificate.empty()) context_.use_certificate_chain_file(files.certificate, ec);
    if (ec) return fail(tls_error("TLS certificate " + files.certificate, ec));
    if (!files.key.empty()) context_.use_private_key_file(files.key, ssl::context::pem, ec);
    if (ec) return fail(tls_error("TLS key " + files.key, ec));
    return {};
  }

  Result<> load_ca(const std::string& file) {
    error_code ec;
    context_.load_verify_file(file, ec);
    if (ec) return fail(tls_error("TLS CA " + file, ec));
    return {};
  }

  void trust_the_systems_cas() {
    error_code ignored;
    context_.set_default_verify_paths(ignored);
  }

  void verify(ssl::verify_mode mode) {
    error_code ignored;
    context_.set_verify_mode(mode, ignored);
  }

  Task<std::unique_ptr<TlsStream>> accept(Socket* socket) override {
    auto tls = std::make_unique<OpenSslStream>(socket, &context_);
    const auto [ec] = co_await tls->stream.async_handshake(ssl::stream_base::server, kTuple);
    if (ec) co_return fail(co_await stream_error(ec));
    co_return tls;
  }

  Task<std::unique_ptr<TlsStream>> connect(Socket* socket, std::string host) override {
    auto tls = std::make_unique<OpenSslStream>(socket, &context_);
    error_code ec;
    tls->stream.set_verify_callback(ssl::host_name_verification(host), ec);
    asio::ip::make_address(host, ec);
    // Server name indication is for names only.
    if (ec) {
      SSL_ctrl(tls->stream.native_handle(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
               host.data());
    }
    const auto [failed] = co_await tls->stream.async_handshake(ssl::stream_base::client, kTuple);
    if (failed) co_return fail((co_await stream_error(failed)).in("TLS handshake with " + host));
    co_return tls;
  }

 private:
  ssl::context context_;
};

}  // namespace

Result<std::shared_ptr<TlsContext>> server_tls(const TlsFiles& files) {
  auto context = std::make_shared<OpenSslContext>(ssl::context::tls_server);
  TRY(context->load_identity(files));
  if (!files.client_ca.empty()) {
    TRY(context->load_ca(files.client_ca));
    context->verify(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert);
  }
  return context;
}

Result<std::shared_ptr<TlsContext>> client_tls(const TlsFiles& files) {
  auto context = std::make_shared<OpenSslContext>(ssl::context::tls_client);
  TRY(context->load_identity(files));
  if (files.client_ca.empty()) {
    context->trust_the_systems_cas();
  } else {
    TRY(context->load_ca(files.client_ca));
  }
  context->verify(ssl::verify_peer);
  return context;
}

}  // namespace wrenn::net
