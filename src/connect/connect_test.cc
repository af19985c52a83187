#include "connect/connect.h"

#include <gtest/gtest.h>

#include "filesystem/filesystem.pb.h"
#include "process/process.pb.h"

namespace wrenn::connect {
namespace {

using filesystem::ListDirRequest;
using filesystem::ListDirResponse;
using filesystem::StatRequest;
using filesystem::StatResponse;
using process::StreamInputRequest;
using process::StreamInputResponse;

// What the handlers below have seen.
struct Seen {
  int inputs = 0;
  int requests = 0;
  int dropped_request = 0;  // ends its connection without an answer
  bool cancelled = false;
};

Task<StatResponse> stat(Context context, StatRequest request) {
  if (request.path() == "fail") {
    co_return fail(Error(Code::kInvalidArgument, "no").with_reason("bad_path").with_field("path"));
  }
  if (request.path() == "slow") CO_TRY(co_await async::sleep_for(Milliseconds(10'000)));
  StatResponse response;
  response.mutable_entry()->set_path(request.path());
  context->response_headers.add("X-Head", std::string(context->request_headers.get("x-sent")));
  context->response_trailers.add("X-Tail", "t");
  co_return response;
}

// Answers `depth` messages; 0: until it is cancelled.
Task<> list(Seen* seen, ListDirRequest request, Writer<ListDirResponse> out) {
  for (unsigned i = 0; request.depth() == 0 || i < request.depth(); ++i) {
    ListDirResponse response;
    response.add_entries()->set_path(std::string(1000, 'p'));
    const Result<> sent = co_await out.send(std::move(response));
    if (!sent) seen->cancelled = true;
    CO_TRY(Result<>(sent));
  }
  if (request.path() == "fail") co_return fail(Code::kDataLoss, "after the messages");
  co_return Result<>{};
}

Task<StreamInputResponse> collect(Seen* seen, Reader<StreamInputRequest> in) {
  while (CO_TRY(co_await in.receive())) ++seen->inputs;
  co_return StreamInputResponse();
}

void serve(Router* router, Seen* seen) {
  router->unary<StatRequest, StatResponse>("/t.T/Stat", stat, true);
  router->server_stream<ListDirRequest, ListDirResponse>(
      "/t.T/List", [seen](Context, ListDirRequest request, Writer<ListDirResponse> out) {
        return list(seen, std::move(request), out);
      });
  router->client_stream<StreamInputRequest, StreamInputResponse>(
      "/t.T/Collect", [seen](Context, Reader<StreamInputRequest> in) { return collect(seen, in); });
}

constexpr AnswerLimit kLimit{1'000'000};

struct Fixture {
  Seen* seen;
  std::shared_ptr<net::HttpClient> http;
  net::Endpoint at;
  Client client(ClientOptions options = {}) const { return {http, at, std::move(options)}; }
};

// Serves the methods above on a port and runs `body` as their client.
template <class Body>
void with_server(Body body, ServerOptions options = {}) {
  async::Loop loop(1);
  Seen seen;
  Router router(options);
  serve(&router, &seen);
  net::HttpServer server(loop.executor(), [&](std::shared_ptr<net::Exchange> exchange) -> Task<> {
    if (++seen.requests == seen.dropped_request) co_return fail(Code::kUnavailable, "dropped");
    co_return co_await router.handle(std::move(exchange));
  });
  const net::Endpoint at = server.listen(net::Endpoint{.host = "127.0.0.1"}).value();
  const auto run = [](async::Loop* l, net::HttpServer* s, Fixture fixture, Body* test) -> Task<> {
    async::Nursery nursery(l->executor());
    nursery.spawn("server", s->serve(Milliseconds(200)));
    fixture.http = std::make_shared<net::HttpClient>(l->executor());
    const Result<> done =
        co_await async::with_timeout((*test)(std::move(fixture)), Milliseconds(20'000), "test");
    EXPECT_TRUE(done) << done.error().to_string();
    co_await nursery.cancel_and_join();
    co_return Result<>{};
  };
  const Fixture fixture{.seen = &seen, .http = nullptr, .at = at};
  EXPECT_TRUE(loop.run_plain(run(&loop, &server, fixture, &body)));
}

StatRequest stat_of(std::string path) {
  StatRequest request;
  request.set_path(std::move(path));
  return request;
}

TEST(Connect, UnaryCallsCarryMessagesHeadersAndTrailersInEveryEncoding) {
  with_server(
      [](Fixture f) -> Task<> {
        for (const bool json : {false, true}) {
          for (const bool get : {false, true}) {
            Client client = f.client({.json = json, .compress = true});
            CallOptions call{.get = get, .metadata = std::make_shared<ResponseMetadata>()};
            call.headers.add("X-Sent", "value");
            const std::string path(5'000, 'a');
            const auto answer =
                CO_TRY(co_await client.unary<StatResponse>("/t.T/Stat", stat_of(path), kLimit, call));
            EXPECT_EQ(answer.entry().path(), path);
            EXPECT_EQ(call.metadata->headers.get("x-head"), "value");
            EXPECT_EQ(call.metadata->trailers.get("x-tail"), "t");
          }
        }
        co_return Result<>{};
      },
      {.compress = true});
}

TEST(Connect, ACallIsSentTwiceOnlyIfItMayBe) {
  for (const bool may : {false, true}) {
    with_server([may](Fixture f) -> Task<> {
      f.seen->dropped_request = 2;
      Client client = f.client();
      // Without bytes in its body, which makes it no more harmless.
      CO_TRY(co_await client.unary<StatResponse>("/t.T/Stat", StatRequest(), kLimit));
      const auto again =
          co_await client.unary<StatResponse>("/t.T/Stat", StatRequest(), kLimit, {.repeatable = may});
      EXPECT_EQ(again.has_value(), may);
      EXPECT_EQ(f.seen->requests, may ? 3 : 2);
      co_return Result<>{};
    });
  }
}

TEST(Connect, ErrorsArriveTyped) {
  with_server([](Fixture f) -> Task<> {
    Client client = f.client();
    const auto refused = co_await client.unary<StatResponse>("/t.T/Stat", stat_of("fail"), kLimit);
    EXPECT_EQ(refused.error().code(), Code::kInvalidArgument);
    EXPECT_EQ(refused.error().reason(), "bad_path");
    EXPECT_EQ(refused.error().field(), "path");
    const auto slow = co_await client.unary<StatResponse>("/t.T/Stat", stat_of("slow"), kLimit,
                                                          {.timeout = Milliseconds(100)});
    EXPECT_EQ(slow.error().code(), Code::kDeadlineExceeded);
    auto call = CO_TRY(co_await client.stream("/t.T/List", kLimit));
    ListDirRequest request;
    request.set_depth(3);
    request.set_path("fail");
    CO_TRY(co_await call->send(&request));
    CO_TRY(co_await call->finish_sending());
    ListDirResponse response;
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(CO_TRY(co_await call->receive(&response)));
    const auto end = co_await call->receive(&response);
    EXPECT_EQ(end.error().code(), Code::kDataLoss);
    co_return Result<>{};
  });
}

TEST(Connect, LimitsHoldInBothDirections) {
  with_server(
      [](Fixture f) -> Task<> {
        Client client = f.client();
        constexpr AnswerLimit kSmall{100};
        const auto request =
            co_await client.unary<StatResponse>("/t.T/Stat", stat_of(std::string(2'000, 'a')), kLimit);
        EXPECT_EQ(request.error().code(), Code::kResourceExhausted);
        const auto response =
            co_await client.unary<StatResponse>("/t.T/Stat", stat_of(std::string(500, 'a')), kSmall);
        EXPECT_EQ(response.error().code(), Code::kResourceExhausted);
        EXPECT_TRUE(co_await client.unary<StatResponse>("/t.T/Stat", stat_of("a"), kSmall));
        auto call = CO_TRY(co_await client.stream("/t.T/List", kSmall));
        ListDirRequest one;
        one.set_depth(1);
        CO_TRY(co_await call->send(&one));
        CO_TRY(co_await call->finish_sending());
        ListDirResponse entry;
        EXPECT_EQ((co_await call->receive(&entry)).error().reason(), "too_large");
        co_return Result<>{};
      },
      {.max_message_bytes = 1'000});
}

TEST(Connect, ClientStreamsCount) {
  with_server([](Fixture f) -> Task<> {
    Client client = f.client();
    auto call = CO_TRY(co_await client.stream("/t.T/Collect", kLimit));
    StreamInputRequest input;
    input.mutable_data()->mutable_input()->set_stdin(std::string(10'000, 'x'));
    for (int i = 0; i < 100; ++i) CO_TRY(co_await call->send(&input));
    CO_TRY(co_await call->finish_sending());
    CO_TRY(co_await receive_only<StreamInputResponse>(call.get()));
    EXPECT_EQ(f.seen->inputs, 100);
    co_return Result<>{};
  });
}

// A client that leaves, or that reads slowly, costs the server one handler and a bounded buffer.
TEST(Connect, ADroppedCallCancelsItsHandler) {
  with_server([](Fixture f) -> Task<> {
    Client client = f.client();
    {
      auto call = CO_TRY(co_await client.stream("/t.T/List", kLimit));
      const ListDirRequest endless;
      CO_TRY(co_await call->send(&endless));
      CO_TRY(co_await call->finish_sending());
      ListDirResponse response;
      EXPECT_TRUE(CO_TRY(co_await call->receive(&response)));
    }
    for (int i = 0; i < 200 && !f.seen->cancelled; ++i) CO_TRY(co_await async::sleep_for(Milliseconds(10)));
    EXPECT_TRUE(f.seen->cancelled);
    co_return Result<>{};
  });
}

}  // namespace
}  // namespace wrenn::connect
