#include "net/exchange.h"

#include <fmt/chrono.h>

#include <chrono>

#include "base/bytes.h"
#include "net/byte_stream.h"
#include "net/framing.h"
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
    case 408:
      return "Request Timeout";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    default:
      return "";
  }
}

constexpr int kNotModified = 304;
constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

bool has_no_body(int status) { return status == 204 || status == kNotModified || status < 200; }

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

BodyLength ServerExchange::body_length() const {
  if (head_.body == BodyKind::kChunked) return std::nullopt;
  return head_.body == BodyKind::kLength ? head_.length : 0;
}

Task<std::size_t> ServerExchange::read(std::span<char> buffer) {
  if (continue_owed_ && !started()) {
    continue_owed_ = false;
    CO_TRY(co_await connection_->stream.write({asio::buffer(kContinue)}));
  }
  auto got = co_await source_.read(buffer);
  if (!got && got.error().code() == Code::kInvalidArgument) malformed_ = true;
  co_return got;
}

Task<> ServerExchange::send_head(int status, Headers headers, BodyLength length, std::string body) {
  if (started()) co_return fail(Code::kInternal, "the response has already started");
  if (!headers_are_safe(headers)) co_return fail(Code::kInternal, "a response header would break its line");
  drop_framing(&headers);
  bodiless_ = head_.request.method == "HEAD" || has_no_body(status);
  chunked_ = !length && !bodiless_ && !head_.http10;
  left_ = length;
  if (length && (!has_no_body(status) || status == kNotModified)) {
    headers.set("Content-Length", std::to_string(*length));
  }
  if (chunked_) headers.set("Transfer-Encoding", "chunked");
  // The end of the connection ends such a body.
  if (!length && !bodiless_ && head_.http10) close_ = true;
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
  const BodyLength length = status == kNotModified ? std::nullopt : BodyLength(body.size());
  CO_TRY(co_await send_head(status, std::move(headers), length, std::move(body)));
  phase_ = Phase::kFinished;
  co_return Result<>{};
}

Task<> ServerExchange::start(int status, Headers headers, BodyLength length) {
  co_return co_await send_head(status, std::move(headers), length, "");
}

Task<> ServerExchange::write(std::string bytes) {
  if (phase_ != Phase::kStarted) co_return fail(Code::kInternal, "write outside a started response");
  if (bodiless_ || bytes.empty()) co_return Result<>{};
  if (chunked_) co_return co_await write_chunk(connection_.get(), std::move(bytes));
  if (left_) {
    if (bytes.size() > *left_) co_return fail(Code::kInternal, "more body than its length says");
    *left_ -= bytes.size();
  }
  co_return co_await connection_->stream.write({asio::buffer(bytes)});
}

Task<> ServerExchange::finish() {
  if (phase_ != Phase::kStarted) co_return fail(Code::kInternal, "finish outside a started response");
  if (!bodiless_ && left_.value_or(0) > 0) co_return fail(Code::kInternal, "less body than its length says");
  if (chunked_) {
    const std::string last = "0\r\n\r\n";
    CO_TRY(co_await connection_->stream.write({asio::buffer(last)}));
  }
  phase_ = Phase::kFinished;
  co_return Result<>{};
}

Task<std::unique_ptr<WebSocket>> ServerExchange::accept_websocket() {
  if (started()) co_return fail(Code::kInternal, "the response has already started");
  if (!source_.done()) co_return fail(Code::kInvalidArgument, "a request to upgrade has no body");
  auto socket = co_await accept_websocket_stream(connection_.get(), head_.request);
  // Once the stream has changed hands this connection is over, whatever came of the handshake.
  if (!connection_->stream.is_open()) phase_ = Phase::kUpgraded;
  co_return socket;
}

Task<std::unique_ptr<ByteStream>> ServerExchange::switch_protocols(std::string protocol, Headers headers) {
  if (started()) co_return fail(Code::kInternal, "the response has already started");
  if (!source_.done()) co_return fail(Code::kInvalidArgument, "a request to upgrade has no body");
  drop_framing(&headers);
  headers.set("Connection", "Upgrade");
  headers.set("Upgrade", std::move(protocol));
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
    if (!more) co_return Result<>{};
    if (!*more) co_return co_await watch_half_closed();
  }
  // A peer that sends this far ahead is served blindly until its next read.
  co_return co_await connection_->stream.wait_reset();
}

// Most clients that end their side have left, but some wait for the answer. An interim one tells: a client
// that has left resets the connection. Once the answer has begun it must do that itself, so if it is silent
// the client is not waited for long.
Task<> ServerExchange::watch_half_closed() {
  Stream& stream = connection_->stream;
  if (!started() && !head_.http10 && stream.write_now(kContinue)) co_return co_await stream.wait_reset();
  while (true) {
    const std::uint64_t before = stream.writes();
    const auto reset =
        co_await async::with_timeout(stream.wait_reset(), kHalfClosedQuiet, "a word to the client");
    if (reset || reset.error().code() != Code::kDeadlineExceeded) co_return reset;
    if (!stream.writing() && stream.writes() == before) co_return Result<>{};
  }
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
    CO_TRY(co_await respond(malformed_ ? 400 : 500, {}, ""));
  }
  if (phase_ != Phase::kFinished) co_return false;
  if (!close_ && co_await async::with_timeout(drain(), kLingerTime, "drain")) co_return true;
  connection_->stream.shutdown_send();
  co_await async::with_timeout(linger(connection_.get()), kLingerTime, "linger");
  co_return false;
}

}  // namespace wrenn::net
