#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "async/async.h"

// HTTP/1.1 server and client with streamed bodies. Nothing holds a whole body: reads and writes wait for the
// peer, which is the back-pressure. Only src/net sees Beast.
namespace wrenn::net {

class WebSocket;

// Header fields in order; names compare without case.
class Headers {
 public:
  void add(std::string name, std::string value);
  void set(std::string name, std::string value);
  void remove(std::string_view name);
  // The first value; empty when absent.
  std::string_view get(std::string_view name) const;
  bool has(std::string_view name) const;
  const std::vector<std::pair<std::string, std::string>>& all() const { return fields_; }

 private:
  std::vector<std::pair<std::string, std::string>> fields_;
};

// A place to connect to or listen on.
struct Endpoint {
  std::string host;        // name or address; empty when unix_path is set
  std::uint16_t port = 0;  // 0: the kernel chooses (listening only)
  std::string unix_path;
  bool tls = false;

  // A place to listen on: "host:port", ":port" (all interfaces), "http://host[:port][/]", "https://...",
  // "unix:/path". kInvalidArgument otherwise.
  static Result<Endpoint> parse(std::string_view text);
  // A place to connect to, written the same way; ":port" is one of this machine. Nothing connects to an
  // Endpoint without a host, so one that was never filled in cannot reach this machine by mistake.
  static Result<Endpoint> parse_remote(std::string_view text);
  std::string to_string() const;
};

struct RequestHead {
  std::string method;
  std::string target;  // origin form: "/path?query"; an absolute one was taken apart, see Host
  Headers headers;

  // The decoded path, and a decoded query value; nullopt when absent or badly encoded.
  std::string path() const;
  std::optional<std::string> query(std::string_view name) const;
};

struct ResponseHead {
  int status = 200;
  Headers headers;
};

// A body being received. One reader at a time.
class BodyReader {
 public:
  virtual ~BodyReader() = default;
  // At most buffer.size() bytes; 0 at the end. kUnavailable when the peer went away.
  virtual Task<std::size_t> read(std::span<char> buffer) = 0;
};

// How many bytes a body has; nullopt when only its end will tell. Content-Length and Transfer-Encoding are
// written from this alone: such fields among a caller's headers are dropped.
using BodyLength = std::optional<std::uint64_t>;

// Reads to the end; kResourceExhausted with reason "too_large" once more than `limit` bytes came.
Task<std::string> read_all(BodyReader* body, std::size_t limit);

// A connection that an upgrade turned into plain bytes both ways. One reader and one writer at a time.
class ByteStream : public BodyReader {
 public:
  virtual Task<> write(std::string bytes) = 0;
  // Tells the peer that no more comes; reading goes on.
  virtual void shutdown_send() = 0;
};

// One request on a server connection. The handler answers by respond(), or by start() + write()* + finish(),
// or takes the connection over by accept_websocket(). A handler that returns an error before answering gets
// a plain 500 (400 if the request's body was malformed); after start() the connection is cut, so a client
// never takes a half body for a whole one.
class Exchange : public BodyReader {
 public:
  virtual const RequestHead& request() const = 0;
  // Of the request's body; 0 without one.
  virtual BodyLength body_length() const = 0;
  // "127.0.0.1:4242" or "unix".
  virtual std::string peer() const = 0;
  virtual Task<> respond(int status, Headers headers, std::string body) = 0;
  // Sends the head at once. A body of unknown length is sent in chunks. An answer to HEAD announces the
  // length, and what is written of its body is dropped.
  virtual Task<> start(int status, Headers headers, BodyLength length) = 0;
  Task<> start(int status, Headers headers) { return start(status, std::move(headers), std::nullopt); }
  virtual Task<> write(std::string bytes) = 0;
  virtual Task<> finish() = 0;
  virtual bool started() const = 0;
  // Completes the upgrade; kInvalidArgument if the request is none.
  virtual Task<std::unique_ptr<WebSocket>> accept_websocket() = 0;
  // Answers 101 with these headers and takes the connection over.
  virtual Task<std::unique_ptr<ByteStream>> switch_protocols(std::string protocol, Headers headers) = 0;
  // Waits until the client goes away (returns ok) or the caller is cancelled; must not run beside read().
  // For handlers that must stop when their client left. A client that only ended its side still waits for
  // the answer.
  virtual Task<> wait_disconnect() = 0;
};

using Handler = std::function<Task<>(std::shared_ptr<Exchange>)>;

struct TlsFiles {
  std::string certificate;  // PEM chain; may be empty for a client
  std::string key;          // PEM
  std::string client_ca;    // PEM of the CA that peers must chain to
};

// TLS of a server or a client. kInvalidArgument naming the file that cannot be used. A server with client_ca
// set refuses clients that it did not sign; for a client it is the CA that servers must chain to, by default
// the system's.
class TlsContext;
Result<std::shared_ptr<TlsContext>> server_tls(const TlsFiles& files);
Result<std::shared_ptr<TlsContext>> client_tls(const TlsFiles& files = {});

struct ServerOptions {
  std::size_t max_header_bytes = 64 * 1024;
  // One more closes a connection that has no request, first of all one that never had any, or where there is
  // none is refused with 503.
  std::size_t max_connections = 4096;
  Milliseconds header_timeout{10'000};      // of each request, and of a new connection's silence
  Milliseconds idle_timeout{620'000};       // keep-alive connections between requests
  Milliseconds write_stall_limit{120'000};  // a client that takes nothing of its answer
  std::shared_ptr<TlsContext> tls;          // by server_tls; unset: plain
};

class HttpServer {
 public:
  explicit HttpServer(asio::any_io_executor executor, Handler handler, ServerOptions options = {});
  ~HttpServer();
  // Binds; may be called several times. kAlreadyExists when the port is taken. Answers the bound endpoint.
  Result<Endpoint> listen(const Endpoint& endpoint);
  // Serves until cancelled or stop(); then stops accepting, lets requests in flight run for `grace`, cancels
  // the rest, and returns when every connection is closed.
  Task<> serve(Milliseconds grace = Milliseconds(5'000));

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A response being received; dropping it before the end closes the connection.
class ClientResponse : public BodyReader {
 public:
  virtual const ResponseHead& head() const = 0;
  // As announced, also by an answer to HEAD, which has no body.
  virtual BodyLength length() const = 0;
};

// A request whose body is being sent.
class ClientRequest {
 public:
  virtual ~ClientRequest() = default;
  virtual Task<> write(std::string bytes) = 0;
  // Ends the body. Then, or meanwhile (a server may answer early), receive().
  virtual Task<> finish() = 0;
  virtual Task<std::unique_ptr<ClientResponse>> receive() = 0;
};

// What became of a request to upgrade: a stream if head.status is 101, else an ordinary response.
struct UpgradeAnswer {
  ResponseHead head;
  std::unique_ptr<ByteStream> stream;
  std::unique_ptr<ClientResponse> response;
};

struct ClientOptions {
  std::size_t max_idle_per_endpoint = 32;
  Milliseconds connect_timeout{5'000};
  Milliseconds idle_timeout{60'000};
  std::shared_ptr<TlsContext> tls;  // by client_tls; unset: https:// endpoints are kInvalidArgument
};

// Whether a whole request may be sent once more when the server ended a reused connection without a byte of
// an answer: by its method (RFC 9110, section 9.2.2), or because the caller knows that it may.
enum class Repeat { kIfIdempotent, kAllowed };

// Keep-alive connections by endpoint. A connection that cannot be made is kUnavailable with reason
// "connect_failed". Host is added where it is missing; Connection and Upgrade are the client's to write, as
// is what delimits the body. A request or response dropped before its end resets the connection, so the
// server knows that nobody waits.
class HttpClient {
 public:
  explicit HttpClient(asio::any_io_executor executor, ClientOptions options = {});
  ~HttpClient();
  // Sends the head; the body follows piece by piece.
  Task<std::unique_ptr<ClientRequest>> open(Endpoint endpoint, RequestHead head, BodyLength length);
  // Whole request in, response head out, body streamed.
  Task<std::unique_ptr<ClientResponse>> send(Endpoint endpoint, RequestHead head, std::string body,
                                             Repeat repeat = Repeat::kIfIdempotent);
  Task<std::unique_ptr<WebSocket>> websocket(Endpoint endpoint, RequestHead head);
  // A GET that asks to go on in another protocol, on a connection of its own.
  Task<UpgradeAnswer> upgrade(Endpoint endpoint, RequestHead head, std::string protocol);
  // Closes idle connections (after a VM behind an address is gone).
  void drop_idle(const Endpoint& endpoint);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace wrenn::net
