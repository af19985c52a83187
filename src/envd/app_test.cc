// The guest agent's server over a real port, as PID 1 of a guest would run it.
#include "envd/app.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys/file.h"

namespace wrenn::envd {
namespace {

using testing::HasSubstr;

struct Answer {
  int status = 0;
  std::string body;
};

struct Peer {
  net::HttpClient* client;
  net::Endpoint at;
  std::string dir;
};

Task<Answer> call(Peer peer, std::string method, std::string target, std::string body = "",
                  std::string token = "") {
  net::RequestHead head{.method = std::move(method), .target = std::move(target), .headers = {}};
  head.headers.set("Content-Type", "application/octet-stream");
  if (!token.empty()) head.headers.set("X-Access-Token", token);
  auto response = CO_TRY(co_await peer.client->send(peer.at, std::move(head), std::move(body)));
  Answer answer{.status = response->head().status};
  answer.body = CO_TRY(co_await net::read_all(response.get(), 64U << 20U));
  co_return answer;
}

template <class Body>
void with_app(Body body) {
  const auto dir = sys::TempDir::make("wrenn-envd");
  ASSERT_TRUE(dir);
  async::Loop loop(2);
  App app(loop.executor(), &loop.pool());
  const net::Endpoint at = app.listen(net::Endpoint{.host = "127.0.0.1"}).value();
  const auto run = [](async::Loop* l, App* a, Peer peer, Body* test) -> Task<> {
    async::Nursery nursery(l->executor());
    nursery.spawn("envd", a->run());
    net::HttpClient client(l->executor());
    peer.client = &client;
    const Result<> done = co_await async::with_timeout((*test)(peer), Milliseconds(30'000), "test");
    EXPECT_TRUE(done) << done.error().to_string();
    co_await nursery.cancel_and_join();
    co_return Result<>{};
  };
  const Peer peer{.client = nullptr, .at = at, .dir = dir->path()};
  EXPECT_TRUE(loop.run_plain(run(&loop, &app, peer, &body)));
}

TEST(Envd, FilesGoUpAndDownWhole) {
  with_app([](Peer peer) -> Task<> {
    const std::string path = peer.dir + "/new/folder/file";
    for (const std::size_t size : {0UL, 1UL, 262'144UL, 262'145UL, 3'000'000UL}) {
      const std::string bytes(size, 'f');
      auto up = CO_TRY(co_await call(peer, "POST", "/files?path=" + path, bytes));
      EXPECT_EQ(up.status, 200) << up.body;
      EXPECT_THAT(up.body, HasSubstr(R"("type":"file")"));
      auto down = CO_TRY(co_await call(peer, "GET", "/files?path=" + path));
      EXPECT_EQ(down.status, 200);
      EXPECT_TRUE(down.body == bytes) << size;
    }
    EXPECT_EQ(CO_TRY(sys::list_dir(peer.dir + "/new/folder")).size(), 1U);
    co_return Result<>{};
  });
}

TEST(Envd, RefusalsAreTyped) {
  with_app([](Peer peer) -> Task<> {
    const std::pair<const char*, int> cases[] = {
        {"/files", 400},
        {"/files?path=/no/such/file", 404},
        {"/files?path=/etc", 400},
        {"/files?path=/dev/zero", 400},
        {"/files?path=/etc/passwd&username=no-such-user", 401},
        {"/files?path=%00", 400},
        {"/nothing", 404},
    };
    for (const auto& [target, status] : cases) {
      const auto answer = CO_TRY(co_await call(peer, "GET", target));
      EXPECT_EQ(answer.status, status) << target << ": " << answer.body;
      EXPECT_THAT(answer.body, HasSubstr("message"));
    }
    co_return Result<>{};
  });
}

// A client that leaves in the middle leaves the file as it was.
TEST(Envd, ABrokenUploadChangesNothing) {
  with_app([](Peer peer) -> Task<> {
    const std::string path = peer.dir + "/file";
    CO_TRY(sys::write_file(path, "old"));
    {
      const net::RequestHead head{.method = "POST", .target = "/files?path=" + path, .headers = {}};
      net::RequestHead typed = head;
      typed.headers.set("Content-Type", "application/octet-stream");
      auto request = CO_TRY(co_await peer.client->open(peer.at, typed, net::HttpClient::Body::kStream));
      CO_TRY(co_await request->write(std::string(1'000'000, 'n')));
      for (int i = 0; i < 100 && CO_TRY(sys::list_dir(peer.dir)).size() < 2; ++i) {
        CO_TRY(co_await async::sleep_for(Milliseconds(10)));
      }
      EXPECT_EQ(CO_TRY(sys::list_dir(peer.dir)).size(), 2U) << "the upload never began";
    }
    for (int i = 0; i < 100 && CO_TRY(sys::list_dir(peer.dir)).size() > 1; ++i) {
      CO_TRY(co_await async::sleep_for(Milliseconds(10)));
    }
    EXPECT_EQ(CO_TRY(sys::list_dir(peer.dir)).size(), 1U) << "what was uploaded is left";
    EXPECT_EQ(CO_TRY(sys::read_file(path)), "old");
    co_return Result<>{};
  });
}

// /init reseeds the kernel's generator, which only root may.
TEST(EnvdRoot, InitSetsEnvironmentAndToken) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  with_app([](Peer peer) -> Task<> {
    EXPECT_EQ(CO_TRY(co_await call(peer, "GET", "/health")).status, 204);
    EXPECT_EQ(CO_TRY(co_await call(peer, "POST", "/init", "[]")).status, 400);
    EXPECT_EQ(CO_TRY(co_await call(peer, "POST", "/init", R"({"envVars":{"A":1}})")).status, 400);
    EXPECT_EQ(CO_TRY(co_await call(peer, "POST", "/init", R"({"timestamp":"yesterday"})")).status, 400);
    const char* body = R"({"envVars":{"A":"1"},"accessToken":"secret-token"})";
    EXPECT_EQ(CO_TRY(co_await call(peer, "POST", "/init", body)).status, 204);
    EXPECT_EQ(CO_TRY(co_await call(peer, "GET", "/envs")).status, 401);
    EXPECT_EQ(CO_TRY(co_await call(peer, "GET", "/envs", "", "secret-tokem")).status, 401);
    const auto envs = CO_TRY(co_await call(peer, "GET", "/envs", "", "secret-token"));
    EXPECT_EQ(envs.body, R"({"A":"1"})");
    EXPECT_EQ(CO_TRY(co_await call(peer, "GET", "/files?path=/etc/passwd")).status, 401);
    EXPECT_EQ(CO_TRY(co_await call(peer, "POST", "/process.Process/List", "{}")).status, 401);
    EXPECT_EQ(CO_TRY(co_await call(peer, "POST", "/init", R"({"accessToken":"other"})")).status, 401);
    EXPECT_EQ(CO_TRY(co_await call(peer, "GET", "/health")).status, 204) << "open to the host's probe";
    co_return Result<>{};
  });
}

}  // namespace
}  // namespace wrenn::envd
