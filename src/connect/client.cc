#include <fmt/format.h>

#include "base/bytes.h"
#include "connect/connect.h"
#include "connect/limits.h"
#include "connect/wire.h"
#include "net/gzip.h"

namespace wrenn::connect {
namespace {

constexpr std::string_view kTrailerPrefix = "trailer-";
std::string url_base64(std::string_view bytes) {
  std::string text = to_base64(bytes);
  while (text.ends_with('=')) text.pop_back();
  for (char& c : text) {
    if (c == '+') c = '-';
    if (c == '/') c = '_';
  }
  return text;
}

Error unexpected_content_type(std::string_view type, bool of_this_protocol) {
  const Code code = of_this_protocol ? Code::kInternal : Code::kUnknown;
  return Error(code, fmt::format("unexpected content type \"{}\" in the response", type));
}

Error status_error(int status) {
  return Error(code_of_http_status(status), fmt::format("the server answered HTTP status {}", status));
}

void add_common_headers(net::Headers* headers, const CallOptions& call, const net::Headers& always) {
  for (const auto& [name, value] : always.all()) headers->add(name, value);
  for (const auto& [name, value] : call.headers.all()) headers->add(name, value);
}

net::Repeat repeat_of(const CallOptions& call) {
  return call.repeatable ? net::Repeat::kAllowed : net::Repeat::kIfIdempotent;
}

using Clock = std::chrono::steady_clock;

class StreamCall : public ClientCall {
 public:
  StreamCall(std::unique_ptr<net::ClientRequest> request, Encoding encoding, std::size_t limit,
             std::optional<Clock::time_point> deadline)
      : request_(std::move(request)), encoding_(encoding), limit_(limit), deadline_(deadline) {}

  Task<> send(const Message* message) override {
    co_return co_await bounded(request_->write(CO_TRY(envelope(*message, encoding_))));
  }
  Task<> finish_sending() override { co_return co_await bounded(request_->finish()); }
  Task<bool> receive(Message* out) override { co_return co_await bounded(receive_next(out)); }
  const net::Headers& response_headers() const override { return headers_; }
  const net::Headers& response_trailers() const override { return trailers_; }

 private:
  template <class T>
  Task<T> bounded(Task<T> task) {
    if (!deadline_) co_return co_await std::move(task);
    const auto left = std::chrono::ceil<Milliseconds>(*deadline_ - Clock::now());
    co_return co_await async::with_timeout(std::move(task), std::max(left, Milliseconds(0)), "the call");
  }

  Task<> open_response() {
    response_ = CO_TRY(co_await request_->receive());
    const net::ResponseHead& head = response_->head();
    headers_ = head.headers;
    if (head.status != 200) co_return fail(status_error(head.status));
    const std::string_view type = headers_.get("content-type");
    if (stream_codec(type) != encoding_.codec) {
      co_return fail(unexpected_content_type(type, type.starts_with("application/connect+")));
    }
    const auto gzip = is_gzip(headers_.get("connect-content-encoding"));
    if (!gzip) co_return fail(Code::kInternal, gzip.error().message());
    frames_.emplace(response_.get(), *gzip, limit_);
    co_return Result<>{};
  }

  Task<bool> receive_next(Message* out) {
    if (ended_) {
      if (end_error_) co_return fail(*end_error_);
      co_return false;
    }
    if (!response_) {
      const Result<> opened = co_await open_response();
      if (!opened) co_return end_with(opened.error());
    }
    auto frame = co_await frames_->next();
    if (!frame) {
      const bool malformed = frame.error().code() == Code::kInvalidArgument;
      co_return end_with(malformed ? Error(Code::kInternal, frame.error().message()) : frame.error());
    }
    if (!*frame)
      co_return end_with(Error(Code::kInternal, "the stream ended without an end-of-stream message"));
    if (((*frame)->flags & kFlagEndStream) == 0) {
      const Result<> parsed = parse((*frame)->payload, encoding_.codec, out);
      if (!parsed) co_return end_with(Error(Code::kInternal, parsed.error().message()));
      co_return true;
    }
    auto end = end_stream_from_json((*frame)->payload);
    if (!end) co_return end_with(Error(Code::kInternal, end.error().message()));
    trailers_ = std::move(end->trailers);
    if (end->error) co_return end_with(std::move(*end->error));
    if (CO_TRY(co_await frames_->next())) {
      co_return end_with(Error(Code::kInternal, "a message after the end of the stream"));
    }
    ended_ = true;
    co_return false;
  }

  Result<bool> end_with(Error error) {
    ended_ = true;
    end_error_ = error;
    return fail(std::move(error));
  }

  std::unique_ptr<net::ClientRequest> request_;
  std::unique_ptr<net::ClientResponse> response_;
  std::optional<FrameReader> frames_;
  Encoding encoding_;
  std::size_t limit_;
  std::optional<Clock::time_point> deadline_;
  net::Headers headers_;
  net::Headers trailers_;
  bool ended_ = false;
  std::optional<Error> end_error_;
};

}  // namespace

struct Client::State {
  std::shared_ptr<net::HttpClient> http;
  net::Endpoint endpoint;
  ClientOptions options;

  Encoding encoding() const {
    return {.codec = options.json ? Codec::kJson : Codec::kProto, .gzip = options.compress};
  }
  Result<net::RequestHead> unary_head(std::string procedure, const CallOptions& call,
                                      std::string* body) const;
  Task<std::string> unary_body(net::ClientResponse* response, AnswerLimit limit, CallOptions call) const;
};

Client::Client(std::shared_ptr<net::HttpClient> http, net::Endpoint endpoint, ClientOptions options)
    : state_(std::make_shared<State>()) {
  state_->http = std::move(http);
  state_->endpoint = std::move(endpoint);
  state_->options = std::move(options);
}

Client::~Client() = default;

Result<net::RequestHead> Client::State::unary_head(std::string procedure, const CallOptions& call,
                                                   std::string* body) const {
  const Encoding used = encoding();
  net::RequestHead head;
  add_common_headers(&head.headers, call, options.headers);
  if (call.timeout) head.headers.set("Connect-Timeout-Ms", std::to_string(call.timeout->count()));
  head.headers.set("Accept-Encoding", "gzip");
  const bool gzip = used.gzip;
  if (gzip) *body = TRY(net::gzip_compress(*body));
  if (call.get) {
    head.method = "GET";
    head.target =
        fmt::format("{}?connect=v1&base64=1{}&encoding={}&message={}", procedure,
                    gzip ? "&compression=gzip" : "", options.json ? "json" : "proto", url_base64(*body));
    body->clear();
    return head;
  }
  head.method = "POST";
  head.target = std::move(procedure);
  head.headers.set("Connect-Protocol-Version", "1");
  head.headers.set("Content-Type", unary_content_type(used.codec));
  if (gzip) head.headers.set("Content-Encoding", "gzip");
  return head;
}

Task<std::string> Client::State::unary_body(net::ClientResponse* response, AnswerLimit limit,
                                            CallOptions call) const {
  const net::ResponseHead& head = response->head();
  if (call.metadata) {
    for (const auto& [name, value] : head.headers.all()) {
      const bool trailer = ascii_lower(name).starts_with(kTrailerPrefix);
      if (trailer) {
        call.metadata->trailers.add(name.substr(kTrailerPrefix.size()), value);
      } else {
        call.metadata->headers.add(name, value);
      }
    }
  }
  const std::string_view type = head.headers.get("content-type");
  const bool ok = head.status == 200;
  if (ok && unary_codec(type) != encoding().codec) {
    // A codec of this protocol that was not asked for is the server's fault; anything else may be a proxy's.
    const bool known = unary_codec(type).has_value() || type.starts_with("application/proto");
    co_return fail(unexpected_content_type(type, known));
  }
  if (!ok && unary_codec(type) != Codec::kJson) co_return fail(status_error(head.status));
  const auto gzip = is_gzip(head.headers.get("content-encoding"));
  if (!gzip) co_return fail(Code::kInternal, gzip.error().message());
  const std::size_t most = ok ? limit.bytes : kMaxEndStreamBytes;
  std::string body = CO_TRY(co_await net::read_all(response, most));
  if (*gzip && !body.empty()) body = CO_TRY(net::gzip_decompress(body, most));
  if (ok) co_return body;
  co_return fail(error_from_json(body, code_of_http_status(head.status)).value_or(status_error(head.status)));
}

Task<std::string> Client::exchange(std::string procedure, const Message* request, AnswerLimit limit,
                                   CallOptions options) {
  const auto send = [](std::shared_ptr<State> state, std::string target, const Message* in, AnswerLimit most,
                       CallOptions call) -> Task<std::string> {
    std::string body = CO_TRY(serialize(*in, state->encoding().codec));
    net::RequestHead head = CO_TRY(state->unary_head(std::move(target), call, &body));
    auto answer = CO_TRY(
        co_await state->http->send(state->endpoint, std::move(head), std::move(body), repeat_of(call)));
    co_return co_await state->unary_body(answer.get(), most, std::move(call));
  };
  const Milliseconds time = options.timeout.value_or(Milliseconds(kDefaultUnaryTimeoutMs));
  std::string what = procedure;
  co_return co_await async::with_timeout(
      send(state_, std::move(procedure), request, limit, std::move(options)), time, std::move(what));
}

Task<std::unique_ptr<net::ClientResponse>> Client::open_unary_raw(std::string procedure,
                                                                  const Message* request,
                                                                  CallOptions options) {
  std::string body = CO_TRY(serialize(*request, state_->encoding().codec));
  net::RequestHead head = CO_TRY(state_->unary_head(std::move(procedure), options, &body));
  head.headers.set("Accept-Encoding", "identity");
  auto response = CO_TRY(
      co_await state_->http->send(state_->endpoint, std::move(head), std::move(body), repeat_of(options)));
  const net::Headers& headers = response->head().headers;
  if (response->head().status != 200) {
    auto refused = co_await state_->unary_body(response.get(), {kMaxEndStreamBytes}, std::move(options));
    co_return fail(refused ? status_error(response->head().status) : std::move(refused).error());
  }
  const std::string_view type = headers.get("content-type");
  if (unary_codec(type) != Codec::kProto) co_return fail(unexpected_content_type(type, true));
  if (headers.has("content-encoding") && headers.get("content-encoding") != "identity") {
    co_return fail(Code::kInternal, "the answer is compressed unasked");
  }
  co_return response;
}

Result<> Client::read_answer(std::string_view bytes, Message* response) const {
  const Result<> parsed = parse(bytes, state_->encoding().codec, response);
  if (!parsed) return fail(Code::kInternal, parsed.error().message());
  return {};
}

Task<std::unique_ptr<ClientCall>> Client::stream(std::string procedure, AnswerLimit limit,
                                                 CallOptions options) {
  const Encoding encoding = state_->encoding();
  net::RequestHead head{.method = "POST", .target = std::move(procedure), .headers = {}};
  add_common_headers(&head.headers, options, state_->options.headers);
  head.headers.set("Connect-Protocol-Version", "1");
  head.headers.set("Content-Type", stream_content_type(encoding.codec));
  head.headers.set("Connect-Accept-Encoding", "gzip");
  if (encoding.gzip) head.headers.set("Connect-Content-Encoding", "gzip");
  std::optional<Clock::time_point> deadline;
  if (options.timeout) {
    head.headers.set("Connect-Timeout-Ms", std::to_string(options.timeout->count()));
    deadline = Clock::now() + *options.timeout;
  }
  auto request = CO_TRY(co_await state_->http->open(state_->endpoint, std::move(head), std::nullopt));
  co_return std::unique_ptr<ClientCall>(
      std::make_unique<StreamCall>(std::move(request), encoding, limit.bytes, deadline));
}

}  // namespace wrenn::connect
