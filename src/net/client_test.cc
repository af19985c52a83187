// What an HttpClient writes, what it repeats, and what it keeps.
#include <gtest/gtest.h>

#include "net/framing.h"
#include "net/pool.h"
#include "net/serving.h"
#include "net/websocket.h"

namespace wrenn::net {
namespace {

struct Seen {
  std::string method;
  std::string target;
  std::string body;
  bool operator==(const Seen&) const = default;
};

Headers meddling_headers() {
  Headers headers;
  headers.add("Content-Length", "115");
  headers.add("Transfer-Encoding", "gzip, chunked");
  headers.add("Connection", "Upgrade, close");
  headers.add("Upgrade", "h2c");
  headers.add("X-Smuggled", "GET /smuggled HTTP/1.1");
  return headers;
}

Task<> read_answer(std::unique_ptr<ClientResponse> response) {
  EXPECT_EQ(response->head().status, 200);
  CO_TRY(co_await read_all(response.get(), 1024));
  co_return Result<>{};
}

// Every way to send, with headers of the caller that say otherwise; answers what must have been seen.
Task<> send_all_ways(Endpoint at, async::Loop* loop, std::vector<Seen>* wanted) {
  HttpClient client(loop->executor());
  for (const char* method : {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "QUERY"}) {
    for (const std::size_t size : {0UL, 1UL, 5'000UL}) {
      const std::string body(size, 'b');
      const auto head_for = [&](const char* target) {
        return RequestHead{.method = method, .target = target, .headers = meddling_headers()};
      };
      auto whole = CO_TRY(co_await client.send(at, head_for("/whole"), body));
      CO_TRY(co_await read_answer(std::move(whole)));
      wanted->push_back({method, "/whole", body});
      for (const BodyLength length : {BodyLength(size), BodyLength()}) {
        auto request = CO_TRY(co_await client.open(at, head_for("/pieces"), length));
        CO_TRY(co_await request->write(body.substr(0, size / 2)));
        CO_TRY(co_await request->write(body.substr(size / 2)));
        CO_TRY(co_await request->finish());
        auto response = CO_TRY(co_await request->receive());
        CO_TRY(co_await read_answer(std::move(response)));
        wanted->push_back({method, "/pieces", body});
      }
    }
    const RequestHead head{.method = method, .target = "/upgrade", .headers = meddling_headers()};
    auto upgraded = co_await client.upgrade(at, head, "other");
    EXPECT_EQ(upgraded.has_value(), std::string(method) == "GET") << "only a GET upgrades";
    if (!upgraded) continue;
    CO_TRY(co_await read_answer(std::move(upgraded->response)));
    wanted->push_back({method, "/upgrade", ""});
  }
  co_return Result<>{};
}

TEST(Client, EveryHeadHasALengthThatMatchesItsBody) {
  std::vector<Seen> seen;
  std::vector<Seen> wanted;
  const Handler record = [&seen](std::shared_ptr<Exchange> exchange) -> Task<> {
    const RequestHead& head = exchange->request();
    EXPECT_FALSE(head.headers.has("content-length") && head.headers.has("transfer-encoding"));
    EXPECT_EQ(head.headers.has("upgrade"), head.target == "/upgrade");
    std::string body = CO_TRY(co_await read_all(exchange.get(), 1024 * 1024));
    seen.push_back({exchange->request().method, exchange->request().target, std::move(body)});
    co_return co_await exchange->respond(200, {}, "ok");
  };
  serving({record}, [&](Served served) { return send_all_ways(served.places[0], served.loop, &wanted); });
  EXPECT_EQ(seen, wanted);
}

TEST(Client, ABodyOfAnotherLengthIsNotFinished) {
  const Handler read = [](std::shared_ptr<Exchange> exchange) -> Task<> {
    CO_TRY(co_await read_all(exchange.get(), 1024));
    co_return co_await exchange->respond(200, {}, "");
  };
  serving({read}, [](Served served) -> Task<> {
    HttpClient client(served.loop->executor());
    const RequestHead head{.method = "POST", .target = "/", .headers = {}};
    auto request = CO_TRY(co_await client.open(served.places[0], head, 3));
    EXPECT_FALSE(co_await request->write("abcd"));
    CO_TRY(co_await request->write("ab"));
    EXPECT_FALSE(co_await request->finish());
    CO_TRY(co_await request->write("c"));
    EXPECT_TRUE(co_await request->finish());
    EXPECT_TRUE(co_await request->receive());
    co_return Result<>{};
  });
}

// Answers the first request of each connection and ends the connection at the second.
struct OnceEach {
  int requests = 0;
  Task<> operator()(std::shared_ptr<Exchange> exchange) {
    if (++requests == 2) co_return fail(Code::kUnavailable, "gone");
    co_return co_await exchange->respond(200, {}, "");
  }
};

Task<> send_twice(Served served, std::string method, std::string body, Repeat repeat, bool wanted) {
  HttpClient client(served.loop->executor());
  const RequestHead head{.method = std::move(method), .target = "/", .headers = {}};
  EXPECT_TRUE(co_await client.send(served.places[0], head, body));
  EXPECT_EQ((co_await client.send(served.places[0], head, body, repeat)).has_value(), wanted) << head.method;
  co_return Result<>{};
}

TEST(Client, OnlyWhatMayBeRepeatedIsSentTwice) {
  struct Case {
    const char* method;
    const char* body;
    Repeat repeat;
    bool repeated;
  };
  for (const Case& each :
       {Case{"GET", "", Repeat::kIfIdempotent, true}, Case{"PUT", "b", Repeat::kIfIdempotent, true},
        Case{"POST", "", Repeat::kIfIdempotent, false}, Case{"POST", "b", Repeat::kIfIdempotent, false},
        Case{"PATCH", "", Repeat::kIfIdempotent, false}, Case{"POST", "", Repeat::kAllowed, true}}) {
    OnceEach server;
    serving({std::ref(server)}, [&](Served served) {
      return send_twice(std::move(served), each.method, each.body, each.repeat, each.repeated);
    });
    EXPECT_EQ(server.requests, each.repeated ? 3 : 2) << each.method;
  }
}

TEST(Client, AnUpgradeThatIsDeclinedLeavesNoConnectionBehind) {
  std::vector<std::string> peers;
  const Handler decline = [&peers](std::shared_ptr<Exchange> exchange) -> Task<> {
    peers.push_back(exchange->peer());
    co_return co_await exchange->respond(404, {}, "no");
  };
  serving({decline}, [](Served served) -> Task<> {
    HttpClient client(served.loop->executor());
    const RequestHead head{.method = "GET", .target = "/", .headers = {}};
    auto declined = CO_TRY(co_await client.upgrade(served.places[0], head, "other"));
    EXPECT_EQ(declined.head.status, 404);
    CO_TRY(co_await read_all(declined.response.get(), 1024));
    EXPECT_TRUE(co_await client.send(served.places[0], head, ""));
    co_return Result<>{};
  });
  ASSERT_EQ(peers.size(), 2U);
  EXPECT_NE(peers[0], peers[1]);
}

TEST(Client, AnotherProtocolThatNobodyAskedForIsAnError) {
  const Handler switches = [](std::shared_ptr<Exchange> exchange) -> Task<> {
    const auto stream = CO_TRY(co_await exchange->switch_protocols("other", {}));
    co_return Result<>{};
  };
  serving({switches}, [](Served served) -> Task<> {
    HttpClient client(served.loop->executor());
    const RequestHead head{.method = "POST", .target = "/", .headers = {}};
    EXPECT_FALSE(co_await client.send(served.places[0], head, ""));
    co_return Result<>{};
  });
}

TEST(Client, ADroppedAnswerTellsTheServerAtOnce) {
  std::vector<std::string> events;
  const Handler endless = [&events](std::shared_ptr<Exchange> exchange) -> Task<> {
    CO_TRY(co_await exchange->start(200, {}));
    events.push_back("started");
    CO_TRY(co_await exchange->wait_disconnect());
    events.push_back("left");
    co_return Result<>{};
  };
  serving({endless}, [&events](Served served) -> Task<> {
    HttpClient client(served.loop->executor());
    const RequestHead head{.method = "GET", .target = "/", .headers = {}};
    auto response = CO_TRY(co_await client.send(served.places[0], head, ""));
    response.reset();
    while (events.size() < 2) CO_TRY(co_await async::sleep_for(Milliseconds(5)));
    co_return Result<>{};
  });
  EXPECT_EQ(events.back(), "left");
}

TEST(Client, AnEndpointWithoutAHostIsNoneOfThisMachine) {
  EXPECT_EQ(Endpoint::parse(":8000").value().host, "");
  EXPECT_EQ(Endpoint::parse_remote(":8000").value().host, "localhost");
  EXPECT_EQ(Endpoint::parse_remote("http://:8000").value().host, "localhost");
  EXPECT_EQ(Endpoint::parse_remote("10.0.0.1:8000").value().host, "10.0.0.1");
  EXPECT_EQ(Endpoint::parse_remote("unix:/a").value().host, "");
  int requests = 0;
  const Handler count = [&requests](std::shared_ptr<Exchange> exchange) -> Task<> {
    ++requests;
    co_return co_await exchange->respond(200, {}, "");
  };
  serving({count}, [](Served served) -> Task<> {
    HttpClient client(served.loop->executor());
    const RequestHead head{.method = "GET", .target = "/", .headers = {}};
    const Endpoint nowhere{.host = "", .port = served.places[0].port};
    EXPECT_EQ((co_await client.send(nowhere, head, "")).error().code(), Code::kInternal);
    EXPECT_FALSE(co_await client.open(nowhere, head, 0));
    EXPECT_FALSE(co_await client.upgrade(nowhere, head, "x"));
    EXPECT_FALSE(co_await client.websocket(nowhere, head));
    co_return Result<>{};
  });
  EXPECT_EQ(requests, 0);
}

TEST(Pool, KeepsNothingWhereNothingMayBeIdle) {
  const Handler none = [](std::shared_ptr<Exchange> exchange) { return exchange->respond(200, {}, ""); };
  serving({none}, [](Served served) -> Task<> {
    for (const std::size_t max_idle : {0UL, 1UL}) {
      Pool pool(max_idle, Milliseconds(60'000));
      for (const char* endpoint : {"a", "b", "b"}) {
        pool.put(endpoint, CO_TRY(co_await raw_connection(served.places[0])));
      }
      EXPECT_EQ(pool.size(), max_idle * 2);
      EXPECT_EQ(pool.take("b") != nullptr, max_idle == 1);
      EXPECT_EQ(pool.take("b"), nullptr);
      EXPECT_EQ(pool.size(), max_idle) << "an endpoint without connections is forgotten";
    }
    co_return Result<>{};
  });
}

}  // namespace
}  // namespace wrenn::net
