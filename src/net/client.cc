#include "net/byte_stream.h"
#include "net/connection.h"
#include "net/framing.h"
#include "net/http.h"
#include "net/limits.h"
#include "net/pool.h"
#include "net/websocket_stream.h"

namespace wrenn::net {
namespace {

// One request and its response on a connection; both halves done, the connection goes back to the pool.
struct Transfer {
  Transfer() = default;
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;
  // Nobody reads the rest: the server is told so.
  ~Transfer() {
    if (connection && !(request_done && response_done)) connection->stream.abort();
  }

  std::shared_ptr<Connection> connection;
  std::weak_ptr<Pool> pool;  // unset: the connection serves this request only
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
        source_(transfer_->connection.get(), std::move(parser), head.body, head.length),
        length_(head.announced) {
    head_.status = head.status;
    head_.headers = std::move(head.headers);
    transfer_->keep_alive = head.keep_alive && head.body != BodyKind::kUntilEof;
    note_done();
  }
  const ResponseHead& head() const override { return head_; }
  BodyLength length() const override { return length_; }
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
  BodyLength length_;
  ResponseHead head_;
};

// What is sent before an answer is waited for.
struct Outgoing {
  RequestHead head;
  std::string body;  // whole, if not `streamed`
  bool streamed = false;
  BodyLength length;     // of a streamed one
  std::string protocol;  // to upgrade to, on a connection that serves nothing else
};

class Request : public ClientRequest {
 public:
  Request(std::shared_ptr<Transfer> transfer, const Outgoing& sent)
      : transfer_(std::move(transfer)),
        left_(sent.length),
        head_only_(sent.head.method == "HEAD"),
        upgrading_(!sent.protocol.empty()) {}

  Task<> write(std::string bytes) override {
    if (!transfer_->connection || transfer_->request_done) {
      co_return fail(Code::kInternal, "write after the end of the request");
    }
    if (bytes.empty()) co_return Result<>{};
    if (!left_) co_return co_await write_chunk(transfer_->connection.get(), std::move(bytes));
    if (bytes.size() > *left_) co_return fail(Code::kInternal, "more body than its length says");
    *left_ -= bytes.size();
    co_return co_await transfer_->connection->stream.write({asio::buffer(bytes)});
  }

  Task<> finish() override {
    if (transfer_->request_done) co_return Result<>{};
    if (left_.value_or(0) > 0) co_return fail(Code::kInternal, "less body than its length says");
    if (!left_) {
      const std::string last = "0\r\n\r\n";
      CO_TRY(co_await transfer_->connection->stream.write({asio::buffer(last)}));
    }
    transfer_->request_done = true;
    transfer_->settle();
    co_return Result<>{};
  }

  Task<std::unique_ptr<ClientResponse>> receive() override {
    std::unique_ptr<Parser> parser;
    ParsedHead head = CO_TRY(co_await receive_head(&parser));
    co_return std::unique_ptr<ClientResponse>(
        std::make_unique<Response>(transfer_, std::move(head), std::move(parser)));
  }

  // 101 hands the connection over.
  Task<UpgradeAnswer> receive_upgrade() {
    std::unique_ptr<Parser> parser;
    ParsedHead head = CO_TRY(co_await receive_head(&parser));
    UpgradeAnswer answer;
    if (head.status == kSwitching) {
      answer.head = {.status = kSwitching, .headers = std::move(head.headers)};
      answer.stream = std::make_unique<ConnectionStream>(std::move(transfer_->connection));
      co_return answer;
    }
    answer.response = std::make_unique<Response>(transfer_, std::move(head), std::move(parser));
    answer.head = answer.response->head();
    co_return answer;
  }

  bool reused() const { return transfer_->reused; }
  bool response_begun() const { return begun_; }

 private:
  static constexpr int kSwitching = 101;

  // The final head, and the parser that goes on with its body.
  Task<ParsedHead> receive_head(std::unique_ptr<Parser>* parser) {
    if (!transfer_->connection) co_return fail(Code::kInternal, "the response was already taken");
    for (int interim = 0; interim < kMaxInterimResponses; ++interim) {
      *parser = std::make_unique<Parser>(Parser::Role::kResponse, kMaxResponseHeaderBytes, head_only_);
      ParsedHead head = CO_TRY(co_await read_head(parser->get()));
      if (head.status == kSwitching && !upgrading_) {
        co_return fail(Code::kUnavailable, "bad response: another protocol that nobody asked for");
      }
      if (head.status < 100 || head.status >= 200 || head.status == kSwitching) co_return head;
    }
    co_return fail(Code::kUnavailable, "too many interim responses");
  }

  Task<ParsedHead> read_head(Parser* parser) {
    Connection& connection = *transfer_->connection;
    const auto bad = [](const Error& error) {
      return fail(Code::kUnavailable, "bad response: " + error.message());
    };
    while (true) {
      if (!connection.input.empty()) begun_ = true;
      const auto used = parser->parse_head(connection.input.view());
      if (!used) co_return bad(used.error());
      connection.input.consume(*used);
      if (parser->head_complete()) break;
      if (!CO_TRY(co_await connection.fill())) {
        co_return fail(Code::kUnavailable, "the server closed the connection without an answer");
      }
    }
    auto head = parser->take_head();
    if (!head) co_return bad(head.error());
    co_return *std::move(head);
  }

  std::shared_ptr<Transfer> transfer_;
  BodyLength left_;  // of the body; unset: in chunks
  bool head_only_;
  bool upgrading_;
  bool begun_ = false;
};

}  // namespace

struct HttpClient::State {
  asio::any_io_executor executor;
  ClientOptions options;
  std::shared_ptr<Pool> pool;

  Task<Stream> connect(Endpoint endpoint);
  Task<std::unique_ptr<Request>> begin(Endpoint endpoint, Outgoing outgoing, bool allow_reuse);
  // `stale` tells whether the connection was an idle one that the server ended without a byte.
  Task<std::unique_ptr<ClientResponse>> attempt(Endpoint endpoint, Outgoing outgoing, bool allow_reuse,
                                                bool* stale);
};

HttpClient::HttpClient(asio::any_io_executor executor, ClientOptions options)
    : state_(std::make_shared<State>()) {
  state_->executor = std::move(executor);
  state_->pool = std::make_shared<Pool>(options.max_idle_per_endpoint, options.idle_timeout);
  state_->options = std::move(options);
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

Task<std::unique_ptr<Request>> HttpClient::State::begin(Endpoint endpoint, Outgoing outgoing,
                                                        bool allow_reuse) {
  const BodyLength length = outgoing.streamed ? outgoing.length : BodyLength(outgoing.body.size());
  const std::string text = CO_TRY(request_text(endpoint, outgoing.head, length, outgoing.protocol));
  auto transfer = std::make_shared<Transfer>();
  transfer->key = endpoint.to_string();
  if (outgoing.protocol.empty()) transfer->pool = pool;
  if (allow_reuse) transfer->connection = pool->take(transfer->key);
  transfer->reused = transfer->connection != nullptr;
  if (!transfer->reused) {
    transfer->connection = std::make_shared<Connection>(CO_TRY(co_await connect(std::move(endpoint))));
  }
  auto request = std::make_unique<Request>(transfer, outgoing);
  // A write that fails may have been read all the same, so the answer is waited for: it tells what came of
  // it.
  const Result<> sent =
      co_await transfer->connection->stream.write({asio::buffer(text), asio::buffer(outgoing.body)});
  if (!sent && sent.error().code() != Code::kUnavailable) co_return fail(sent.error());
  transfer->request_done = !outgoing.streamed;
  co_return request;
}

Task<std::unique_ptr<ClientRequest>> HttpClient::open(Endpoint endpoint, RequestHead head,
                                                      BodyLength length) {
  const auto state = state_;
  Outgoing outgoing{.head = std::move(head), .body = {}, .streamed = true, .length = length, .protocol = {}};
  co_return CO_TRY(co_await state->begin(std::move(endpoint), std::move(outgoing), true));
}

Task<std::unique_ptr<ClientResponse>> HttpClient::State::attempt(Endpoint endpoint, Outgoing outgoing,
                                                                 bool allow_reuse, bool* stale) {
  const auto request = CO_TRY(co_await begin(std::move(endpoint), std::move(outgoing), allow_reuse));
  auto response = co_await request->receive();
  *stale = !response && request->reused() && !request->response_begun() &&
           response.error().code() == Code::kUnavailable;
  co_return response;
}

Task<std::unique_ptr<ClientResponse>> HttpClient::send(Endpoint endpoint, RequestHead head, std::string body,
                                                       Repeat repeat) {
  const auto state = state_;
  const bool repeatable = repeat == Repeat::kAllowed || is_idempotent(head.method);
  Outgoing outgoing{
      .head = std::move(head), .body = std::move(body), .streamed = false, .length = {}, .protocol = {}};
  bool stale = false;
  auto response = co_await state->attempt(endpoint, outgoing, true, &stale);
  if (response || !stale || !repeatable) co_return response;
  co_return co_await state->attempt(std::move(endpoint), std::move(outgoing), false, &stale);
}

Task<std::unique_ptr<WebSocket>> HttpClient::websocket(Endpoint endpoint, RequestHead head) {
  const auto state = state_;
  const std::string host = host_of(endpoint);
  Stream stream = CO_TRY(co_await state->connect(std::move(endpoint)));
  co_return co_await connect_websocket_stream(std::move(stream), host, std::move(head));
}

Task<UpgradeAnswer> HttpClient::upgrade(Endpoint endpoint, RequestHead head, std::string protocol) {
  const auto state = state_;
  if (head.method != "GET" || protocol.empty()) co_return fail(Code::kInvalidArgument, "only a GET upgrades");
  Outgoing outgoing{
      .head = std::move(head), .body = {}, .streamed = false, .length = {}, .protocol = std::move(protocol)};
  const auto request = CO_TRY(co_await state->begin(std::move(endpoint), std::move(outgoing), false));
  co_return co_await request->receive_upgrade();
}

void HttpClient::drop_idle(const Endpoint& endpoint) { state_->pool->drop(endpoint.to_string()); }

}  // namespace wrenn::net
