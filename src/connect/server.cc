#include <fmt/format.h>

#include <unordered_map>

#include "base/bytes.h"
#include "connect/connect.h"
#include "connect/limits.h"
#include "connect/wire.h"
#include "net/gzip.h"

namespace wrenn::connect {
namespace {

// The one message of a unary request or of a server stream's request.
class OneMessageReader : public MessageReader {
 public:
  OneMessageReader(std::string bytes, Codec codec) : bytes_(std::move(bytes)), codec_(codec) {}
  Task<bool> receive(Message* out) override {
    if (taken_) co_return false;
    taken_ = true;
    CO_TRY(parse(bytes_, codec_, out));
    co_return true;
  }

 private:
  std::string bytes_;
  Codec codec_;
  bool taken_ = false;
};

// A request that cannot be read: its code and message say all; reasons are the handlers'.
Error plain(const Error& error) { return Error(error.code(), error.message()); }

class StreamReader : public MessageReader {
 public:
  StreamReader(FrameReader frames, Codec codec) : frames_(std::move(frames)), codec_(codec) {}
  Task<bool> receive(Message* out) override {
    const auto next = co_await frames_.next();
    if (!next) co_return fail(plain(next.error()));
    const auto& frame = *next;
    if (!frame) co_return false;
    if ((frame->flags & kFlagEndStream) != 0) {
      co_return fail(Code::kInvalidArgument, "a client sends no end-of-stream message");
    }
    CO_TRY(parse(frame->payload, codec_, out));
    co_return true;
  }

 private:
  FrameReader frames_;
  Codec codec_;
};

class HoldingWriter : public MessageWriter {
 public:
  explicit HoldingWriter(Codec codec) : codec_(codec) {}
  Task<> send(const Message* message) override {
    body = CO_TRY(serialize(*message, codec_));
    co_return Result<>{};
  }
  std::string body;

 private:
  Codec codec_;
};

class StreamWriter : public MessageWriter {
 public:
  StreamWriter(net::Exchange* exchange, CallContext* context, Encoding encoding)
      : exchange_(exchange), context_(context), encoding_(encoding) {}
  Task<> send(const Message* message) override {
    std::string bytes = CO_TRY(envelope(*message, encoding_));
    CO_TRY(co_await start());
    co_return co_await exchange_->write(std::move(bytes));
  }
  Task<> end(std::optional<Error> error) {
    CO_TRY(co_await start());
    CO_TRY(co_await exchange_->write(
        raw_envelope(kFlagEndStream, end_stream_json(error, context_->response_trailers))));
    co_return co_await exchange_->finish();
  }

 private:
  Task<> start() {
    if (started_) co_return Result<>{};
    started_ = true;
    net::Headers headers = context_->response_headers;
    headers.set("Content-Type", stream_content_type(encoding_.codec));
    if (encoding_.gzip) headers.set("Connect-Content-Encoding", "gzip");
    headers.set("Connect-Accept-Encoding", "gzip");
    co_return co_await exchange_->start(200, std::move(headers));
  }
  net::Exchange* exchange_;
  CallContext* context_;
  Encoding encoding_;
  bool started_ = false;
};

struct UnaryRequest {
  std::string bytes;
  Encoding encoding;  // of the response
};

Result<> check_version(const net::RequestHead& head) {
  const std::string_view version = head.headers.get("connect-protocol-version");
  if (!version.empty() && version != "1") {
    return fail(Code::kInvalidArgument,
                fmt::format("Connect-Protocol-Version must be \"1\": got \"{}\"", version));
  }
  return {};
}

Result<std::string> get_message(const net::RequestHead& head, std::size_t limit) {
  std::string message = head.query("message").value_or("");
  if (head.query("base64").value_or("") == "1") message = TRY(from_base64(message));
  if (TRY(is_gzip(head.query("compression").value_or("")))) return net::gzip_decompress(message, limit);
  if (message.size() > limit) {
    return fail(Error(Code::kResourceExhausted, fmt::format("message is larger than {} bytes", limit))
                    .with_reason("too_large"));
  }
  return message;
}

std::optional<Codec> codec_of_get(const net::RequestHead& head) {
  const std::string name = head.query("encoding").value_or("");
  if (name == "proto") return Codec::kProto;
  if (name == "json") return Codec::kJson;
  return std::nullopt;
}

Task<> respond_unary_error(std::shared_ptr<net::Exchange> exchange, Context context, Error error) {
  net::Headers headers = context->response_headers;
  for (const auto& [name, value] : context->response_trailers.all()) headers.add("trailer-" + name, value);
  headers.set("Content-Type", "application/json");
  co_return co_await exchange->respond(http_status_of(error.code()), std::move(headers), error_json(error));
}

// Bounds a handler by the client's deadline and by the client's presence.
Task<> run_bounded(Task<> handler, Context context, net::Exchange* watched) {
  if (watched != nullptr) handler = async::run_until(std::move(handler), watched->wait_disconnect());
  if (!context->timeout) co_return co_await std::move(handler);
  co_return co_await async::with_timeout(std::move(handler), *context->timeout, "the call");
}

}  // namespace

struct Router::State {
  struct Route {
    Kind kind = Kind::kUnary;
    bool side_effect_free = false;
    RawHandler handler;
  };
  ServerOptions options;
  std::unordered_map<std::string, Route> routes;

  Task<> serve_unary(std::shared_ptr<net::Exchange> exchange, const Route* route);
  Task<UnaryRequest> read_unary(net::Exchange* exchange, Codec codec) const;
  Task<> respond_unary(std::shared_ptr<net::Exchange> exchange, Context context, Encoding encoding,
                       std::string body) const;
  Task<> serve_stream(std::shared_ptr<net::Exchange> exchange, const Route* route);
  Task<> run_stream(net::Exchange* exchange, const Route* route, Context context, Codec codec,
                    StreamWriter* out) const;
};

Router::Router(ServerOptions options) : state_(std::make_unique<State>()) { state_->options = options; }
Router::~Router() = default;

void Router::add(std::string procedure, Kind kind, bool side_effect_free, RawHandler handler) {
  state_->routes[std::move(procedure)] = {kind, side_effect_free, std::move(handler)};
}

bool Router::knows(std::string_view path) const { return state_->routes.contains(std::string(path)); }

namespace {

Context make_context(const net::Exchange& exchange) {
  auto context = std::make_shared<CallContext>();
  context->request_headers = exchange.request().headers;
  context->peer = exchange.peer();
  return context;
}

Task<> refuse(std::shared_ptr<net::Exchange> exchange, int status, std::string header, std::string value) {
  net::Headers headers;
  if (!header.empty()) headers.set(std::move(header), std::move(value));
  co_return co_await exchange->respond(status, std::move(headers), "");
}

}  // namespace

Task<> Router::handle(std::shared_ptr<net::Exchange> exchange) {
  const net::RequestHead& head = exchange->request();
  const auto found = state_->routes.find(head.path());
  if (found == state_->routes.end()) co_return co_await refuse(exchange, 404, "", "");
  const State::Route& route = found->second;
  const bool get = head.method == "GET" && route.side_effect_free;
  if (head.method != "POST" && !get) {
    co_return co_await refuse(exchange, 405, "Allow", route.side_effect_free ? "GET, POST" : "POST");
  }
  if (route.kind == Kind::kUnary) co_return co_await state_->serve_unary(std::move(exchange), &route);
  co_return co_await state_->serve_stream(std::move(exchange), &route);
}

Task<UnaryRequest> Router::State::read_unary(net::Exchange* exchange, Codec codec) const {
  const net::RequestHead& head = exchange->request();
  UnaryRequest request{.bytes = {}, .encoding = {.codec = codec, .gzip = false}};
  request.encoding.gzip = options.compress && accepts_gzip(head.headers.get("accept-encoding"));
  CO_TRY(check_version(head));
  if (head.method == "GET") {
    request.bytes = CO_TRY(get_message(head, options.max_message_bytes));
    co_return request;
  }
  const bool gzip = CO_TRY(is_gzip(head.headers.get("content-encoding")));
  request.bytes = CO_TRY(co_await net::read_all(exchange, options.max_message_bytes));
  if (gzip && !request.bytes.empty()) {
    request.bytes = CO_TRY(net::gzip_decompress(request.bytes, options.max_message_bytes));
  }
  co_return request;
}

Task<> Router::State::serve_unary(std::shared_ptr<net::Exchange> exchange, const Route* route) {
  const net::RequestHead& head = exchange->request();
  const auto codec =
      head.method == "GET" ? codec_of_get(head) : unary_codec(head.headers.get("content-type"));
  if (!codec) co_return co_await refuse(exchange, 415, "Accept-Post", "application/json, application/proto");
  Context context = make_context(*exchange);
  const auto timeout = parse_timeout(head.headers);
  if (!timeout) co_return co_await respond_unary_error(exchange, context, timeout.error());
  context->timeout = *timeout;
  auto request = co_await read_unary(exchange.get(), *codec);
  if (!request) {
    if (request.error().code() == Code::kUnavailable) co_return fail(request.error());  // the client left
    co_return co_await respond_unary_error(exchange, context, plain(request.error()));
  }
  OneMessageReader in(std::move(request->bytes), *codec);
  HoldingWriter out(*codec);
  const Result<> done = co_await run_bounded(route->handler(context, &in, &out), context, exchange.get());
  if (!done) co_return co_await respond_unary_error(exchange, context, done.error());
  co_return co_await respond_unary(exchange, context, request->encoding, std::move(out.body));
}

Task<> Router::State::respond_unary(std::shared_ptr<net::Exchange> exchange, Context context,
                                    Encoding encoding, std::string body) const {
  net::Headers headers = context->response_headers;
  for (const auto& [name, value] : context->response_trailers.all()) headers.add("trailer-" + name, value);
  headers.set("Content-Type", unary_content_type(encoding.codec));
  headers.set("Accept-Encoding", "gzip");
  if (encoding.gzip && body.size() > kCompressAboveBytes) {
    body = CO_TRY(net::gzip_compress(body));
    headers.set("Content-Encoding", "gzip");
  }
  co_return co_await exchange->respond(200, std::move(headers), std::move(body));
}

Task<> Router::State::serve_stream(std::shared_ptr<net::Exchange> exchange, const Route* route) {
  const net::RequestHead& head = exchange->request();
  const auto codec = stream_codec(head.headers.get("content-type"));
  if (!codec) {
    co_return co_await refuse(exchange, 415, "Accept-Post",
                              "application/connect+json, application/connect+proto");
  }
  Context context = make_context(*exchange);
  const bool gzip = options.compress && accepts_gzip(head.headers.get("connect-accept-encoding"));
  StreamWriter out(exchange.get(), context.get(), {.codec = *codec, .gzip = gzip});
  const Result<> done = co_await run_stream(exchange.get(), route, context, *codec, &out);
  co_return co_await out.end(done ? std::nullopt : std::optional<Error>(done.error()));
}

Task<> Router::State::run_stream(net::Exchange* exchange, const Route* route, Context context, Codec codec,
                                 StreamWriter* out) const {
  const net::RequestHead& head = exchange->request();
  context->timeout = CO_TRY(parse_timeout(head.headers));
  CO_TRY(check_version(head));
  const bool gzip = CO_TRY(is_gzip(head.headers.get("connect-content-encoding")));
  FrameReader frames(exchange, gzip, options.max_message_bytes);
  if (route->kind != Kind::kServerStream) {
    StreamReader in(std::move(frames), codec);
    co_return co_await run_bounded(route->handler(context, &in, out), context, nullptr);
  }
  auto first = co_await frames.next();
  if (!first) co_return fail(plain(first.error()));
  auto& only = *first;
  if (!only) co_return fail(Code::kUnimplemented, "the request has no message");
  if (CO_TRY(co_await frames.next())) {
    co_return fail(Code::kUnimplemented, "the request has more than one message");
  }
  OneMessageReader in(std::move(only->payload), codec);
  co_return co_await run_bounded(route->handler(context, &in, out), context, exchange);
}

}  // namespace wrenn::connect
