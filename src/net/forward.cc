#include "net/forward.h"

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "net/byte_stream.h"
#include "net/framing.h"
#include "net/limits.h"

namespace wrenn::net {
namespace {

constexpr std::array<std::string_view, 10> kOneHop = {
    "connection",       "expect", "keep-alive", "proxy-authenticate", "proxy-authorization",
    "proxy-connection", "te",     "trailer",    "transfer-encoding",  "upgrade"};

class Forwarding {
 public:
  Forwarding(std::shared_ptr<Exchange> exchange, HttpClient* client, Endpoint endpoint, RequestHead head,
             Refusal refusal)
      : exchange_(std::move(exchange)),
        client_(client),
        endpoint_(std::move(endpoint)),
        head_(std::move(head)),
        refusal_(std::move(refusal)) {}

  Task<> run() {
    if (const std::string protocol = wanted_protocol(); !protocol.empty())
      co_return co_await upgrade(protocol);
    if (exchange_->body_length() != BodyLength(0)) co_return co_await with_body();
    auto work = [](Forwarding* self) -> Task<> {
      const auto response = CO_TRY(co_await self->client_->send(self->endpoint_, self->head_, ""));
      co_return co_await self->answer(response.get());
    };
    co_return co_await async::run_until(work(this), exchange_->wait_disconnect());
  }

 private:
  // Empty for an ordinary request. One with a body, or that is no GET, is passed on without its wish to
  // upgrade, which a server is free not to see (RFC 9110, section 7.8).
  std::string wanted_protocol() const {
    const RequestHead& asked = exchange_->request();
    const bool may = asked.method == "GET" && exchange_->body_length() == BodyLength(0);
    if (!may || !ConnectionOptions(asked.headers).has("upgrade")) return "";
    return std::string(asked.headers.get("upgrade"));
  }

  Task<> with_body() {
    const auto request = CO_TRY(co_await client_->open(endpoint_, head_, exchange_->body_length()));
    auto download = [](Forwarding* self, ClientRequest* sent) -> Task<> {
      const auto response = CO_TRY(co_await sent->receive());
      co_return co_await self->answer(response.get());
    };
    Result<> body;
    const Result<> done =
        co_await async::run_until(download(this, request.get()), upload(request.get(), &body));
    co_return body ? done : body;
  }

  // Returns well only once nobody can be answered: the client has left, or `body` says what is wrong with its
  // request.
  Task<> upload(ClientRequest* request, Result<>* body) {
    std::string buffer(kMaxReadBufferBytes, '\0');
    while (true) {
      const auto got = co_await exchange_->read(buffer);
      if (!got && got.error().code() == Code::kCanceled) co_return fail(got.error());
      if (!got && got.error().code() == Code::kInvalidArgument) *body = fail(got.error());
      if (!got) co_return Result<>{};
      if (*got == 0) break;
      // A server that has answered early reads no more; its answer counts.
      CO_TRY(co_await request->write(buffer.substr(0, *got)));
    }
    CO_TRY(co_await request->finish());
    co_return co_await exchange_->wait_disconnect();
  }

  Task<> answer(ClientResponse* response) {
    const ResponseHead& head = response->head();
    if (refusal_) {
      if (auto error = refusal_(head)) co_return fail(*std::move(error));
    }
    CO_TRY(co_await exchange_->start(head.status, end_to_end(head.headers), response->length()));
    std::string buffer(kMaxReadBufferBytes, '\0');
    while (const std::size_t got = CO_TRY(co_await response->read(buffer))) {
      CO_TRY(co_await exchange_->write(buffer.substr(0, got)));
    }
    co_return co_await exchange_->finish();
  }

  Task<> upgrade(std::string protocol) {
    UpgradeAnswer answered;
    auto ask = [](Forwarding* self, std::string wanted, UpgradeAnswer* out) -> Task<> {
      *out = CO_TRY(co_await async::with_timeout(
          self->client_->upgrade(self->endpoint_, self->head_, std::move(wanted)), kUpgradeAnswerLimit,
          "the answer to the upgrade"));
      if (out->response) co_return co_await self->answer(out->response.get());
      co_return Result<>{};
    };
    CO_TRY(
        co_await async::run_until(ask(this, std::move(protocol), &answered), exchange_->wait_disconnect()));
    if (answered.response) co_return Result<>{};
    const ResponseHead& head = answered.head;
    const auto stream = CO_TRY(co_await exchange_->switch_protocols(std::string(head.headers.get("upgrade")),
                                                                    end_to_end(head.headers)));
    const Result<> done = co_await tunnel(stream.get(), answered.stream.get());
    // Too late for an answer: either side has hung up.
    if (!done && done.error().code() == Code::kCanceled) co_return done;
    co_return Result<>{};
  }

  std::shared_ptr<Exchange> exchange_;
  HttpClient* client_;
  Endpoint endpoint_;
  RequestHead head_;
  Refusal refusal_;
};

}  // namespace

Headers end_to_end(const Headers& headers) {
  const ConnectionOptions named(headers);
  Headers out;
  for (const auto& [name, value] : headers.all()) {
    const bool one_hop = std::ranges::find(kOneHop, ascii_lower(name)) != kOneHop.end();
    if (!one_hop && !named.has(name)) out.add(name, value);
  }
  return out;
}

Task<> forward(std::shared_ptr<Exchange> exchange, HttpClient* client, Endpoint endpoint, RequestHead head,
               Refusal refusal) {
  Forwarding forwarding(std::move(exchange), client, std::move(endpoint), std::move(head),
                        std::move(refusal));
  co_return co_await forwarding.run();
}

}  // namespace wrenn::net
