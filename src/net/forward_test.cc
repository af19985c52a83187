// Requests that pass through: a front server that forwards everything to a back server.
#include "net/forward.h"

#include <gtest/gtest.h>

#include "net/limits.h"
#include "net/serving.h"

namespace wrenn::net {
namespace {

// What the back server has seen.
struct Back {
  std::vector<std::string> requests;  // "<method> <target> <body>"
  Headers last;
  bool left = false;

  Task<> operator()(std::shared_ptr<Exchange> exchange) {
    const RequestHead& head = exchange->request();
    last = head.headers;
    const std::string path = head.path();
    const std::size_t number = requests.size();
    requests.push_back(head.method + " " + head.target + " ");
    if (path == "/early") co_return co_await exchange->respond(200, {}, path);
    requests[number] += CO_TRY(co_await read_all(exchange.get(), 64 * 1024));
    if (path == "/switch") co_return co_await echo(exchange.get());
    if (path == "/slow") CO_TRY(co_await async::sleep_for(Milliseconds(200)));
    if (path == "/silent") {
      CO_TRY(co_await exchange->wait_disconnect());
      left = true;
      co_return Result<>{};
    }
    Headers headers;
    headers.set("Connection", "x-hop");
    headers.add("X-Hop", "1");
    headers.add("X-Kept", "1");
    headers.add("Content-Length", "999");
    co_return co_await exchange->respond(path == "/none" ? 304 : 200, std::move(headers), path);
  }
  static Task<> echo(Exchange* exchange) {
    Headers headers;
    headers.set("X-Kept", "1");
    const auto stream = CO_TRY(co_await exchange->switch_protocols("other", std::move(headers)));
    std::string buffer(100, '\0');
    while (const std::size_t got = CO_TRY(co_await stream->read(buffer))) {
      CO_TRY(co_await stream->write("<" + buffer.substr(0, got) + ">"));
    }
    co_return Result<>{};
  }
};

// The front's client has to be of the loop that serves, so it is made by the first request.
struct Front {
  std::shared_ptr<Endpoint> back = std::make_shared<Endpoint>();
  std::shared_ptr<std::unique_ptr<HttpClient>> client = std::make_shared<std::unique_ptr<HttpClient>>();

  Task<> operator()(std::shared_ptr<Exchange> exchange) const {
    if (!*client) *client = std::make_unique<HttpClient>(co_await asio::this_coro::executor);
    RequestHead head = exchange->request();
    head.headers = end_to_end(head.headers);
    co_return co_await forward(exchange, client->get(), *back, std::move(head));
  }
};

void through(Back* back, const std::function<Task<>(Endpoint)>& script) {
  const Front front;
  serving({front, std::ref(*back)}, [&](Served served) -> Task<> {
    *front.back = served.places[1];
    const Result<> done = co_await script(served.places[0]);
    front.client->reset();
    co_return done;
  });
}

std::string request(const std::string& line, const std::string& fields = "", const std::string& body = "") {
  return line + " HTTP/1.1\r\nHost: h\r\n" + fields + "\r\n" + body;
}

TEST(Forward, ABodyThatAnUpgradeAnnouncesSwallowsNothing) {
  Back back;
  through(&back, [](Endpoint at) -> Task<> {
    for (const char* announced : {"Content-Length: 60\r\n", "Transfer-Encoding: chunked\r\n"}) {
      const std::string first =
          request("GET /early", std::string("Connection: Upgrade, close\r\nUpgrade: foo\r\n") + announced);
      EXPECT_TRUE(CO_TRY(co_await talk(at, first)).ends_with("/early"));
      const std::string second = CO_TRY(
          co_await talk(at, request("GET /x", "Connection: close\r\nX-S: GET /smuggled HTTP/1.1\r\n")));
      EXPECT_TRUE(second.ends_with("/x")) << second;
    }
    co_return Result<>{};
  });
  EXPECT_EQ(back.requests, (std::vector<std::string>{"GET /early ", "GET /x ", "GET /early ", "GET /x "}));
}

TEST(Forward, OnlyAGetWithoutABodyUpgrades) {
  Back back;
  through(&back, [&back](Endpoint at) -> Task<> {
    const std::string upgrade = "Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: other\r\n";
    const std::string with_body = "Connection: Upgrade, close\r\nUpgrade: other\r\nContent-Length: 2\r\n";
    EXPECT_TRUE(CO_TRY(co_await talk(at, request("GET /g", with_body, "ab"))).ends_with("/g"));
    EXPECT_EQ(back.requests.back(), "GET /g ab");
    EXPECT_FALSE(back.last.has("upgrade"));
    EXPECT_TRUE(CO_TRY(co_await talk(at, request("POST /p", with_body, "ab"))).ends_with("/p"));
    EXPECT_FALSE(back.last.has("upgrade"));
    const std::string head =
        CO_TRY(co_await talk(at, request("HEAD /head", "Connection: Upgrade, close\r\nUpgrade: other\r\n")));
    EXPECT_TRUE(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n")) << head;
    EXPECT_NE(head.find("Content-Length: 5\r\n"), std::string::npos) << head;
    const auto raw = CO_TRY(co_await raw_connection(at));
    CO_TRY(co_await send_raw(raw, request("GET /switch", upgrade) + "early"));
    const std::string switched = CO_TRY(co_await read_up_to(raw, "<early>"));
    EXPECT_TRUE(switched.starts_with("HTTP/1.1 101")) << switched;
    EXPECT_NE(switched.find("Upgrade: other\r\n"), std::string::npos) << switched;
    co_return Result<>{};
  });
}

TEST(Forward, AnswersAreFramedAnew) {
  Back back;
  through(&back, [](Endpoint at) -> Task<> {
    const std::string got = CO_TRY(co_await talk(at, request("GET /abc", "Connection: close\r\n")));
    EXPECT_NE(got.find("Content-Length: 4\r\n"), std::string::npos) << got;
    EXPECT_EQ(got.find("999"), std::string::npos) << got;
    EXPECT_NE(got.find("X-Kept: 1"), std::string::npos) << got;
    EXPECT_EQ(got.find("X-Hop"), std::string::npos) << got;
    const std::string none = CO_TRY(co_await talk(at, request("GET /none", "Connection: close\r\n")));
    EXPECT_TRUE(none.starts_with("HTTP/1.1 304") && none.ends_with("\r\n\r\n")) << none;
    EXPECT_EQ(none.find("Content-Length"), std::string::npos) << none;
    co_return Result<>{};
  });
}

TEST(Forward, AMalformedChunkIsTheClientsFault) {
  Back back;
  through(&back, [](Endpoint at) -> Task<> {
    for (const char* body : {"zz\r\n", "3\r\nabcd\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\nX\n\r\n"}) {
      const std::string got =
          CO_TRY(co_await talk(at, request("POST /p", "Transfer-Encoding: chunked\r\n", body) +
                                       request("GET /next", "Connection: close\r\n")));
      EXPECT_TRUE(got.starts_with("HTTP/1.1 400")) << got;
      EXPECT_EQ(got.find("/next"), std::string::npos) << "nothing after it can be told apart";
    }
    co_return Result<>{};
  });
}

// Half-closed, as `printf ... | nc` and many scripts do.
TEST(Forward, AClientThatEndedItsSideGetsItsAnswer) {
  Back back;
  through(&back, [](Endpoint at) -> Task<> {
    for (const std::string& sent :
         {request("GET /slow"), request("POST /slow", "Content-Length: 2\r\n", "ab"),
          std::string("GET /slow HTTP/1.0\r\n\r\n")}) {
      const auto raw = CO_TRY(co_await raw_connection(at));
      CO_TRY(co_await send_raw(raw, sent));
      raw->stream.shutdown_send();
      const std::string got = CO_TRY(co_await read_to_end(raw));
      EXPECT_TRUE(got.ends_with("/slow")) << got;
    }
    co_return Result<>{};
  });
}

TEST(Forward, AClientThatLeftEndsItAllTheWay) {
  Back back;
  through(&back, [&back](Endpoint at) -> Task<> {
    for (const bool reset : {false, true}) {
      back.left = false;
      const auto raw = CO_TRY(co_await raw_connection(at));
      CO_TRY(co_await send_raw(raw, request("GET /silent")));
      while (back.requests.size() < (reset ? 2U : 1U)) CO_TRY(co_await async::sleep_for(Milliseconds(5)));
      if (reset) {
        raw->stream.abort();
      } else {
        raw->stream.close();
      }
      while (!back.left) CO_TRY(co_await async::sleep_for(Milliseconds(5)));
    }
    co_return Result<>{};
  });
}

}  // namespace
}  // namespace wrenn::net
