#include "net/exchange.h"

#include <fmt/chrono.h>

#include <charconv>
#include <chrono>

#include "base/bytes.h"
#include "net/byte_stream.h"
#include "net/websocket_stream.h"

namespace wrenn::net {
namespace {

std::string_view reason_phrase(int status) {
  switch (status) {
    case 100:
      return "Continue";
    case 101:
      return "Switching Protocols";
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    default:
      return "";
  }
}

bool has_no_body(int status) { return status == 204 || status == 304 || status < 200; }

}  // namespace

std::string response_head(int status, const Headers& headers, bool http10) {
  std::string out = fmt::format("HTTP/1.{} {} {}\r\n", http10 ? 0 : 1, status, reason_phrase(status));
  if (!headers.has("date")) {
    const auto now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
    out += fmt::format("Date: {:%a, %d %b %Y %H:%M:%S GMT}\r\n", fmt::gmtime(now));
  }
  append_headers(&out, headers);
  out += "\r\n";
  return out;
}

ServerExchange::ServerExchange(std::shared_ptr<Connection> connection, ParsedHead head,
                               std::unique_ptr<Parser> parser)
    : connection_(std::move(connection)),
      head_(std::move(head)),
      source_(connection_.get(), std::move(parser), head_.body, head_.length),
      peer_(connection_->stream.peer()),
      close_(!head_.keep_alive),
      continue_owed_(!source_.done() && ascii_iequal(head_.request.headers.get("expect"), "100-continue")) {}

Task<std::size_t> ServerExchange::read(std::span<char> buffer) {
  if (continue_owed_ && !started()) {
    continue_owed_ = false;
    const std::string interim = "HTTP/1.1 100 Continue\r\n\r\n";
    CO_TRY(co_await connection_->stream.write({asio::buffer(interim)}));
  }
  co_return co_await source_.read(buffer);
}

Task<> ServerExchange::send_head(int status, Headers headers, std::string body) {
  if (started()) co_return fail(Code::kInternal, "the response has already started");
  if (!headers_are_safe(headers)) co_return fail(Code::kInternal, "a response header would break its line");
  bodiless_ = head_.request.method == "HEAD" || has_no_body(status);
  // A client that is promised the connection again may use it at once, so the promise must be kept.
  if (!rest_is_bounded()) close_ = true;
  if (ascii_iequal(headers.get("connection"), "close")) close_ = true;
  if (close_) headers.set("Connection", "close");
  phase_ = Phase::kStarted;
  const std::string text = response_head(status, headers, head_.http10);
  if (bodiless_) body.clear();
  co_return co_await connection_->stream.write({asio::buffer(text), asio::buffer(body)});
}

Task<> ServerExchange::respond(int status, Headers headers, std::string body) {
  if (!has_no_body(status)) headers.set("Content-Length", std::to_string(body.size()));
  CO_TRY(co_await send_head(status, std::move(headers), std::move(body)));
  phase_ = Phase::kFinished;
  co_return Result<>{};
}

Task<> ServerExchange::start(int status, Headers headers) {
  const std::string length(headers.get("content-length"));
  chunked_ = length.empty() && !has_no_body(status) && !head_.http10;
  if (!length.empty()) {
    const auto [end, ec] = std::from_chars(length.data(), length.data() + length.size(), length_left_);
    if (ec != std::errc() || *end != '\0') co_return fail(Code::kInternal, "bad Content-Length");
  } else if (head_.http10) {
    close_ = true;  // the end of the connection ends the body
  }
  if (chunked_) headers.set("Transfer-Encoding", "chunked");
  co_return co_await send_head(status, std::move(headers), "");
}

Task<> ServerExchange::write(std::string bytes) {
  if (phase_ != Phase::kStarted) co_return fail(Code::kInternal, "write outside a started response");
  if (bodiless_ || bytes.empty()) co_return Result<>{};
  if (chunked_) co_return co_await write_chunk(connection_.get(), std::move(bytes));
  if (!head_.http10 || length_left_ > 0) {
    if (bytes.size() > length_left_) co_return fail(Code::kInternal, "more body than Content-Length says");
    length_left_ -= bytes.size();
  }
  co_return co_await connection_->stream.write({asio::buffer(bytes)});
}

Task<> ServerExchange::finish() {
  if (phase_ != Phase::kStarted) co_return fail(Code::kInternal, "finish outside a started response");
  if (!bodiless_ && length_left_ > 0) co_return fail(Code::kInternal, "less body than Content-Length says");
  if (chunked_ && !bodiless_) {
    const std::string last = "0\r\n\r\n";
    CO_TRY(co_await connection_->stream.write({asio::buffer(last)}));
  }
  phase_ = Phase::kFinished;
  co_return Result<>{};
}

Task<std::unique_ptr<WebSocket>> ServerExchange::accept_websocket() {
  if (started()) co_return fail(Code::kInternal, "the response has already started");
  auto socket = co_await accept_websocket_stream(connection_.get(), head_.request);
  // Once the stream has changed hands this connection is over, whatever came of the handshake.
  if (!connection_->stream.is_open()) phase_ = Phase::kUpgraded;
  co_return socket;
}

Task<std::unique_ptr<ByteStream>> ServerExchange::switch_protocols(Headers headers) {
  if (started()) co_return fail(Code::kInternal, "the response has already started");
  if (!headers_are_safe(headers)) co_return fail(Code::kInternal, "a response header would break its line");
  phase_ = Phase::kUpgraded;
  const std::string text = response_head(101, headers, false);
  CO_TRY(co_await connection_->stream.write({asio::buffer(text)}));
  co_return std::make_unique<ConnectionStream>(connection_);
}

Task<> ServerExchange::wait_disconnect() {
  while (connection_->input.size() < kMaxReadBufferBytes) {
    const auto more = co_await connection_->fill();
    if (!more && more.error().code() == Code::kCanceled) co_return fail(more.error());
    if (!more || !*more) co_return Result<>{};
  }
  // A peer that sends this far ahead is served blindly until its next read.
  async::Condition never(co_await asio::this_coro::executor);
  co_return co_await never.wait();
}

bool ServerExchange::rest_is_bounded() {
  source_.skip_buffered();
  return source_.done() ||
         (!continue_owed_ && source_.known_rest().value_or(kMaxDrainBytes + 1) <= kMaxDrainBytes);
}

Task<> ServerExchange::drain() {
  std::string scrap(kReadBufferBytes, '\0');
  while (!source_.done()) CO_TRY(co_await source_.read(scrap));
  co_return Result<>{};
}

Task<bool> ServerExchange::settle(Result<> handled) {
  if (phase_ == Phase::kUpgraded) co_return false;
  if (phase_ == Phase::kWaiting) {
    if (!handled && handled.error().code() == Code::kUnavailable) co_return false;  // the client left
    CO_TRY(co_await respond(500, {}, ""));
  }
  if (phase_ != Phase::kFinished) co_return false;
  if (!close_ && co_await async::with_timeout(drain(), kLingerTime, "drain")) co_return true;
  connection_->stream.shutdown_send();
  const auto linger = [](Connection* connection) -> Task<> {
    while (true) {
      connection->input.consume(connection->input.size());
      if (!CO_TRY(co_await connection->fill())) co_return Result<>{};
    }
  };
  co_await async::with_timeout(linger(connection_.get()), kLingerTime, "linger");
  co_return false;
}

}  // namespace wrenn::net
