#pragma once

#include <google/protobuf/message.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "net/http.h"

// The Connect protocol (https://connectrpc.com/docs/protocol) over HTTP/1.1: unary with POST and GET, and
// streams with envelopes; protobuf and JSON codecs; gzip; deadlines; error details. Errors cross as their
// code and message; an Error's reason and field travel in a wrenn.v1.ErrorReason detail.
namespace wrenn::connect {

using google::protobuf::Message;

// What a handler sees of a call.
struct CallContext {
  net::Headers request_headers;
  net::Headers response_headers;        // sent before the first message
  net::Headers response_trailers;       // sent at the end
  std::optional<Milliseconds> timeout;  // the client's Connect-Timeout-Ms; already enforced by the server
  std::string peer;
};
using Context = std::shared_ptr<CallContext>;

struct ServerOptions {
  std::size_t max_message_bytes = 4 * 1024 * 1024;  // after decompression; above: resource_exhausted
  bool compress = false;                            // gzip responses above 1 KiB when the client accepts
};

// Untyped ends of a call's streams.
class MessageReader {
 public:
  virtual ~MessageReader() = default;
  // False at the clean end of the stream.
  virtual Task<bool> receive(Message* out) = 0;
};
class MessageWriter {
 public:
  virtual ~MessageWriter() = default;
  virtual Task<> send(const Message* message) = 0;
};

template <class T>
class Reader {
 public:
  explicit Reader(MessageReader* raw) : raw_(raw) {}
  Task<std::optional<T>> receive() {
    T message;
    if (!CO_TRY(co_await raw_->receive(&message))) co_return std::optional<T>{};
    co_return std::optional<T>(std::move(message));
  }

 private:
  MessageReader* raw_;
};
template <class T>
class Writer {
 public:
  explicit Writer(MessageWriter* raw) : raw_(raw) {}
  Task<> send(T message) { co_return co_await raw_->send(&message); }

 private:
  MessageWriter* raw_;
};

enum class Kind { kUnary, kServerStream, kClientStream, kBidi };

// Routes calls by procedure ("/pkg.Service/Method") and speaks the protocol. A streaming handler is cancelled
// when its client disconnects; wrap what must finish in async::shielded.
class Router {
 public:
  explicit Router(ServerOptions options = {});
  ~Router();

  template <class Req, class Res>
  void unary(std::string procedure, std::function<Task<Res>(Context, Req)> handler,
             bool side_effect_free = false) {
    add(std::move(procedure), Kind::kUnary, side_effect_free,
        [handler = std::move(handler)](Context context, MessageReader* in, MessageWriter* out) -> Task<> {
          return call_unary<Req, Res>(handler, std::move(context), in, out);
        });
  }
  template <class Req, class Res>
  void server_stream(std::string procedure, std::function<Task<>(Context, Req, Writer<Res>)> handler) {
    add(std::move(procedure), Kind::kServerStream, false,
        [handler = std::move(handler)](Context context, MessageReader* in, MessageWriter* out) -> Task<> {
          return call_server_stream<Req, Res>(handler, std::move(context), in, out);
        });
  }
  template <class Req, class Res>
  void client_stream(std::string procedure, std::function<Task<Res>(Context, Reader<Req>)> handler) {
    add(std::move(procedure), Kind::kClientStream, false,
        [handler = std::move(handler)](Context context, MessageReader* in, MessageWriter* out) -> Task<> {
          return call_client_stream<Req, Res>(handler, std::move(context), in, out);
        });
  }
  template <class Req, class Res>
  void bidi(std::string procedure, std::function<Task<>(Context, Reader<Req>, Writer<Res>)> handler) {
    add(std::move(procedure), Kind::kBidi, false,
        [handler = std::move(handler)](Context context, MessageReader* in, MessageWriter* out) -> Task<> {
          return handler(std::move(context), Reader<Req>(in), Writer<Res>(out));
        });
  }

  bool knows(std::string_view path) const;
  // Serves one HTTP exchange whose path the router knows.
  Task<> handle(std::shared_ptr<net::Exchange> exchange);

 private:
  using RawHandler = std::function<Task<>(Context, MessageReader*, MessageWriter*)>;
  void add(std::string procedure, Kind kind, bool side_effect_free, RawHandler handler);

  template <class Req, class Res>
  static Task<> call_unary(std::function<Task<Res>(Context, Req)> handler, Context context, MessageReader* in,
                           MessageWriter* out) {
    Req request;
    CO_TRY(co_await in->receive(&request));
    Res response = CO_TRY(co_await handler(std::move(context), std::move(request)));
    co_return co_await out->send(&response);
  }
  template <class Req, class Res>
  static Task<> call_server_stream(std::function<Task<>(Context, Req, Writer<Res>)> handler, Context context,
                                   MessageReader* in, MessageWriter* out) {
    Req request;
    CO_TRY(co_await in->receive(&request));
    co_return co_await handler(std::move(context), std::move(request), Writer<Res>(out));
  }
  template <class Req, class Res>
  static Task<> call_client_stream(std::function<Task<Res>(Context, Reader<Req>)> handler, Context context,
                                   MessageReader* in, MessageWriter* out) {
    Res response = CO_TRY(co_await handler(std::move(context), Reader<Req>(in)));
    co_return co_await out->send(&response);
  }

  struct State;
  std::unique_ptr<State> state_;
};

struct ResponseMetadata {
  net::Headers headers;
  net::Headers trailers;
};

struct CallOptions {
  net::Headers headers;
  // A side-effect-free unary call as HTTP GET.
  bool get = false;
  // A unary call that the server may see twice: it is sent again when a reused connection ends without a byte
  // of an answer. A GET is such a call.
  bool repeatable = false;
  // Where a unary call's response metadata goes; unset: dropped.
  std::shared_ptr<ResponseMetadata> metadata;
  // Sent as Connect-Timeout-Ms and enforced here too. Unset: no deadline (streams); unary calls get 60 s.
  std::optional<Milliseconds> timeout;
};

// One call of a client. Dropping it ends the call.
class ClientCall {
 public:
  virtual ~ClientCall() = default;
  virtual Task<> send(const Message* message) = 0;
  virtual Task<> finish_sending() = 0;
  // False at the clean end; the peer's error as this Result's error.
  virtual Task<bool> receive(Message* out) = 0;
  virtual const net::Headers& response_headers() const = 0;
  virtual const net::Headers& response_trailers() const = 0;
};

// The answer of a client stream: exactly one message, kUnimplemented otherwise.
template <class Res>
Task<Res> receive_only(ClientCall* call) {
  Res response;
  if (!CO_TRY(co_await call->receive(&response))) {
    co_return fail(Code::kUnimplemented, "the server answered no message");
  }
  Res another;
  if (CO_TRY(co_await call->receive(&another))) {
    co_return fail(Code::kUnimplemented, "the server answered more than one message");
  }
  co_return response;
}

// The most bytes that a message of an answer may have, before and after decompression; above:
// kResourceExhausted, reason "too_large". No call goes without: a message in memory may take a hundred times
// its bytes on the wire (ElementReader reads lists), and a peer may be hostile.
struct AnswerLimit {
  std::size_t bytes;
};

struct ClientOptions {
  bool json = false;      // protobuf otherwise
  bool compress = false;  // gzip requests above 1 KiB
  net::Headers headers;   // with every call
};

class Client {
 public:
  Client(std::shared_ptr<net::HttpClient> http, net::Endpoint endpoint, ClientOptions options = {});
  ~Client();

  template <class Res, class Req>
  Task<Res> unary(std::string procedure, Req request, AnswerLimit limit, CallOptions options = {}) {
    const std::string bytes =
        CO_TRY(co_await exchange(std::move(procedure), &request, limit, std::move(options)));
    Res response;
    CO_TRY(read_answer(bytes, &response));
    co_return response;
  }
  // A unary call whose answer, a protobuf message, the caller reads for itself: for one that may be long.
  // The options' timeout is told to the server and not enforced here.
  template <class Req>
  Task<std::unique_ptr<net::ClientResponse>> open_unary(std::string procedure, Req request,
                                                        CallOptions options = {}) {
    co_return co_await open_unary_raw(std::move(procedure), &request, std::move(options));
  }
  // Opens a stream of any kind; for server streams: send once, finish_sending, receive until false.
  Task<std::unique_ptr<ClientCall>> stream(std::string procedure, AnswerLimit limit,
                                           CallOptions options = {});

 private:
  Task<std::unique_ptr<net::ClientResponse>> open_unary_raw(std::string procedure, const Message* request,
                                                            CallOptions options);
  Task<std::string> exchange(std::string procedure, const Message* request, AnswerLimit limit,
                             CallOptions options);
  Result<> read_answer(std::string_view bytes, Message* response) const;
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace wrenn::connect
