#include "control/reconciler.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "connect/wire.h"
#include "control/clock.h"
#include "control/limits.h"
#include "control/sandbox_json.h"

namespace wrenn::control {
namespace {

namespace rpc = hostagent::v1;
using model::Status;
using model::Transition;
using store::Sandbox;

std::string suffix(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// Service and reconciler with a database, before a server that answers as an agent with this list would.
class ReconcilerTest : public testing::Test {
 public:
  ReconcilerTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "wrenn-rec-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~ReconcilerTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  using Script = std::function<Task<>(ReconcilerTest*)>;
  void with_service(Script script) {
    const auto result = loop_.run_plain(serve_and_run(this, std::move(script)));
    EXPECT_TRUE(result) << result.error().to_string();
  }

  static Task<> serve_and_run(ReconcilerTest* test, Script script) {
    auto executor = test->loop_.executor();
    test->store_ = CO_TRY(store::Store::open(test->folder_ + "/wrenn.db", &test->loop_));
    CO_TRY(co_await test->store_->migrate());
    for (const char* team : {"team-1", "team-2"}) {
      CO_TRY(co_await test->store_->insert_team({team, team, wall_clock()}));
    }
    net::HttpServer server(executor, [test](auto exchange) { return test->answer(std::move(exchange)); });
    const auto bound = CO_TRY(server.listen(*net::Endpoint::parse("127.0.0.1:0")));
    AgentClient agent(std::make_shared<net::HttpClient>(executor), bound, "");
    SandboxService service(executor, test->store_.get(), &agent);
    Reconciler reconciler(executor, test->store_.get(), &agent, &service);
    service.on_sync([&reconciler] { return reconciler.sync(); });
    test->service_ = &service;
    test->reconciler_ = &reconciler;
    async::Nursery background(executor);
    background.spawn("server", server.serve(Milliseconds(0)));
    background.spawn("reconciler", reconciler.run());
    background.spawn("leases", service.keep_alive());
    auto result = co_await script(test);
    co_await service.stop();
    co_await background.cancel_and_join();
    co_await reconciler.stop();
    co_return result;
  }

  Task<> answer(std::shared_ptr<net::Exchange> exchange) {
    const std::string method = suffix(exchange->request().path());
    ++calls_[method];
    net::Headers headers;
    if (const auto refused = refuse_.find(method); refused != refuse_.end()) {
      headers.set("Content-Type", "application/json");
      co_return co_await exchange->respond(503, std::move(headers), connect::error_json(refused->second));
    }
    headers.set("Content-Type", "application/proto");
    std::string body;
    if (method == "ListSandboxes") body = list_.SerializeAsString();
    co_return co_await exchange->respond(200, std::move(headers), std::move(body));
  }

  Task<> insert(std::string id, Status status, Transition transition = Transition::kNone,
                model::seconds age = model::seconds(0)) {
    Sandbox row;
    row.id = std::move(id);
    row.team_id = "team-1";
    row.template_name = "minimal";
    row.status = status;
    row.transition = transition;
    row.created_at = row.last_updated = wall_clock();
    row.transition_at = wall_clock() - age;
    return store_->insert_sandbox(std::move(row));
  }
  void show(const std::string& id, const std::string& status) {
    list_.clear_sandboxes();
    auto* info = list_.add_sandboxes();
    info->set_sandbox_id(id);
    info->set_status(status);
    if (status != "error") return;
    info->set_error_reason("journal_unreadable");
    info->set_error_message("/var/lib/x/journal.json: cut short");
  }
  Task<Sandbox> get(std::string id) { return store_->get_sandbox("team-1", std::move(id)); }

  async::Loop loop_{4};
  std::string folder_;
  std::unique_ptr<store::Store> store_;
  SandboxService* service_ = nullptr;
  Reconciler* reconciler_ = nullptr;
  rpc::ListSandboxesResponse list_;
  std::map<std::string, Error> refuse_;
  std::map<std::string, int> calls_;
};

Task<> count(Task<Sandbox> task, std::map<std::string, int>* reasons) {
  const auto result = co_await std::move(task);
  ++(*reasons)[result ? "ok" : result.error().reason()];
  co_return Result<>{};
}

TEST_F(ReconcilerTest, ResumesOfARunningSandboxShareTheirPasses) {
  with_service([](ReconcilerTest* test) -> Task<> {
    test->show("sb-1", "running");
    CO_TRY(co_await test->insert("sb-1", Status::kRunning));
    std::map<std::string, int> reasons;
    async::Nursery requests(test->loop_.executor());
    for (int i = 0; i < 200; ++i) {
      requests.spawn("resume", count(test->service_->resume("team-1", "sb-1"), &reasons));
    }
    co_await requests.join();
    EXPECT_EQ(reasons["invalid_state"], 200);
    // The one at the start, one that ran when they came, one that serves them; and one period later at most.
    EXPECT_LE(test->calls_["ListSandboxes"], 4);
    EXPECT_EQ(test->calls_["ResumeSandbox"], 0);
    co_return Result<>{};
  });
}

TEST_F(ReconcilerTest, AHostThatRefusesToListChangesNothing) {
  with_service([](ReconcilerTest* test) -> Task<> {
    test->refuse_.emplace("ListSandboxes", Error(Code::kUnavailable, "recovering"));
    CO_TRY(co_await test->insert("sb-1", Status::kRunning));
    CO_TRY(co_await test->reconciler_->sync());
    CO_TRY(co_await test->reconciler_->sync());
    EXPECT_GE(test->calls_["ListSandboxes"], 2);
    EXPECT_EQ(CO_TRY(co_await test->get("sb-1")).status, Status::kRunning);
    test->refuse_.clear();
    test->list_.clear_sandboxes();
    CO_TRY(co_await test->reconciler_->sync());
    EXPECT_EQ(CO_TRY(co_await test->get("sb-1")).status, Status::kStopped) << "a real list is believed";
    co_return Result<>{};
  });
}

TEST_F(ReconcilerTest, ASandboxThatItsHostKeepsInErrorIsShownTriedAndDestroyed) {
  with_service([](ReconcilerTest* test) -> Task<> {
    test->show("sb-1", "error");
    CO_TRY(co_await test->insert("sb-1", Status::kPaused));
    CO_TRY(co_await test->reconciler_->sync());
    const Sandbox shown = CO_TRY(co_await test->get("sb-1"));
    EXPECT_EQ(shown.status, Status::kError);
    EXPECT_EQ(shown.error.reason, "journal_unreadable");
    EXPECT_EQ(shown.error.message, "/var/lib/x/journal.json: cut short");
    const auto told = to_json(shown).at("error").as_object();
    EXPECT_EQ(told.at("reason").as_string(), "journal_unreadable");
    EXPECT_EQ(told.at("message").as_string().find('/'), boost::json::string::npos) << "a path of the host";
    EXPECT_TRUE(CO_TRY(co_await test->store_->is_live("sb-1")));
    // A try that fails leaves it as it was.
    test->refuse_.emplace(
        "ResumeSandbox",
        Error(Code::kFailedPrecondition, shown.error.message).with_reason("journal_unreadable"));
    const auto refused = co_await test->service_->resume("team-1", "sb-1");
    EXPECT_EQ(refused.error().reason(), "journal_unreadable");
    EXPECT_EQ(refused.error().message().find('/'), std::string::npos) << refused.error().message();
    EXPECT_EQ(CO_TRY(co_await test->get("sb-1")).error.reason, "journal_unreadable");
    test->refuse_.clear();
    test->show("sb-1", "running");
    const Sandbox resumed = CO_TRY(co_await test->service_->resume("team-1", "sb-1"));
    EXPECT_EQ(resumed.status, Status::kRunning);
    EXPECT_EQ(resumed.error.reason, "");
    // By itself, both ways.
    test->show("sb-1", "error");
    CO_TRY(co_await test->reconciler_->sync());
    EXPECT_EQ(CO_TRY(co_await test->get("sb-1")).status, Status::kError);
    test->show("sb-1", "paused");
    CO_TRY(co_await test->reconciler_->sync());
    EXPECT_EQ(CO_TRY(co_await test->get("sb-1")).status, Status::kPaused);
    test->show("sb-1", "error");
    CO_TRY(co_await test->reconciler_->sync());
    CO_TRY(co_await test->service_->destroy("team-1", "sb-1"));
    EXPECT_EQ(test->calls_["DestroySandbox"], 1);
    EXPECT_EQ(CO_TRY(co_await test->get("sb-1")).end_reason, model::EndReason::kDestroyed);
    co_return Result<>{};
  });
}

Task<> destroy_and_count(SandboxService* service, int* destroyed) {
  if (co_await service->destroy("team-1", "sb-1")) ++*destroyed;
  co_return Result<>{};
}

TEST_F(ReconcilerTest, DeletesOfOneSandboxShareOneWaitAndTakeNoPlaces) {
  with_service([](ReconcilerTest* test) -> Task<> {
    test->show("sb-1", "pausing");
    CO_TRY(co_await test->insert("sb-1", Status::kRunning, Transition::kPausing, -model::seconds(3'600)));
    int destroyed = 0;
    async::Nursery requests(test->loop_.executor());
    for (int i = 0; i < 2'000; ++i) {
      requests.spawn("delete", destroy_and_count(test->service_, &destroyed));
      if (i % 100 == 0) CO_TRY(co_await async::sleep_for(Milliseconds(1)));
    }
    CreateRequest request;
    request.template_name = "minimal";
    const auto created = co_await test->service_->create("team-2", request);
    EXPECT_TRUE(created) << created.error().to_string();
    EXPECT_EQ(destroyed, 0);
    store::Outcome paused;
    paused.id = "sb-1";
    paused.version = 1;
    paused.status = Status::kPaused;
    EXPECT_TRUE(CO_TRY(co_await test->store_->finish_transition(paused, wall_clock())));
    co_await requests.join();
    // Reads beyond what the database takes at once are refused, which costs these callers their answer.
    EXPECT_GE(destroyed, 500);
    EXPECT_EQ(test->calls_["DestroySandbox"], 1);
    co_return Result<>{};
  });
}

TEST_F(ReconcilerTest, ADeleteDoesNotKeepAliveTheTransitionItWaitsFor) {
  with_service([](ReconcilerTest* test) -> Task<> {
    test->show("sb-1", "paused");
    const auto age = model::kTransitionLease - model::seconds(2);
    CO_TRY(co_await test->insert("sb-1", Status::kRunning, Transition::kPausing, age));
    CO_TRY(co_await test->service_->destroy("team-1", "sb-1"));
    EXPECT_EQ(test->calls_["DestroySandbox"], 1);
    co_return Result<>{};
  });
}

}  // namespace
}  // namespace wrenn::control
