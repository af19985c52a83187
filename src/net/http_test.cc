#include "net/http.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "net/byte_stream.h"
#include "net/websocket.h"

namespace wrenn::net {
namespace {

// Answers what the tests below ask for by path.
Task<> answer(std::shared_ptr<Exchange> exchange) {
  const std::string path = exchange->request().path();
  if (path == "/echo") {
    const std::string body = CO_TRY(co_await read_all(exchange.get(), 32 * 1024 * 1024));
    co_return co_await exchange->respond(200, {}, body);
  }
  if (path == "/stream") {
    CO_TRY(co_await exchange->start(200, {}));
    for (int i = 0; i < 100; ++i) CO_TRY(co_await exchange->write(std::string(10'000, 'x')));
    co_return co_await exchange->finish();
  }
  if (path == "/cut") {
    CO_TRY(co_await exchange->start(200, {}));
    CO_TRY(co_await exchange->write("half"));
    co_return fail(Code::kInternal, "broke in the middle");
  }
  if (path == "/socket") {
    auto socket = CO_TRY(co_await exchange->accept_websocket());
    while (auto message = CO_TRY(co_await socket->receive())) CO_TRY(co_await socket->send(*message));
    co_return Result<>{};
  }
  if (path == "/broken") co_return fail(Code::kNotFound, "nothing");
  co_return co_await exchange->respond(404, {}, "no such path");
}

// Runs `body` against a served port and stops the server afterwards.
template <class Body>
void with_server(Body body, ServerOptions options = {}) {
  async::Loop loop(1);
  HttpServer server(loop.executor(), answer, options);
  const Endpoint endpoint = server.listen(Endpoint{.host = "127.0.0.1", .port = 0}).value();
  const auto run = [](async::Loop* l, HttpServer* s, Endpoint at, Body* test) -> Task<> {
    async::Nursery nursery(l->executor());
    nursery.spawn("server", s->serve(Milliseconds(200)));
    {
      HttpClient client(l->executor());
      const Result<> result =
          co_await async::with_timeout((*test)(&client, at), Milliseconds(20'000), "test");
      EXPECT_TRUE(result) << result.error().to_string();
    }
    co_await nursery.cancel_and_join();
    co_return Result<>{};
  };
  const Result<> done = loop.run_plain(run(&loop, &server, endpoint, &body));
  EXPECT_TRUE(done) << done.error().to_string();
}

Task<std::string> fetch(HttpClient* client, Endpoint at, std::string method, std::string target,
                        std::string body, int* status) {
  auto response = CO_TRY(co_await client->send(
      std::move(at), RequestHead{.method = std::move(method), .target = std::move(target), .headers = {}},
      std::move(body)));
  *status = response->head().status;
  co_return co_await read_all(response.get(), 64 * 1024 * 1024);
}

TEST(Http, EchoesBodiesOfEverySizeOnOneConnection) {
  with_server([](HttpClient* client, Endpoint at) -> Task<> {
    for (const std::size_t size : {0UL, 1UL, 8191UL, 8192UL, 65'536UL, 1'000'003UL, 20'000'000UL}) {
      int status = 0;
      const std::string sent(size, 'a');
      const std::string back = CO_TRY(co_await fetch(client, at, "POST", "/echo", sent, &status));
      EXPECT_EQ(status, 200);
      EXPECT_TRUE(back == sent) << size;
    }
    co_return Result<>{};
  });
}

TEST(Http, StreamsAndCutsAreToldApart) {
  with_server([](HttpClient* client, Endpoint at) -> Task<> {
    int status = 0;
    const std::string whole = CO_TRY(co_await fetch(client, at, "GET", "/stream", "", &status));
    EXPECT_EQ(whole.size(), 1'000'000U);
    const auto cut = co_await fetch(client, at, "GET", "/cut", "", &status);
    EXPECT_FALSE(cut) << "a half body must not look whole";
    EXPECT_TRUE(co_await fetch(client, at, "GET", "/broken", "", &status));
    EXPECT_EQ(status, 500);
    EXPECT_TRUE(co_await fetch(client, at, "GET", "/none", "", &status));
    EXPECT_EQ(status, 404);
    co_return Result<>{};
  });
}

TEST(Http, UploadsWithBackPressure) {
  with_server([](HttpClient* client, Endpoint at) -> Task<> {
    auto request = CO_TRY(co_await client->open(
        at, RequestHead{.method = "POST", .target = "/echo", .headers = {}}, std::nullopt));
    for (int i = 0; i < 50; ++i) CO_TRY(co_await request->write(std::string(100'000, 'b')));
    CO_TRY(co_await request->finish());
    auto response = CO_TRY(co_await request->receive());
    const std::string back = CO_TRY(co_await read_all(response.get(), 64 * 1024 * 1024));
    EXPECT_EQ(back.size(), 5'000'000U);
    co_return Result<>{};
  });
}

// A connection that a client may use again must really serve again.
TEST(Http, AnEarlyAnswerKeepsOnlyConnectionsItCanServeAgain) {
  with_server([](HttpClient* client, Endpoint at) -> Task<> {
    const RequestHead head{.method = "POST", .target = "/none", .headers = {}};
    auto endless = CO_TRY(co_await client->open(at, head, std::nullopt));
    CO_TRY(co_await endless->write(std::string(1000, 'b')));
    auto refused = CO_TRY(co_await endless->receive());
    EXPECT_EQ(refused->head().status, 404);
    EXPECT_EQ(refused->head().headers.get("connection"), "close");
    auto response = CO_TRY(co_await client->send(at, head, std::string(100'000, 'b')));
    EXPECT_EQ(response->head().status, 404);
    EXPECT_EQ(response->head().headers.get("connection"), "");
    co_return Result<>{};
  });
}

// A CA and a certificate of it for 127.0.0.1, and one that it did not sign.
TlsFiles make_certificates(const std::string& dir) {
  const std::string script =
      "cd '" + dir +
      "' && exec 2>/dev/null && key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes' &&"
      "openssl req -x509 $key -keyout ca.key -out ca.pem -subj /CN=ca -days 2 &&"
      "openssl req $key -keyout own.key -out own.csr -subj /CN=own &&"
      "printf 'subjectAltName=IP:127.0.0.1' > san &&"
      "openssl x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out "
      "own.pem &&"
      "openssl req -x509 $key -keyout other.key -out other.pem -subj /CN=other -days 2";
  EXPECT_EQ(std::system(script.c_str()), 0);
  return {.certificate = dir + "/own.pem", .key = dir + "/own.key", .client_ca = dir + "/ca.pem"};
}

Task<> speak_tls(net::Endpoint at, TlsFiles own, std::string dir) {
  const auto executor = co_await asio::this_coro::executor;
  at.tls = true;
  const TlsFiles other{dir + "/other.pem", dir + "/other.key", own.client_ca};
  const TlsFiles nobody{.certificate = "", .key = "", .client_ca = own.client_ca};
  const TlsFiles distrustful{own.certificate, own.key, dir + "/other.pem"};
  int status = 0;
  for (const TlsFiles& files : {other, nobody, distrustful}) {
    HttpClient refused(executor, {.tls = CO_TRY(client_tls(files))});
    EXPECT_FALSE(co_await fetch(&refused, at, "GET", "/stream", "", &status));
  }
  HttpClient client(executor, {.tls = CO_TRY(client_tls(own))});
  for (const std::size_t size : {1UL, 100'000UL, 5'000'000UL}) {
    const std::string body(size, 't');
    EXPECT_TRUE(CO_TRY(co_await fetch(&client, at, "POST", "/echo", body, &status)) == body);
  }
  auto socket =
      CO_TRY(co_await client.websocket(at, RequestHead{.method = "GET", .target = "/socket", .headers = {}}));
  CO_TRY(co_await socket->send({.data = "hello", .text = true}));
  const auto back = CO_TRY(co_await socket->receive());
  EXPECT_EQ(back->data, "hello");
  CO_TRY(co_await socket->close(1000, "done"));
  HttpClient plain(executor);
  const auto without = co_await fetch(&plain, at, "GET", "/stream", "", &status);
  EXPECT_EQ(without.error().code(), Code::kInvalidArgument);
  co_return Result<>{};
}

TEST(Http, TlsAdmitsOnlyCertificatesOfItsCa) {
  std::string dir = testing::TempDir() + "wrenn-tls-XXXXXX";
  ASSERT_NE(::mkdtemp(dir.data()), nullptr);
  const TlsFiles own = make_certificates(dir);
  const auto context = server_tls(own);
  ASSERT_TRUE(context) << context.error().to_string();
  with_server([&](HttpClient*, Endpoint at) { return speak_tls(at, own, dir); }, {.tls = *context});
  EXPECT_NE(server_tls({.certificate = dir + "/none.pem", .key = "", .client_ca = ""})
                .error()
                .message()
                .find("none.pem"),
            std::string::npos);
  std::filesystem::remove_all(dir);
}

TEST(Http, WebSocketsEchoTextAndBytes) {
  with_server([](HttpClient* client, Endpoint at) -> Task<> {
    auto socket = CO_TRY(
        co_await client->websocket(at, RequestHead{.method = "GET", .target = "/socket", .headers = {}}));
    for (const bool text : {true, false}) {
      CO_TRY(co_await socket->send({.data = "hello", .text = text}));
      const auto back = CO_TRY(co_await socket->receive());
      EXPECT_TRUE(back && back->data == "hello" && back->text == text);
    }
    CO_TRY(co_await socket->close(1000, "done"));
    const auto refused =
        co_await client->websocket(at, RequestHead{.method = "GET", .target = "/none", .headers = {}});
    EXPECT_EQ(refused.error().code(), Code::kNotFound);
    co_return Result<>{};
  });
}

TEST(Http, HeadersThatWouldSplitAreRefused) {
  with_server([](HttpClient* client, Endpoint at) -> Task<> {
    RequestHead head{.method = "GET", .target = "/none", .headers = {}};
    head.headers.set("X-Evil", "a\r\nX-Other: b");
    const auto sent = co_await client->send(at, head, "");
    EXPECT_EQ(sent.error().code(), Code::kInvalidArgument);
    co_return Result<>{};
  });
}

TEST(Http, LargeHeadersAreRefusedWith431) {
  with_server(
      [](HttpClient* client, Endpoint at) -> Task<> {
        RequestHead head{.method = "GET", .target = "/none", .headers = {}};
        head.headers.set("X-Long", std::string(10'000, 'h'));
        auto response = CO_TRY(co_await client->send(at, head, ""));
        EXPECT_EQ(response->head().status, 431);
        co_return Result<>{};
      },
      ServerOptions{.max_header_bytes = 4096});
}

TEST(Http, NobodyListeningIsUnavailable) {
  async::Loop loop(1);
  const auto body = [](async::Loop* l) -> Task<> {
    HttpClient client(l->executor());
    const auto sent = co_await client.send(Endpoint{.host = "127.0.0.1", .port = 1},
                                           RequestHead{.method = "GET", .target = "/", .headers = {}}, "");
    EXPECT_EQ(sent.error().code(), Code::kUnavailable);
    co_return Result<>{};
  };
  EXPECT_TRUE(loop.run_plain(body(&loop)));
}

TEST(Http, EndpointsAreParsed) {
  EXPECT_EQ(Endpoint::parse("http://localhost:50051").value().port, 50051);
  EXPECT_EQ(Endpoint::parse(":8000").value().host, "");
  EXPECT_EQ(Endpoint::parse("https://[::1]/").value().to_string(), "https://[::1]:443");
  EXPECT_EQ(Endpoint::parse("unix:/run/a.sock").value().unix_path, "/run/a.sock");
  for (const char* bad : {"", "host", "host:99999", "http://h/path", "::1:80", "unix:"}) {
    EXPECT_FALSE(Endpoint::parse(bad)) << bad;
  }
}

TEST(Http, QueriesAreDecoded) {
  const RequestHead head{.method = "GET", .target = "/a%20b?x=1&name=J%C3%B6rg+K&bad=%zz", .headers = {}};
  EXPECT_EQ(head.path(), "/a b");
  EXPECT_EQ(head.query("name").value(), "J\xC3\xB6rg K");
  EXPECT_FALSE(head.query("bad"));
  EXPECT_FALSE(head.query("none"));
}

// A peer that sends nothing: for ever, or until it has ended its side.
class QuietStream : public ByteStream {
 public:
  explicit QuietStream(bool ended) : ended_(ended) {}
  Task<std::size_t> read(std::span<char>) override {
    if (ended_) co_return std::size_t{0};
    CO_TRY(co_await async::sleep_for(std::chrono::hours(1)));
    co_return std::size_t{0};
  }
  Task<> write(std::string) override { co_return Result<>{}; }
  void shutdown_send() override {}

 private:
  bool ended_;
};

TEST(Tunnel, EndsWhenCancelledThoughOneDirectionHasEnded) {
  const auto body = []() -> Task<> {
    QuietStream left(true);
    QuietStream right(false);
    const auto done = co_await async::with_timeout(tunnel(&left, &right), Milliseconds(50), "tunnel");
    EXPECT_EQ(done.error().code(), Code::kDeadlineExceeded);
    co_return Result<>{};
  };
  async::Loop loop(1);
  EXPECT_TRUE(loop.run_plain(body()));
}

}  // namespace
}  // namespace wrenn::net
