// The guest agent's server over a real port, as PID 1 of a guest would run it.
#include "envd/app.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "envd/download.h"
#include "envd/metrics_route.h"
#include "envd/signature.h"
#include "net/gzip.h"
#include "sys/file.h"

namespace wrenn::envd {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

using testing::HasSubstr;

struct Answer {
  int status = 0;
  std::string body;
  net::Headers headers;
};

struct Field {
  const char* name;
  std::string value;
};

struct Peer {
  net::HttpClient* client;
  net::Endpoint at;
  std::string dir;
};

Task<Answer> call(Peer peer, std::string method, std::string target, std::string body = "",
                  std::string token = "", std::vector<Field> fields = {}) {
  net::RequestHead head{.method = std::move(method), .target = std::move(target), .headers = {}};
  head.headers.set("Content-Type", "application/octet-stream");
  if (!token.empty()) head.headers.set("X-Access-Token", token);
  for (auto& [name, value] : fields) head.headers.set(name, value);
  auto response = CO_TRY(co_await peer.client->send(peer.at, std::move(head), std::move(body)));
  Answer answer{.status = response->head().status, .body = {}, .headers = response->head().headers};
  answer.body = CO_TRY(co_await net::read_all(response.get(), 64U << 20U));
  co_return answer;
}

template <class Body>
void with_app(Body body) {
  const auto dir = sys::TempDir::make(kBlocking, "wrenn-envd");
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
    EXPECT_EQ(CO_TRY(sys::list_dir(kBlocking, peer.dir + "/new/folder")).size(), 1U);
    co_return Result<>{};
  });
}

TEST(Envd, MetricsAreThoseOfTheMachine) {
  EXPECT_FALSE(parse_cpu_times("cpu0 1 2"));
  const auto times = parse_cpu_times("cpu  10 1 5 80 4 0 0 0 7 0\ncpu0 1\n");
  EXPECT_EQ(times->busy, 16U);
  EXPECT_EQ(times->total, 100U);
  with_app([](Peer peer) -> Task<> {
    const auto answer = CO_TRY(co_await call(peer, "GET", "/metrics"));
    EXPECT_EQ(answer.status, 200);
    for (const char* field : {"ts", "cpu_count", "cpu_used_pct", "mem_total", "mem_used", "mem_cache",
                              "mem_total_mib", "mem_used_mib", "disk_used", "disk_total"}) {
      EXPECT_THAT(answer.body, HasSubstr("\"" + std::string(field) + "\":"));
    }
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

TEST(Envd, PartsGoToTheirPaths) {
  with_app([](Peer peer) -> Task<> {
    const std::vector<Field> form{{"Content-Type", "multipart/form-data; boundary=XX"}};
    const auto part = [](const std::string& name, const std::string& file, const std::string& text) {
      return "--XX\r\nContent-Disposition: form-data; name=\"" + name + "\"; filename=\"" + file +
             "\"\r\n\r\n" + text + "\r\n";
    };
    const std::string one = peer.dir + "/deep/one";
    const std::string two = peer.dir + "/two";
    const std::string big(1'000'000, 'b');
    const std::string body =
        part("file", one, "first") + part("other", "/x", "?") + part("file", two, big) + "--XX--";
    const auto both = CO_TRY(co_await call(peer, "POST", "/files", body, "", form));
    EXPECT_EQ(both.status, 200) << both.body;
    EXPECT_THAT(both.body, HasSubstr("\"name\":\"two\""));
    EXPECT_EQ(CO_TRY(sys::read_file(one)), "first");
    EXPECT_TRUE(CO_TRY(sys::read_file(two)) == big);
    const std::string to_path = "/files?path=" + peer.dir + "/named";
    EXPECT_EQ(CO_TRY(co_await call(peer, "POST", to_path, part("file", "ignored", "x") + "--XX--", "", form))
                  .status,
              200);
    EXPECT_EQ(CO_TRY(sys::read_file(peer.dir + "/named")), "x");
    for (const std::string& bad :
         {part("file", one, "a") + part("file", one, "b") + "--XX--", part("file", one, "cut"),
          part("other", one, "a") + "--XX--", part("file", "", "nowhere") + "--XX--"}) {
      const auto answer = CO_TRY(co_await call(peer, "POST", "/files", bad, "", form));
      EXPECT_EQ(answer.status, 400) << bad << answer.body;
    }
    EXPECT_EQ(CO_TRY(co_await call(peer, "POST", to_path, "x", "", {{"Content-Type", "text/plain"}})).status,
              400);
    co_return Result<>{};
  });
}

TEST(Envd, BodiesMayBePacked) {
  with_app([](Peer peer) -> Task<> {
    const std::string target = "/files?path=" + peer.dir + "/file";
    std::string bytes;
    for (int i = 0; i < 200'000; ++i) bytes += std::to_string(i);
    const std::string packed = CO_TRY(net::gzip_compress(bytes));
    const std::vector<Field> gzip{{"Content-Encoding", "gzip"}};
    EXPECT_EQ(CO_TRY(co_await call(peer, "POST", target, packed, "", gzip)).status, 200);
    EXPECT_TRUE(CO_TRY(sys::read_file(peer.dir + "/file")) == bytes);
    const auto down =
        CO_TRY(co_await call(peer, "GET", target, "", "", {{"Accept-Encoding", "gzip, deflate"}}));
    EXPECT_EQ(down.headers.get("content-encoding"), "gzip");
    EXPECT_EQ(down.headers.get("vary"), "Accept-Encoding");
    EXPECT_TRUE(CO_TRY(net::gzip_decompress(down.body, bytes.size())) == bytes);
    EXPECT_LT(down.body.size(), bytes.size() / 2);
    for (const std::string& bad :
         {packed.substr(0, packed.size() / 2), std::string("plain"), std::string()}) {
      EXPECT_EQ(CO_TRY(co_await call(peer, "POST", target, bad, "", gzip)).status, 400) << bad.size();
    }
    EXPECT_EQ(CO_TRY(co_await call(peer, "POST", target, "x", "", {{"Content-Encoding", "br"}})).status, 400);
    EXPECT_EQ(CO_TRY(co_await call(peer, "GET", target, "", "", {{"Accept-Encoding", "br, *;q=0"}})).status,
              406);
    EXPECT_TRUE(CO_TRY(sys::read_file(peer.dir + "/file")) == bytes) << "a refused body changes nothing";
    co_return Result<>{};
  });
}

TEST(Envd, PartsOfAFileAndConditions) {
  with_app([](Peer peer) -> Task<> {
    const std::string target = "/files?path=" + peer.dir + "/file";
    CO_TRY(sys::write_file(kBlocking, peer.dir + "/file", "0123456789"));
    const auto get = [&](const char* name, std::string value) {
      return call(peer, "GET", target, "", "", {{name, std::move(value)}});
    };
    const auto middle = CO_TRY(co_await get("Range", "bytes=2-4"));
    EXPECT_EQ(middle.status, 206);
    EXPECT_EQ(middle.body, "234");
    EXPECT_EQ(middle.headers.get("content-range"), "bytes 2-4/10");
    EXPECT_EQ(CO_TRY(co_await get("Range", "bytes=-3")).body, "789");
    EXPECT_EQ(CO_TRY(co_await get("Range", "bytes=7-")).body, "789");
    EXPECT_EQ(CO_TRY(co_await get("Range", "bytes=0-99")).body, "0123456789");
    const auto beyond = CO_TRY(co_await get("Range", "bytes=10-"));
    EXPECT_EQ(beyond.status, 416);
    EXPECT_EQ(beyond.headers.get("content-range"), "bytes */10");
    for (const char* odd : {"bytes=4-2", "bytes=0-1,3-4", "lines=1-2", "bytes=x-", "bytes=-"}) {
      EXPECT_EQ(CO_TRY(co_await get("Range", odd)).status, 200) << odd;
    }
    const std::string tag(middle.headers.get("etag"));
    const std::string date(middle.headers.get("last-modified"));
    EXPECT_EQ(CO_TRY(co_await get("If-None-Match", "\"other\", " + tag)).status, 304);
    EXPECT_EQ(CO_TRY(co_await get("If-None-Match", "\"other\"")).status, 200);
    EXPECT_EQ(CO_TRY(co_await get("If-Match", "\"other\"")).status, 412);
    EXPECT_EQ(CO_TRY(co_await get("If-Modified-Since", date)).status, 304);
    EXPECT_EQ(CO_TRY(co_await get("If-Unmodified-Since", "Mon, 01 Jan 2001 00:00:00 GMT")).status, 412);
    const auto stale = CO_TRY(
        co_await call(peer, "GET", target, "", "", {{"Range", "bytes=0-1"}, {"If-Range", "\"other\""}}));
    EXPECT_EQ(stale.status, 200);
    const auto proc = CO_TRY(co_await call(peer, "GET", "/files?path=/proc/self/status"));
    EXPECT_THAT(proc.body, HasSubstr("Pid:"));
    co_return Result<>{};
  });
}

TEST(Envd, FilesCarryMetadata) {
  with_app([](Peer peer) -> Task<> {
    const std::string target = "/files?path=" + peer.dir + "/file";
    const auto put = [&](std::vector<Field> fields) {
      return call(peer, "POST", target, "x", "", std::move(fields));
    };
    const auto first = CO_TRY(co_await put({{"X-Metadata-Owner", "alice"}, {"x-metadata-B", "2"}}));
    if (first.body.find("keeps no metadata") != std::string::npos) co_return Result<>{};
    EXPECT_THAT(first.body, HasSubstr(R"("metadata":{"b":"2","owner":"alice"})"));
    const std::string stat = R"({"path":")" + peer.dir + R"(/file"})";
    const std::vector<Field> json{{"Content-Type", "application/json"}};
    const auto seen = CO_TRY(co_await call(peer, "POST", "/filesystem.Filesystem/Stat", stat, "", json));
    EXPECT_THAT(seen.body, HasSubstr(R"("owner":"alice")"));
    CO_TRY(co_await put({{"X-Metadata-C", "3"}}));
    const auto later = CO_TRY(co_await call(peer, "POST", "/filesystem.Filesystem/Stat", stat, "", json));
    EXPECT_THAT(later.body, HasSubstr(R"("metadata":{"c":"3"})"));
    EXPECT_EQ(CO_TRY(co_await put({{"X-Metadata-A", std::string(4097, 'v')}})).status, 400);
    EXPECT_EQ(CO_TRY(co_await put({{"X-Metadata-A", "\xc3\xa9"}})).status, 400);
    const std::string long_name = "X-Metadata-" + std::string(247, 'k');
    EXPECT_EQ(CO_TRY(co_await put({{long_name.c_str(), "v"}})).status, 400);
    co_return Result<>{};
  });
}

TEST(Envd, ComposeJoinsAndRemoves) {
  with_app([](Peer peer) -> Task<> {
    const auto body = [&](const std::string& sources, const std::string& to) {
      return R"({"source_paths":[)" + sources + R"(],"destination":")" + peer.dir + "/" + to + R"("})";
    };
    const std::string a = "\"" + peer.dir + "/a\"";
    const std::string b = "\"" + peer.dir + "/b\"";
    CO_TRY(sys::write_file(kBlocking, peer.dir + "/a", std::string(300'000, 'a')));
    CO_TRY(sys::write_file(kBlocking, peer.dir + "/b", "b"));
    const auto done = CO_TRY(co_await call(peer, "POST", "/files/compose", body(a + "," + b, "sub/c")));
    EXPECT_EQ(done.status, 200) << done.body;
    EXPECT_TRUE(CO_TRY(sys::read_file(peer.dir + "/sub/c")) == std::string(300'000, 'a') + "b");
    EXPECT_FALSE(sys::exists(peer.dir + "/a"));
    CO_TRY(sys::write_file(kBlocking, peer.dir + "/a", "a"));
    EXPECT_EQ(CO_TRY(co_await call(peer, "POST", "/files/compose", body(a + "," + b, "d"))).status, 404);
    EXPECT_FALSE(sys::exists(peer.dir + "/d"));
    EXPECT_TRUE(sys::exists(peer.dir + "/a")) << "nothing is removed before all is joined";
    EXPECT_EQ(CO_TRY(co_await call(peer, "POST", "/files/compose", body(a + "," + a, "d"))).status, 400);
    EXPECT_EQ(CO_TRY(co_await call(peer, "POST", "/files/compose", body(a, "a"))).status, 400);
    EXPECT_EQ(CO_TRY(co_await call(peer, "POST", "/files/compose", body("", "d"))).status, 400);
    EXPECT_EQ(CO_TRY(co_await call(peer, "POST", "/files/compose", "{")).status, 400);
    co_return Result<>{};
  });
}

TEST(Signature, IsTheOneClientsCompute) {
  // printf '%s' '/a b:read:user:tok:99' | openssl dgst -sha256 -binary | base64
  EXPECT_EQ(file_signature("/a b", "read", "user", "tok", "99"),
            "v1_MGb1fEZ6u209RENkrj8nIuvz1Q28Q5gK3RJLHgzAhH0");
  const Settings settings{.access_token = "tok"};
  const auto head = [](std::string query) {
    return net::RequestHead{.method = "GET", .target = "/files?" + query, .headers = {}};
  };
  const std::string good =
      "path=/"
      "a+b&username=user&signature_expiration=99&signature=v1_MGb1fEZ6u209RENkrj8nIuvz1Q28Q5gK3RJLHgzAhH0";
  EXPECT_TRUE(authorize_file(head(good), settings, 99));
  EXPECT_EQ(authorize_file(head(good), settings, 100).error().message(), "the signature has expired");
  EXPECT_FALSE(authorize_file(head("path=/b&" + good), settings, 1)) << "the first path counts";
  EXPECT_FALSE(authorize_file(
      head("path=/a+b&username=user&signature=v1_MGb1fEZ6u209RENkrj8nIuvz1Q28Q5gK3RJLHgzAhH0"), settings, 1));
  EXPECT_FALSE(authorize_file(head("path=/a+b"), settings, 1));
  net::RequestHead post = head(good);
  post.method = "POST";
  EXPECT_FALSE(authorize_file(post, settings, 1)) << "reading does not allow writing";
  net::RequestHead wrong = head(good);
  wrong.headers.set("X-Access-Token", "no");
  EXPECT_FALSE(authorize_file(wrong, settings, 1));
  EXPECT_TRUE(authorize_file(head("path=/a"), Settings{}, 1)) << "no token is set";
}

TEST(Coding, FollowsTheWeights) {
  EXPECT_EQ(choose_coding(""), Coding::kIdentity);
  EXPECT_EQ(choose_coding("gzip, deflate"), Coding::kGzip);
  EXPECT_EQ(choose_coding("identity, gzip;q=0.5"), Coding::kIdentity);
  EXPECT_EQ(choose_coding("identity;q=0.5, gzip;q=0.8"), Coding::kGzip);
  EXPECT_EQ(choose_coding("gzip;q=0"), Coding::kIdentity);
  EXPECT_EQ(choose_coding("br"), Coding::kIdentity);
  EXPECT_EQ(choose_coding("*;q=0"), Coding::kNone);
  EXPECT_EQ(choose_coding("identity;q=0"), Coding::kNone);
  EXPECT_EQ(choose_coding("*"), Coding::kGzip);
}

// A client that leaves in the middle leaves the file as it was.
TEST(Envd, ABrokenUploadChangesNothing) {
  with_app([](Peer peer) -> Task<> {
    const std::string path = peer.dir + "/file";
    CO_TRY(sys::write_file(kBlocking, path, "old"));
    {
      const net::RequestHead head{.method = "POST", .target = "/files?path=" + path, .headers = {}};
      net::RequestHead typed = head;
      typed.headers.set("Content-Type", "application/octet-stream");
      auto request = CO_TRY(co_await peer.client->open(peer.at, typed, std::nullopt));
      CO_TRY(co_await request->write(std::string(1'000'000, 'n')));
      for (int i = 0; i < 100 && CO_TRY(sys::list_dir(kBlocking, peer.dir)).size() < 2; ++i) {
        CO_TRY(co_await async::sleep_for(Milliseconds(10)));
      }
      EXPECT_EQ(CO_TRY(sys::list_dir(kBlocking, peer.dir)).size(), 2U) << "the upload never began";
    }
    for (int i = 0; i < 100 && CO_TRY(sys::list_dir(kBlocking, peer.dir)).size() > 1; ++i) {
      CO_TRY(co_await async::sleep_for(Milliseconds(10)));
    }
    EXPECT_EQ(CO_TRY(sys::list_dir(kBlocking, peer.dir)).size(), 1U) << "what was uploaded is left";
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
    const std::string entropy = R"("entropy":")" + to_base64(std::string(32, 'e')) + "\"";
    const std::string body = R"({"envVars":{"A":"1"},"accessToken":"secret-token",)" + entropy + "}";
    for (const std::string poor : {R"({"envVars":{}})", R"({"entropy":""})", R"({"entropy":"AAAA"})"}) {
      const auto refused = CO_TRY(co_await call(peer, "POST", "/init", poor));
      EXPECT_EQ(refused.status, 400) << "a clone would share its generator's state";
      EXPECT_THAT(refused.body, HasSubstr("entropy"));
    }
    EXPECT_EQ(CO_TRY(co_await call(peer, "POST", "/init", R"({"machineId":"x",)" + entropy + "}")).status,
              400);
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
