#include <algorithm>
#include <unordered_map>

#include "base/bytes.h"
#include "net/byte_stream.h"
#include "net/connection.h"
#include "net/http.h"
#include "net/limits.h"
#include "net/websocket_stream.h"

namespace wrenn::net {
namespace {

using Clock = std::chrono::steady_clock;

std::string host_header(const Endpoint& endpoint) {
  if (!endpoint.unix_path.empty()) return "localhost";
  const std::string name = endpoint.host.empty() ? "localhost" : endpoint.host;
  const std::string bracketed = name.find(':') == std::string::npos ? name : "[" + name + "]";
  const bool standard = endpoint.port == (endpoint.tls ? 443 : 80);
  return standard ? bracketed : bracketed + ":" + std::to_string(endpoint.port);
}

bool is_idempotent(std::string_view method) {
  return method == "GET" || method == "HEAD" || method == "PUT" || method == "DELETE" || method == "OPTIONS";
}

struct IdleConnection {
  std::shared_ptr<Connection> connection;
  Clock::time_point since;
};

// Connections that wait for their next request, newest last.
struct Pool {
  std::size_t max_idle = 0;
  Milliseconds idle_timeout{};
  std::unordered_map<std::string, std::vector<IdleConnection>> idle;

  std::shared_ptr<Connection> take(const std::string& key) {
    const auto found = idle.find(key);
    if (found == idle.end()) return nullptr;
    auto& waiting = found->second;
    while (!waiting.empty()) {
      IdleConnection last = std::move(waiting.back());
      waiting.pop_back();
      if (Clock::now() - last.since < idle_timeout && last.connection->stream.quiet()) {
        return std::move(last.connection);
      }
    }
    idle.erase(found);
    return nullptr;
  }
  void put(const std::string& key, std::shared_ptr<Connection> connection) {
    auto& waiting = idle[key];
    const auto now = Clock::now();
    std::erase_if(waiting, [&](const IdleConnection& old) { return now - old.since >= idle_timeout; });
    if (waiting.size() < max_idle) waiting.push_back({std::move(connection), now});
  }
};

// One request and its response on a connection; both halves done, the connection goes back to the pool.
struct Transfer {
  std::shared_ptr<Connection> connection;
  std::weak_ptr<Pool> pool;
  std::string key;
  bool reused = false;
  bool request_done = false;
  bool response_done = false;
  bool keep_alive = false;

  void settle() {
    if (!request_done || !response_done || !keep_alive || !connection) return;
    const auto home = pool.lock();
    if (home && connection->input.empty()) home->put(key, std::move(connection));
    connection.reset();
  }
};

class Response : public ClientResponse {
 public:
  Response(std::shared_ptr<Transfer> transfer, ParsedHead head, std::unique_ptr<Parser> parser)
      : transfer_(std::move(transfer)),
        source_(transfer_->connection.get(), std::move(parser), head.body, head.length) {
    head_.status = head.status;
    head_.headers = std::move(head.headers);
    transfer_->keep_alive = head.keep_alive && head.body != BodyKind::kUntilEof;
    note_done();
  }
  const ResponseHead& head() const override { return head_; }
  Task<std::size_t> read(std::span<char> buffer) override {
    const std::size_t count = CO_TRY(co_await source_.read(buffer));
    note_done();
    co_return count;
  }

 private:
  void note_done() {
    if (!source_.done() || transfer_->response_done) return;
    transfer_->response_done = true;
    transfer_->settle();
  }
  std::shared_ptr<Transfer> transfer_;
  BodySource source_;
  ResponseHead head_;
};

class Request : public ClientRequest {
 public:
  Request(std::shared_ptr<Transfer> transfer, bool chunked, bool head_only)
      : transfer_(std::move(transfer)), chunked_(chunked), head_only_(head_only) {}

  Task<> write(std::string bytes) override {
    if (!transfer_->connection || transfer_->request_done) {
      co_return fail(Code::kInternal, "write after the end of the request");
    }
    if (bytes.empty()) co_return Result<>{};
    if (chunked_) co_return co_await write_chunk(transfer_->connection.get(), std::move(bytes));
    co_return co_await transfer_->connection->stream.write({asio::buffer(bytes)});
  }

  Task<> finish() override {
    if (transfer_->request_done) co_return Result<>{};
    if (chunked_) {
      const std::string last = "0\r\n\r\n";
      CO_TRY(co_await transfer_->connection->stream.write({asio::buffer(last)}));
    }
    transfer_->request_done = true;
    transfer_->settle();
    co_return Result<>{};
  }

  Task<std::unique_ptr<ClientResponse>> receive() override {
    if (!transfer_->connection) co_return fail(Code::kInternal, "the response was already taken");
    for (int interim = 0; interim < kMaxInterimResponses; ++interim) {
      auto parser = std::make_unique<Parser>(Parser::Role::kResponse, kMaxResponseHeaderBytes, head_only_);
      CO_TRY(co_await read_head(parser.get()));
      ParsedHead head = parser->take_head();
      if (head.status >= 100 && head.status < 200) continue;
      co_return std::unique_ptr<ClientResponse>(
          std::make_unique<Response>(transfer_, std::move(head), std::move(parser)));
    }
    co_return fail(Code::kUnavailable, "too many interim responses");
  }

  // 101 hands the connection over.
  Task<UpgradeAnswer> receive_upgrade() {
    for (int interim = 0; interim < kMaxInterimResponses; ++interim) {
      auto parser = std::make_unique<Parser>(Parser::Role::kResponse, kMaxResponseHeaderBytes, false);
      CO_TRY(co_await read_head(parser.get()));
      ParsedHead head = parser->take_head();
      UpgradeAnswer answer;
      if (head.status == 101) {
        answer.head = {.status = 101, .headers = std::move(head.headers)};
        answer.stream = std::make_unique<ConnectionStream>(std::move(transfer_->connection));
        co_return answer;
      }
      if (head.status >= 100 && head.status < 200) continue;
      answer.response = std::make_unique<Response>(transfer_, std::move(head), std::move(parser));
      answer.head = answer.response->head();
      co_return answer;
    }
    co_return fail(Code::kUnavailable, "too many interim responses");
  }

  bool response_begun() const { return begun_; }

 private:
  Task<> read_head(Parser* parser) {
    Connection& connection = *transfer_->connection;
    while (true) {
      if (!connection.input.empty()) begun_ = true;
      const auto used = parser->parse_head(connection.input.view());
      if (!used) co_return fail(Code::kUnavailable, "bad response: " + used.error().message());
      connection.input.consume(*used);
      if (parser->head_complete()) co_return Result<>{};
      if (!CO_TRY(co_await connection.fill())) {
        co_return fail(Code::kUnavailable, "the server closed the connection without an answer");
      }
    }
  }
  std::shared_ptr<Transfer> transfer_;
  bool chunked_;
  bool head_only_;
  bool begun_ = false;
};

}  // namespace

struct HttpClient::State {
  asio::any_io_executor executor;
  ClientOptions options;
  std::shared_ptr<Pool> pool = std::make_shared<Pool>();

  Task<Stream> connect(Endpoint endpoint);
  Task<std::unique_ptr<Request>> begin(Endpoint endpoint, RequestHead head, std::string body, bool streamed,
                                       bool allow_reuse);
  Task<std::unique_ptr<ClientResponse>> attempt(Endpoint endpoint, RequestHead head, std::string body,
                                                bool allow_reuse, bool* worth_retry);
};

HttpClient::HttpClient(asio::any_io_executor executor, ClientOptions options)
    : state_(std::make_shared<State>()) {
  state_->executor = std::move(executor);
  state_->options = std::move(options);
  state_->pool->max_idle = state_->options.max_idle_per_endpoint;
  state_->pool->idle_timeout = state_->options.idle_timeout;
}

HttpClient::~HttpClient() = default;

Task<Stream> HttpClient::State::connect(Endpoint endpoint) {
  const auto open = [](State* self, Endpoint target) -> Task<Stream> {
    Stream stream = CO_TRY(co_await connect_stream(target));
    if (target.tls) {
      if (!self->options.tls) co_return fail(Code::kInvalidArgument, "this client does not speak TLS");
      CO_TRY(co_await stream.handshake_client(self->options.tls, target.host));
    }
    co_return stream;
  };
  auto stream = co_await async::with_timeout(open(this, endpoint), options.connect_timeout,
                                             "connecting to " + endpoint.to_string());
  if (stream) co_return stream;
  const Code code = stream.error().code();
  if (code != Code::kDeadlineExceeded && code != Code::kUnavailable) co_return stream;
  co_return fail(Error(Code::kUnavailable, stream.error().message()).with_reason("connect_failed"));
}

Task<std::unique_ptr<Request>> HttpClient::State::begin(Endpoint endpoint, RequestHead head, std::string body,
                                                        bool streamed, bool allow_reuse) {
  auto transfer = std::make_shared<Transfer>();
  transfer->pool = pool;
  transfer->key = endpoint.to_string();
  if (allow_reuse) transfer->connection = pool->take(transfer->key);
  transfer->reused = transfer->connection != nullptr;
  if (!transfer->reused) {
    transfer->connection = std::make_shared<Connection>(CO_TRY(co_await connect(endpoint)));
  }
  if (!head.headers.has("host")) head.headers.set("Host", host_header(endpoint));
  const bool chunked = streamed && !head.headers.has("content-length");
  if (chunked) head.headers.set("Transfer-Encoding", "chunked");
  if (!streamed && (!body.empty() || !is_idempotent(head.method))) {
    head.headers.set("Content-Length", std::to_string(body.size()));
  }
  if (!headers_are_safe(head.headers) || head.target.find_first_of(" \r\n\t") != std::string::npos) {
    co_return fail(Code::kInvalidArgument, "the request head holds characters that HTTP forbids");
  }
  std::string text = head.method + " " + head.target + " HTTP/1.1\r\n";
  append_headers(&text, head.headers);
  text += "\r\n";
  CO_TRY(co_await transfer->connection->stream.write({asio::buffer(text), asio::buffer(body)}));
  transfer->request_done = !streamed;
  co_return std::make_unique<Request>(std::move(transfer), chunked, head.method == "HEAD");
}

Task<std::unique_ptr<ClientRequest>> HttpClient::open(Endpoint endpoint, RequestHead head, Body body) {
  const auto state = state_;
  const bool streamed = body == Body::kStream;
  auto request = co_await state->begin(endpoint, head, "", streamed, true);
  if (!request && request.error().code() == Code::kUnavailable) {
    request = co_await state->begin(std::move(endpoint), std::move(head), "", streamed, false);
  }
  if (!request) co_return fail(request.error());
  co_return std::unique_ptr<ClientRequest>(std::move(*request));
}

Task<std::unique_ptr<ClientResponse>> HttpClient::State::attempt(Endpoint endpoint, RequestHead head,
                                                                 std::string body, bool allow_reuse,
                                                                 bool* worth_retry) {
  const bool repeatable = body.empty() || is_idempotent(head.method);
  const bool may_reuse = allow_reuse && pool->idle.contains(endpoint.to_string());
  auto request = co_await begin(std::move(endpoint), std::move(head), std::move(body), false, allow_reuse);
  // A reused connection that the server closed meanwhile fails while sending or before the first byte back.
  if (!request) {
    *worth_retry = may_reuse && repeatable && request.error().code() == Code::kUnavailable;
    co_return fail(request.error());
  }
  auto response = co_await (*request)->receive();
  *worth_retry = !response && may_reuse && repeatable && !(*request)->response_begun() &&
                 response.error().code() == Code::kUnavailable;
  co_return response;
}

Task<std::unique_ptr<ClientResponse>> HttpClient::send(Endpoint endpoint, RequestHead head,
                                                       std::string body) {
  const auto state = state_;
  bool worth_retry = false;
  auto response = co_await state->attempt(endpoint, head, body, true, &worth_retry);
  if (response || !worth_retry) co_return response;
  co_return co_await state->attempt(std::move(endpoint), std::move(head), std::move(body), false,
                                    &worth_retry);
}

Task<std::unique_ptr<WebSocket>> HttpClient::websocket(Endpoint endpoint, RequestHead head) {
  const auto state = state_;
  const std::string host = host_header(endpoint);
  Stream stream = CO_TRY(co_await state->connect(std::move(endpoint)));
  co_return co_await connect_websocket_stream(std::move(stream), host, std::move(head));
}

Task<UpgradeAnswer> HttpClient::upgrade(Endpoint endpoint, RequestHead head) {
  const auto state = state_;
  const auto request = CO_TRY(co_await state->begin(std::move(endpoint), std::move(head), "", false, false));
  co_return co_await request->receive_upgrade();
}

void HttpClient::drop_idle(const Endpoint& endpoint) { state_->pool->idle.erase(endpoint.to_string()); }

}  // namespace wrenn::net
