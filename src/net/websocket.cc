#include "net/websocket.h"

#include <fmt/format.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/websocket/stream.hpp>

#include "base/bytes.h"
#include "net/framing.h"
#include "net/websocket_stream.h"

namespace wrenn::net {

namespace beast = boost::beast;
namespace http = beast::http;
namespace websocket = beast::websocket;
using boost::system::error_code;

// Beast finds these to end the stream below a WebSocket.
void beast_close_socket(Stream& stream) { stream.close(); }
void teardown(beast::role_type, Stream& stream, error_code& ec) {
  stream.close();
  ec = {};
}
template <class Handler>
void async_teardown(beast::role_type, Stream& stream, Handler&& handler) {
  stream.shutdown_send();
  asio::post(stream.get_executor(),
             [done = std::forward<Handler>(handler)]() mutable { std::move(done)(error_code{}); });
}

namespace {

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
constexpr Milliseconds kHandshakeTime{10'000};
// Pings go out after half of this without traffic; a peer silent for all of it is gone.
constexpr Milliseconds kIdleTime{60'000};

using BeastSocket = websocket::stream<Stream, false>;

Code code_of_status(unsigned status) {
  switch (status) {
    case 400:
      return Code::kInvalidArgument;
    case 401:
      return Code::kUnauthenticated;
    case 403:
      return Code::kPermissionDenied;
    case 404:
      return Code::kNotFound;
    case 409:
      return Code::kFailedPrecondition;
    case 429:
      return Code::kResourceExhausted;
    default:
      return Code::kUnavailable;
  }
}

class BeastWebSocket : public WebSocket {
 public:
  explicit BeastWebSocket(Stream stream)
      : executor_(stream.get_executor()), socket_(std::move(stream)), sending_(executor_) {
    websocket::stream_base::timeout limits{};
    limits.handshake_timeout = kHandshakeTime;
    limits.idle_timeout = kIdleTime;
    limits.keep_alive_pings = true;
    socket_.set_option(limits);
    socket_.read_message_max(kMaxWebSocketMessageBytes);
  }

  Task<> accept(http::request<http::string_body> request) {
    const auto [ec] = co_await socket_.async_accept(request, kTuple);
    if (ec) co_return fail(Code::kInvalidArgument, "WebSocket upgrade: " + ec.message());
    co_return Result<>{};
  }

  Task<> connect(std::string host, RequestHead request) {
    drop_framing(&request.headers);
    socket_.set_option(
        websocket::stream_base::decorator([fields = request.headers](websocket::request_type& out) {
          for (const auto& [name, value] : fields.all()) out.set(name, value);
        }));
    websocket::response_type response;
    const auto [ec] = co_await socket_.async_handshake(response, host, request.target, kTuple);
    if (!ec) co_return Result<>{};
    if (ec != websocket::error::upgrade_declined) co_return fail(co_await stream_error(ec));
    const unsigned status = response.result_int();
    std::string text = response.body().substr(0, kReadBufferBytes);
    if (text.empty()) text = fmt::format("the server refused the WebSocket with status {}", status);
    co_return fail(code_of_status(status), std::move(text));
  }

  Task<std::optional<WebSocketMessage>> receive() override {
    if (co_await async::is_cancelled()) co_return fail(async::canceled_error());
    buffer_.clear();
    const auto [ec, count] = co_await socket_.async_read(buffer_, kTuple);
    if (ec == websocket::error::closed) co_return std::optional<WebSocketMessage>{};
    if (ec) co_return fail(co_await stream_error(ec));
    const auto bytes = buffer_.data();
    co_return std::optional<WebSocketMessage>(WebSocketMessage{
        std::string(static_cast<const char*>(bytes.data()), bytes.size()), socket_.got_text()});
  }

  Task<> send(WebSocketMessage message) override {
    const auto turn = CO_TRY(co_await sending_.lock());
    socket_.text(message.text);
    const auto [ec, count] = co_await socket_.async_write(asio::buffer(message.data), kTuple);
    if (ec) co_return fail(co_await stream_error(ec));
    co_return Result<>{};
  }

  Task<> close(std::uint16_t code, std::string reason) override {
    const auto say_goodbye = [](BeastWebSocket* self, std::uint16_t number, std::string text) -> Task<> {
      const auto turn = CO_TRY(co_await self->sending_.lock());
      text.resize(std::min<std::size_t>(text.size(), 120));
      const auto [ec] = co_await self->socket_.async_close(
          websocket::close_reason(static_cast<websocket::close_code>(number), text), kTuple);
      if (ec) co_return fail(co_await stream_error(ec));
      co_return Result<>{};
    };
    co_return co_await async::with_timeout(say_goodbye(this, code, std::move(reason)), kWebSocketCloseTime,
                                           "closing the WebSocket");
  }

 private:
  asio::any_io_executor executor_;
  BeastSocket socket_;
  beast::flat_buffer buffer_;
  async::Mutex sending_;
};

}  // namespace

Task<std::unique_ptr<WebSocket>> accept_websocket_stream(Connection* connection, RequestHead request) {
  http::request<http::string_body> upgrade(http::verb::get, request.target, 11);
  upgrade.method_string(request.method);
  for (const auto& [name, value] : request.headers.all()) upgrade.insert(name, value);
  if (!websocket::is_upgrade(upgrade))
    co_return fail(Code::kInvalidArgument, "this route wants a WebSocket upgrade");
  // Frames may come on the heels of the request.
  connection->stream.unread(std::string(connection->input.view()));
  connection->input.consume(connection->input.size());
  auto socket = std::make_unique<BeastWebSocket>(std::move(connection->stream));
  CO_TRY(co_await socket->accept(std::move(upgrade)));
  co_return std::unique_ptr<WebSocket>(std::move(socket));
}

Task<std::unique_ptr<WebSocket>> connect_websocket_stream(Stream stream, std::string host,
                                                          RequestHead request) {
  auto socket = std::make_unique<BeastWebSocket>(std::move(stream));
  CO_TRY(co_await socket->connect(std::move(host), std::move(request)));
  co_return std::unique_ptr<WebSocket>(std::move(socket));
}

}  // namespace wrenn::net
