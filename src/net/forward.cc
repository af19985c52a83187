#include "net/forward.h"

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "net/byte_stream.h"
#include "net/limits.h"

namespace wrenn::net {
namespace {

constexpr std::array<std::string_view, 9> kOneHop = {"connection",
                                                     "keep-alive",
                                                     "proxy-authenticate",
                                                     "proxy-authorization",
                                                     "proxy-connection",
                                                     "te",
                                                     "trailer",
                                                     "transfer-encoding",
                                                     "upgrade"};

bool lists(std::string_view list, std::string_view name) {
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    if (ascii_iequal(trim(list.substr(0, comma)), name)) return true;
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
  }
  return false;
}

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
    const Headers& asked = exchange_->request().headers;
    if (lists(asked.get("connection"), "upgrade") && asked.has("upgrade")) co_return co_await upgrade();
    const bool has_body =
        asked.has("transfer-encoding") || (asked.has("content-length") && asked.get("content-length") != "0");
    if (has_body) co_return co_await with_body();
    auto work = [](Forwarding* self) -> Task<> {
      const auto response = CO_TRY(co_await self->client_->send(self->endpoint_, self->head_, ""));
      co_return co_await self->answer(response.get());
    };
    co_return co_await async::run_until(work(this), exchange_->wait_disconnect());
  }

 private:
  Task<> with_body() {
    const auto request = CO_TRY(co_await client_->open(endpoint_, head_, HttpClient::Body::kStream));
    auto download = [](Forwarding* self, ClientRequest* sent) -> Task<> {
      const auto response = CO_TRY(co_await sent->receive());
      co_return co_await self->answer(response.get());
    };
    co_return co_await async::run_until(download(this, request.get()), upload(request.get()));
  }

  // Returns well only once the client has left.
  Task<> upload(ClientRequest* request) {
    std::string buffer(kMaxReadBufferBytes, '\0');
    while (true) {
      const auto got = co_await exchange_->read(buffer);
      if (!got && got.error().code() == Code::kCanceled) co_return fail(got.error());
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
    CO_TRY(co_await exchange_->start(head.status, end_to_end(head.headers)));
    std::string buffer(kMaxReadBufferBytes, '\0');
    while (const std::size_t got = CO_TRY(co_await response->read(buffer))) {
      CO_TRY(co_await exchange_->write(buffer.substr(0, got)));
    }
    co_return co_await exchange_->finish();
  }

  Task<> upgrade() {
    RequestHead head = head_;
    head.headers.set("Connection", "Upgrade");
    head.headers.set("Upgrade", std::string(exchange_->request().headers.get("upgrade")));
    auto answered = CO_TRY(co_await client_->upgrade(endpoint_, std::move(head)));
    if (answered.response) co_return co_await answer(answered.response.get());
    Headers headers = end_to_end(answered.head.headers);
    headers.set("Connection", "Upgrade");
    headers.set("Upgrade", std::string(answered.head.headers.get("upgrade")));
    const auto stream = CO_TRY(co_await exchange_->switch_protocols(std::move(headers)));
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
  const std::string_view named = headers.get("connection");
  Headers out;
  for (const auto& [name, value] : headers.all()) {
    const std::string lower = ascii_lower(name);
    const bool one_hop = std::ranges::find(kOneHop, lower) != kOneHop.end() || lower == "expect";
    if (!one_hop && !lists(named, name)) out.add(name, value);
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
