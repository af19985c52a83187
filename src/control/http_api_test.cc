#include "control/http_api.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "base/embedded.h"
#include "control/api_key.h"
#include "control/app.h"
#include "control/limits.h"
#include "store/store.h"

namespace wrenn::control {

std::vector<EmbeddedFile> embedded_documents();

namespace {

struct Answer {
  int status = 0;
  net::Headers headers;
  std::string body;
};

// The whole control plane on a port of its own, with a database and without any host.
class HttpApiTest : public testing::Test {
 public:
  HttpApiTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "wrenn-cp-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    settings_.database_url = folder_ + "/wrenn.db";
    settings_.listen = *net::Endpoint::parse("127.0.0.1:0");
    settings_.agent = *net::Endpoint::parse("unix:" + folder_ + "/no-agent");
    settings_.agent_secret = std::string(32, 's');
  }
  ~HttpApiTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  using Script = std::function<Task<>(HttpApiTest*)>;

  // Serves while `script` runs.
  void with_server(Script script) {
    const auto result = loop_.run_plain(serve_and_run(this, std::move(script)));
    EXPECT_TRUE(result) << result.error().to_string();
  }

  static Task<> serve_and_run(HttpApiTest* test, Script script) {
    test->client_ = std::make_unique<net::HttpClient>(test->loop_.executor());
    test->key_ = CO_TRY(co_await bootstrap(&test->loop_, test->settings_)).value_or("");
    async::Condition ready(test->loop_.executor());
    async::Nursery nursery(test->loop_.executor());
    nursery.spawn("serve", serve(&test->loop_, test->settings_, [test, &ready](const net::Endpoint& bound) {
                    test->bound_ = bound;
                    ready.notify_all();
                  }));
    auto result = co_await ready.wait_for(Milliseconds(10'000));
    if (result) result = co_await script(test);
    test->client_.reset();
    co_await nursery.cancel_and_join();
    co_return result;
  }

  Task<Answer> request(std::string method, std::string target, std::string body, net::Headers headers = {}) {
    net::RequestHead head{std::move(method), std::move(target), std::move(headers)};
    if (!head.headers.has("X-API-Key")) head.headers.set("X-API-Key", key_);
    auto response = CO_TRY(co_await client_->send(bound_, std::move(head), std::move(body)));
    Answer answer;
    answer.status = response->head().status;
    answer.headers = response->head().headers;
    answer.body = CO_TRY(co_await net::read_all(response.get(), 4 * 1024 * 1024));
    co_return answer;
  }

  async::Loop loop_{4};
  std::string folder_;
  Settings settings_;
  net::Endpoint bound_;
  std::string key_;
  std::unique_ptr<net::HttpClient> client_;
};

net::Headers header(std::string name, std::string value) {
  net::Headers headers;
  headers.set(std::move(name), std::move(value));
  return headers;
}

Task<> open_routes(HttpApiTest* test) {
  auto health = CO_TRY(co_await test->request("GET", "/health", "", header("X-API-Key", "")));
  EXPECT_EQ(health.status, 200);
  EXPECT_NE(health.body.find(R"("status":"ok")"), std::string::npos);
  auto head = CO_TRY(co_await test->request("HEAD", "/health", "", header("X-API-Key", "")));
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.headers.get("Content-Length"), std::to_string(health.body.size()));
  EXPECT_EQ(head.body, "");
  EXPECT_EQ(CO_TRY(co_await test->request("HEAD", "/v1/sandboxes/sb-none/pty", "")).status, 405);
  auto yaml = CO_TRY(co_await test->request("GET", "/openapi.yaml", ""));
  EXPECT_TRUE(yaml.body.starts_with("openapi: 3.1"));
  auto docs = CO_TRY(co_await test->request("GET", "/docs", ""));
  EXPECT_NE(docs.body.find("/v1/sandboxes/{id}/exec/stream"), std::string::npos);
  EXPECT_EQ(docs.body.find("http://"), std::string::npos) << "the page must load nothing";
  EXPECT_EQ(docs.body.find("https://"), std::string::npos);
  EXPECT_EQ(CO_TRY(co_await test->request("GET", "/v1/nothing", "")).status, 404);
  auto wrong = CO_TRY(co_await test->request("PUT", "/v1/sandboxes", ""));
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.get("Allow"), "POST, GET, HEAD");
  auto id = CO_TRY(co_await test->request("GET", "/health", "", header("X-Request-Id", "mine-1")));
  EXPECT_EQ(id.headers.get("X-Request-Id"), "mine-1");
  EXPECT_FALSE(health.headers.get("X-Request-Id").empty());
  co_return Result<>{};
}
TEST_F(HttpApiTest, OpenRoutes) { with_server(open_routes); }

Task<> bad_input(HttpApiTest* test) {
  for (const char* path : {"/v1/sandboxes", "/v1/capsules"}) {
    for (const auto& [body, field] : std::vector<std::pair<std::string, std::string>>{
             {R"({"vcpus":33})", "vcpus must be between 1 and 32"},
             {R"({"memory_mb":127})", "memory_mb must be between 128 and 65536"},
             {R"({"timeout_sec":-1})", "timeout_sec must be between 0 and 31536000"},
             {R"({"template":"../etc"})", "template must start"},
             {R"({"template":5})", "template must be a string"},
             {"{", "not valid JSON"},
             {"[]", "must be a JSON object"}}) {
      auto answer = CO_TRY(co_await test->request("POST", path, body));
      EXPECT_EQ(answer.status, 400) << body;
      EXPECT_NE(answer.body.find(R"("code":"invalid_request")"), std::string::npos) << answer.body;
      EXPECT_NE(answer.body.find(field), std::string::npos) << answer.body;
    }
  }
  auto large = CO_TRY(co_await test->request("POST", "/v1/sandboxes", std::string(kMaxJsonBytes + 1, ' ')));
  EXPECT_EQ(large.status, 413);
  EXPECT_NE(large.body.find("too_large"), std::string::npos);
  auto list = CO_TRY(co_await test->request("GET", "/v1/sandboxes?limit=x", ""));
  EXPECT_EQ(list.status, 400);
  auto status = CO_TRY(co_await test->request("GET", "/v1/sandboxes?status=asleep", ""));
  EXPECT_EQ(status.status, 400);
  auto empty = CO_TRY(co_await test->request("GET", "/v1/capsules", ""));
  EXPECT_EQ(empty.body, "[]");
  co_return Result<>{};
}
TEST_F(HttpApiTest, BadInputNamesFieldAndRange) { with_server(bad_input); }

Task<> unknown_sandbox(HttpApiTest* test) {
  for (const auto& [method, action] : std::vector<std::pair<std::string, std::string>>{
           {"GET", ""}, {"DELETE", ""}, {"POST", "/ping"}, {"POST", "/pause"}, {"POST", "/resume"}}) {
    auto answer = CO_TRY(co_await test->request(method, "/v1/sandboxes/sb-none" + action, ""));
    EXPECT_EQ(answer.status, 404) << action;
    EXPECT_NE(answer.body.find(R"("code":"not_found")"), std::string::npos);
  }
  auto exec = CO_TRY(co_await test->request("POST", "/v1/sandboxes/sb-none/exec", R"({"cmd":"ls"})"));
  EXPECT_EQ(exec.status, 404);
  auto read = CO_TRY(co_await test->request("POST", "/v1/sandboxes/sb-none/files/read", R"({"path":"/a"})"));
  EXPECT_EQ(read.status, 404);
  auto write = CO_TRY(co_await test->request("POST", "/v1/sandboxes/sb-none/files/write", "x"));
  EXPECT_EQ(write.status, 400) << "no multipart";
  auto form = CO_TRY(co_await test->request("POST", "/v1/sandboxes/sb-none/files/stream/write", "x",
                                            header("Content-Type", "multipart/form-data; boundary=b")));
  EXPECT_EQ(form.status, 404);
  auto socket = CO_TRY(co_await test->request("GET", "/v1/sandboxes/sb-none/exec/stream", ""));
  EXPECT_EQ(socket.status, 404);
  co_return Result<>{};
}
TEST_F(HttpApiTest, UnknownSandboxesAreNotFoundEverywhere) { with_server(unknown_sandbox); }

Task<> no_host(HttpApiTest* test) {
  auto created = CO_TRY(co_await test->request("POST", "/v1/sandboxes", ""));
  EXPECT_EQ(created.status, 503) << created.body;
  EXPECT_NE(created.body.find("host_unavailable"), std::string::npos);
  EXPECT_FALSE(created.headers.get("Retry-After").empty());
  EXPECT_EQ(created.headers.get("Cache-Control"), "no-store");
  EXPECT_EQ(created.body.find("no-agent"), std::string::npos)
      << "the agent's address is not told: " << created.body;
  auto list = CO_TRY(co_await test->request("GET", "/v1/sandboxes", ""));
  EXPECT_NE(list.body.find(R"("status":"error")"), std::string::npos) << list.body;
  co_return Result<>{};
}
TEST_F(HttpApiTest, WithoutAHostCreationFailsTypedAndLeavesAnErrorRow) { with_server(no_host); }

Task<> wrong_keys(HttpApiTest* test) {
  auto missing = CO_TRY(co_await test->request("GET", "/v1/sandboxes", "", header("X-API-Key", "")));
  EXPECT_EQ(missing.status, 401);
  EXPECT_NE(missing.body.find(R"("code":"unauthorized")"), std::string::npos);
  EXPECT_EQ(CO_TRY(co_await test->request("GET", "/v1/sandboxes", "")).status, 200);
  int refused = 0;
  for (int i = 0; i < kMaxAuthFailures + 5; ++i) {
    auto answer =
        CO_TRY(co_await test->request("GET", "/v1/sandboxes", "", header("X-API-Key", new_api_key())));
    refused += answer.status == 429 ? 1 : 0;
    if (answer.status == 429) EXPECT_FALSE(answer.headers.get("Retry-After").empty());
  }
  EXPECT_GE(refused, 5);
  EXPECT_LE(refused, 6);
  EXPECT_EQ(CO_TRY(co_await test->request("GET", "/v1/sandboxes", "")).status, 200)
      << "known keys still work";
  const std::string fresh = new_api_key();
  {
    auto store = CO_TRY(store::Store::open(test->settings_.database_url, &test->loop_));
    CO_TRY(co_await store->insert_key({"key-2", "team-default", "second", hash_api_key(fresh), "wrn_", {}}));
  }
  EXPECT_EQ(CO_TRY(co_await test->request("GET", "/v1/sandboxes", "", header("X-API-Key", fresh))).status,
            200)
      << "a good key nobody has used yet works beside all the bad ones";
  co_return Result<>{};
}
TEST_F(HttpApiTest, WrongKeysAreRefusedAndThenSlowedDown) { with_server(wrong_keys); }

TEST(OpenApi, DescribesEveryRouteAndRange) {
  std::string yaml;
  for (const EmbeddedFile& file : embedded_documents()) {
    if (file.name == "openapi.yaml") yaml = file.content;
  }
  for (const auto& [method, pattern] : HttpApi::routes()) {
    const std::size_t at = yaml.find("\n  " + std::string(pattern) + ":\n");
    ASSERT_NE(at, std::string::npos) << pattern;
    std::size_t end = yaml.find("\n  /", at + 3);
    if (end == std::string::npos) end = yaml.find("\ncomponents:");
    std::string verb = "\n    ";
    for (char c : method) verb += static_cast<char>(c + ('a' - 'A'));
    EXPECT_NE(yaml.substr(at, end - at).find(verb + ":\n"), std::string::npos) << method << " " << pattern;
  }
  for (std::int64_t limit : {model::kMaxVcpus, model::kMaxMemoryMb, model::kMaxTimeoutSec,
                             model::kMinMemoryMb, model::kMaxExecTimeoutSec, std::int64_t{kMaxListLimit}}) {
    EXPECT_NE(yaml.find("imum: " + std::to_string(limit)), std::string::npos) << limit;
  }
}

}  // namespace
}  // namespace wrenn::control
