#include "store/store.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "store/database.h"

namespace wrenn::store {
namespace {

namespace fs = std::filesystem;

Time at(long long ms) { return Time(std::chrono::milliseconds(ms)); }

class TempFolder {
 public:
  explicit TempFolder(const std::string& name) {
    std::string pattern = (fs::temp_directory_path() / (name + "-XXXXXX")).string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A PostgreSQL of the test's own, on a unix socket. Needs root: the server refuses to run as root, so it runs
// as `postgres`.
class Postgres {
 public:
  Postgres() : folder_("wrenn-pg") {
    run("chown postgres " + folder_.path() + " && chmod 755 " + folder_.path());
    run(as_postgres("initdb -D " + data() + " -A trust -U postgres --no-sync >/dev/null"));
    start();
  }
  ~Postgres() { stop(); }
  void start() {
    run(as_postgres("pg_ctl -D " + data() + " -w -s -l " + folder_.path() +
                    "/log -o \"-c listen_addresses='' -c fsync=off -k " + folder_.path() + "\" start"));
  }
  void stop() { run(as_postgres("pg_ctl -D " + data() + " -w -s -m immediate stop")); }
  std::string url(const std::string& database) const {
    return "postgres://postgres@/" + database + "?host=" + folder_.path();
  }
  void create(const std::string& database) {
    run(as_postgres("createdb -h " + folder_.path() + " -U postgres " + database));
  }

 private:
  std::string data() const { return folder_.path() + "/data"; }
  static std::string as_postgres(const std::string& command) {
    return "cd / && runuser -u postgres -- /usr/lib/postgresql/15/bin/" + command;
  }
  static void run(const std::string& command) {
    if (std::system(command.c_str()) != 0) ADD_FAILURE() << command;
  }
  TempFolder folder_;
};

Postgres* shared_postgres() {
  static Postgres server;
  return &server;
}

enum class Engine { kSqlite, kPostgres };

class StoreTest : public testing::TestWithParam<Engine> {
 protected:
  void SetUp() override {
    if (GetParam() == Engine::kSqlite) {
      url_ = folder_.path() + "/with space.db";
    } else {
      if (::geteuid() != 0) GTEST_SKIP() << "needs root";
      static int counter = 0;
      const std::string name = "t" + std::to_string(counter++);
      shared_postgres()->create(name);
      url_ = shared_postgres()->url(name);
    }
    auto opened = Store::open(url_, &loop_);
    ASSERT_TRUE(opened) << opened.error().to_string();
    store_ = std::move(*opened);
    auto applied = wait(store_->migrate());
    ASSERT_TRUE(applied) << applied.error().to_string();
    ASSERT_GE(*applied, 1);
    ASSERT_TRUE(wait(store_->insert_team({"team-1", "one", at(1)})));
    ASSERT_TRUE(wait(store_->insert_team({"team-2", "two", at(1)})));
  }

  template <class T>
  static Task<> keep(Task<T> task, std::optional<Result<T>>* out) {
    *out = co_await std::move(task);
    co_return Result<>{};
  }
  template <class T>
  Result<T> wait(Task<T> task) {
    std::optional<Result<T>> result;
    auto ran = loop_.run_plain(keep(std::move(task), &result));
    if (!ran) return std::unexpected(ran.error());
    return std::move(*result);
  }

  static Sandbox fresh(const std::string& id, const std::string& team = "team-1", long long created = 1'000) {
    Sandbox sandbox;
    sandbox.id = id;
    sandbox.team_id = team;
    sandbox.template_name = "minimal";
    sandbox.transition = model::Transition::kCreating;
    sandbox.transition_at = at(created);
    sandbox.created_at = at(created);
    sandbox.last_updated = at(created);
    sandbox.timeout_sec = 31'536'000;
    return sandbox;
  }
  Sandbox running(const std::string& id) {
    EXPECT_TRUE(wait(store_->insert_sandbox(fresh(id))));
    Outcome outcome;
    outcome.id = id;
    outcome.version = 1;
    outcome.status = model::Status::kRunning;
    outcome.host_ip = "10.11.0.1";
    outcome.guest_ip = "169.254.0.21";
    outcome.started_at = at(1'700'000'000'123);
    outcome.last_active_at = at(1'700'000'000'123);
    EXPECT_EQ(wait(store_->finish_transition(outcome, at(2'000))), true);
    return *wait(store_->get_sandbox("team-1", id));
  }

  // Statements of somebody else.
  void sql(const std::string& statement) { sql(url_, statement); }
  static void sql(const std::string& url, const std::string& statement) {
    soci::session session(url.starts_with("postgres") ? "postgresql" : "sqlite3",
                          url.starts_with("postgres") ? url : "dbname=\"" + url + "\"");
    session << statement;
  }

  async::Loop loop_{4};
  TempFolder folder_{"wrenn-store"};
  std::string url_;
  std::unique_ptr<Store> store_;
};

TEST_P(StoreTest, MigratingTwiceDoesNothing) {
  EXPECT_EQ(wait(store_->migrate()), 0);
  EXPECT_TRUE(wait(store_->check()));
}

TEST_P(StoreTest, KeysAreFoundByHashOnly) {
  ASSERT_TRUE(wait(store_->insert_key({"key-1", "team-1", "n", "hash-1", "wrn_abc", at(5)})));
  ASSERT_TRUE(wait(store_->insert_key({"key-3", "team-2", "n", "hash-3", "wrn_abc", at(5)})));
  const auto found = wait(store_->find_keys({"hash-3", "hash-2", "hash-1"}));
  ASSERT_TRUE(found) << found.error().to_string();
  ASSERT_EQ(found->size(), 2);
  EXPECT_EQ(found->at("hash-1").team_id, "team-1");
  EXPECT_EQ(found->at("hash-1").key_id, "key-1");
  EXPECT_EQ(found->at("hash-3").team_id, "team-2");
  EXPECT_TRUE(wait(store_->touch_key("key-1", at(9))));
  EXPECT_EQ(wait(store_->find_keys({"hash-2"}))->size(), 0);
  auto twice = wait(store_->insert_key({"key-2", "team-1", "n", "hash-1", "wrn_abc", at(5)}));
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().code(), Code::kAlreadyExists);
}

TEST_P(StoreTest, BootstrapMakesOneKeyOnce) {
  EXPECT_EQ(wait(store_->bootstrap({"team-1", "one", at(1)}, {"key-1", "team-1", "n", "h1", "p", at(1)})),
            true);
  EXPECT_EQ(wait(store_->bootstrap({"team-1", "one", at(1)}, {"key-2", "team-1", "n", "h2", "p", at(1)})),
            false);
}

TEST_P(StoreTest, ARowKeepsWhatWasWritten) {
  const Sandbox row = running("sb-1");
  EXPECT_EQ(row.status, model::Status::kRunning);
  EXPECT_EQ(row.transition, model::Transition::kNone);
  EXPECT_EQ(row.host_ip, "10.11.0.1");
  EXPECT_EQ(row.timeout_sec, 31'536'000);
  EXPECT_EQ(row.started_at, at(1'700'000'000'123));
  EXPECT_EQ(row.created_at, at(1'000));
  EXPECT_EQ(row.last_updated, at(2'000));
  EXPECT_EQ(row.version, 2);
}

TEST_P(StoreTest, TransitionsExcludeEachOther) {
  running("sb-1");
  auto begun = wait(store_->begin_transition("team-1", "sb-1", model::Transition::kPausing, at(3)));
  ASSERT_TRUE(begun) << begun.error().to_string();
  auto second = wait(store_->begin_transition("team-1", "sb-1", model::Transition::kDestroying, at(3)));
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().reason(), "busy");
  Outcome outcome;
  outcome.id = "sb-1";
  outcome.version = begun->version;
  outcome.status = model::Status::kPaused;
  EXPECT_EQ(wait(store_->finish_transition(outcome, at(4))), true);
  EXPECT_EQ(wait(store_->finish_transition(outcome, at(4))), false) << "the version moved on";
  auto row = wait(store_->get_sandbox("team-1", "sb-1"));
  EXPECT_EQ(row->status, model::Status::kPaused);
  EXPECT_EQ(row->host_ip, "10.11.0.1") << "an empty address keeps the row's";
  EXPECT_EQ(row->started_at, at(1'700'000'000'123));
  auto wrong = wait(store_->begin_transition("team-1", "sb-1", model::Transition::kPausing, at(5)));
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().reason(), "invalid_state");
}

TEST_P(StoreTest, OtherTeamsSeeNothing) {
  running("sb-1");
  EXPECT_EQ(wait(store_->get_sandbox("team-2", "sb-1")).error().code(), Code::kNotFound);
  EXPECT_EQ(
      wait(store_->begin_transition("team-2", "sb-1", model::Transition::kDestroying, at(1))).error().code(),
      Code::kNotFound);
  EXPECT_TRUE(wait(store_->list_sandboxes("team-2", std::nullopt, 10))->empty());
}

TEST_P(StoreTest, ListsNewestFirstWithinTheLimit) {
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(wait(store_->insert_sandbox(fresh("sb-" + std::to_string(i), "team-1", 1'000 + i))));
  }
  running("sb-r");
  auto rows = wait(store_->list_sandboxes("team-1", std::nullopt, 2));
  ASSERT_EQ(rows->size(), 2U);
  EXPECT_EQ((*rows)[0].id, "sb-4");
  EXPECT_EQ((*rows)[1].id, "sb-3");
  auto only = wait(store_->list_sandboxes("team-1", model::Status::kRunning, 10));
  ASSERT_EQ(only->size(), 1U);
  EXPECT_EQ((*only)[0].id, "sb-r");
}

TEST_P(StoreTest, ReconcilerRowsAndTouches) {
  const Sandbox row = running("sb-1");
  ASSERT_TRUE(wait(store_->insert_sandbox(fresh("sb-2"))));
  EXPECT_EQ(wait(store_->live_rows("default"))->rows.size(), 2U);
  EXPECT_TRUE(wait(store_->live_rows("elsewhere"))->rows.empty());
  EXPECT_TRUE(*wait(store_->is_live("sb-1")));
  EXPECT_FALSE(*wait(store_->is_live("sb-none")));
  const Time later = row.last_active_at + std::chrono::seconds(1);
  ASSERT_TRUE(wait(store_->touch_sandboxes({{"sb-1", later}, {"sb-1", row.last_active_at}})));
  EXPECT_EQ(wait(store_->get_sandbox("team-1", "sb-1"))->last_active_at, later);
  ASSERT_TRUE(wait(store_->renew_transitions({{"sb-1", row.version}, {"sb-2", 1}}, at(77'000))));
  EXPECT_EQ(wait(store_->get_sandbox("team-1", "sb-2"))->transition_at, at(77'000));
  ASSERT_TRUE(wait(store_->renew_transitions({{"sb-2", 2}}, at(88'000))));
  EXPECT_EQ(wait(store_->get_sandbox("team-1", "sb-2"))->transition_at, at(77'000))
      << "a transition of another version is somebody else's";
  Outcome lost;
  lost.id = "sb-1";
  lost.version = row.version;
  lost.end_reason = model::EndReason::kLost;
  ASSERT_EQ(wait(store_->finish_transition(lost, at(3'000))), true);
  EXPECT_FALSE(*wait(store_->is_live("sb-1")));
  auto ended = wait(store_->ended_rows({"sb-1", "sb-2", "sb-none"}));
  ASSERT_EQ(ended->rows.size(), 1U);
  EXPECT_EQ(ended->rows[0].end_reason, model::EndReason::kLost);
  ASSERT_TRUE(wait(store_->delete_sandbox("sb-2", 1)));
  EXPECT_EQ(wait(store_->get_sandbox("team-1", "sb-2")).error().code(), Code::kNotFound);
}

TEST_P(StoreTest, ManyPausedRowsHideNoOther) {
  sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10500) "
      "INSERT INTO sandboxes (id, team_id, template, status, vcpus, memory_mb, timeout_sec, created_at, "
      "last_updated) SELECT 'sb-' || i, 'team-1', 'minimal', 'paused', 1, 512, 0, 1, 1 FROM n");
  running("zz-last");
  running("aa-first");
  auto live = wait(store_->live_rows("default"));
  ASSERT_TRUE(live) << live.error().to_string();
  EXPECT_EQ(live->rows.size(), 10'502U);
  std::set<std::string> ids;
  for (const auto& row : live->rows) ids.insert(row.id);
  EXPECT_EQ(ids.size(), 10'502U);
  EXPECT_TRUE(ids.contains("zz-last") && ids.contains("aa-first"));
}

TEST_P(StoreTest, RowsOfANewerProgramAreLeftAlone) {
  for (const char* id : {"sb-1", "sb-2", "sb-3"}) running(id);
  sql("UPDATE sandboxes SET status = 'archived' WHERE id = 'sb-2'");
  sql("UPDATE sandboxes SET status = 'stopped', end_reason = 'evicted' WHERE id = 'sb-3'");
  auto live = wait(store_->live_rows("default"));
  ASSERT_TRUE(live);
  ASSERT_EQ(live->rows.size(), 1U);
  EXPECT_EQ(live->rows[0].id, "sb-1");
  EXPECT_EQ(live->unreadable, std::vector<std::string>{"sb-2"});
  EXPECT_EQ(wait(store_->is_live("sb-2")), true) << "its VM must not be swept";
  EXPECT_EQ(wait(store_->ended_rows({"sb-2", "sb-3"}))->unreadable, std::vector<std::string>{"sb-3"});
  EXPECT_EQ(wait(store_->list_sandboxes("team-1", std::nullopt, 10))->size(), 1U);
  EXPECT_EQ(wait(store_->get_sandbox("team-1", "sb-2")).error().code(), Code::kInternal);
}

TEST_P(StoreTest, WhatAHostKeepsInErrorLivesAndAFailedCreationDoesNot) {
  Outcome kept;
  kept.id = "sb-1";
  kept.version = running("sb-1").version;
  kept.status = model::Status::kError;
  kept.error = {"journal_unreadable", "its journal cannot be read"};
  ASSERT_EQ(wait(store_->finish_transition(kept, at(3'000))), true);
  EXPECT_EQ(wait(store_->get_sandbox("team-1", "sb-1"))->error, kept.error);
  ASSERT_TRUE(wait(store_->insert_sandbox(fresh("sb-2"))));
  Outcome failed;
  failed.id = "sb-2";
  failed.version = 1;
  failed.status = model::Status::kError;
  ASSERT_EQ(wait(store_->finish_transition(failed, at(3'000))), true);

  auto live = wait(store_->live_rows("default"));
  ASSERT_EQ(live->rows.size(), 1U);
  EXPECT_EQ(live->rows[0].error, kept.error);
  EXPECT_EQ(wait(store_->is_live("sb-1")), true);
  EXPECT_EQ(wait(store_->is_live("sb-2")), false);
  EXPECT_EQ(wait(store_->ended_rows({"sb-1", "sb-2"}))->rows.size(), 1U);
  auto dead = wait(store_->begin_transition("team-1", "sb-2", model::Transition::kResuming, at(4)));
  EXPECT_EQ(dead.error().reason(), "invalid_state");
  auto retry = wait(store_->begin_transition("team-1", "sb-1", model::Transition::kResuming, at(4)));
  ASSERT_TRUE(retry) << retry.error().to_string();
  Outcome well;
  well.id = "sb-1";
  well.version = retry->version;
  well.status = model::Status::kRunning;
  ASSERT_EQ(wait(store_->finish_transition(well, at(5'000))), true);
  EXPECT_EQ(wait(store_->get_sandbox("team-1", "sb-1"))->error, model::HostError{});
}

TEST_P(StoreTest, TextFromOutsideStaysText) {
  const std::string evil = "x'; DROP TABLE sandboxes; -- :id ü";
  EXPECT_EQ(wait(store_->get_sandbox("team-1", evil)).error().code(), Code::kNotFound);
  EXPECT_TRUE(wait(store_->list_sandboxes("team-1", std::nullopt, 1)));
}

Task<> race(Store* store, int* winners, int* losers) {
  auto begun = co_await store->begin_transition("team-1", "sb-1", model::Transition::kDestroying, at(3));
  ++*(begun ? winners : losers);
  if (!begun && begun.error().reason() != "busy") co_return fail(begun.error());
  co_return Result<>{};
}
Task<> race_many(Store* store, int* winners, int* losers) {
  async::Nursery nursery(co_await asio::this_coro::executor);
  for (int i = 0; i < 20; ++i) nursery.spawn("race", race(store, winners, losers));
  co_await nursery.join();
  co_return Result<>{};
}

TEST_P(StoreTest, OneOfManyTransitionsWins) {
  running("sb-1");
  int winners = 0, losers = 0;
  ASSERT_TRUE(loop_.run_plain(race_many(store_.get(), &winners, &losers)));
  EXPECT_EQ(winners, 1);
  EXPECT_EQ(losers, 19);
}

Task<> write_and_count(Store* store, int* ended) {
  co_await store->touch_sandboxes({{"sb-1", at(9)}});
  ++*ended;
  co_return Result<>{};
}
Task<> read_beside_writes(Store* store, int* ended_before_the_read, soci::session* locked) {
  async::Nursery writes(co_await asio::this_coro::executor);
  int ended = 0;
  for (int i = 0; i < 20; ++i) writes.spawn("write", write_and_count(store, &ended));
  CO_TRY(co_await async::sleep_for(Milliseconds(50)));
  const auto read = co_await store->get_sandbox("team-1", "sb-1");
  *ended_before_the_read = ended;
  *locked << "ROLLBACK";
  co_await writes.join();
  if (!read) co_return fail(read.error());
  co_return Result<>{};
}

TEST_P(StoreTest, ReadsGoOnWhileSomebodyElseHoldsTheWriteLock) {
  if (GetParam() != Engine::kSqlite) GTEST_SKIP() << "PostgreSQL has no such lock";
  running("sb-1");
  soci::session locked("sqlite3", "dbname=\"" + url_ + "\"");
  locked << "BEGIN IMMEDIATE";
  int ended = -1;
  const auto result = loop_.run_plain(read_beside_writes(store_.get(), &ended, &locked));
  EXPECT_TRUE(result) << result.error().to_string();
  EXPECT_EQ(ended, 0) << "the read waited for the writes";
}

INSTANTIATE_TEST_SUITE_P(Sqlite, StoreTest, testing::Values(Engine::kSqlite));
INSTANTIATE_TEST_SUITE_P(PostgresNeedsRoot, StoreTest, testing::Values(Engine::kPostgres));

class StoreOutageTestNeedsRoot : public StoreTest {};

TEST_P(StoreOutageTestNeedsRoot, AnOutageIsTypedAndPasses) {
  running("sb-1");
  shared_postgres()->stop();
  for (int i = 0; i < 2; ++i) {
    auto down = wait(store_->get_sandbox("team-1", "sb-1"));
    ASSERT_FALSE(down);
    EXPECT_EQ(down.error().code(), Code::kUnavailable) << down.error().to_string();
    EXPECT_EQ(down.error().reason(), "db_unavailable");
  }
  shared_postgres()->start();
  EXPECT_TRUE(wait(store_->get_sandbox("team-1", "sb-1")));
  // Idle connections that a restart broke do not fail a read.
  shared_postgres()->stop();
  shared_postgres()->start();
  auto up = wait(store_->get_sandbox("team-1", "sb-1"));
  EXPECT_TRUE(up) << up.error().to_string();
}

TEST_P(StoreOutageTestNeedsRoot, AConnectionToAStandbyIsGivenUp) {
  running("sb-1");
  const std::string maintenance = shared_postgres()->url("postgres");
  const std::string name =
      url_.substr(url_.rfind('/', url_.find('?')) + 1, url_.find('?') - url_.rfind('/', url_.find('?')) - 1);
  sql(maintenance, "ALTER DATABASE " + name + " SET default_transaction_read_only = on");
  auto reopened = Store::open(url_, &loop_);
  ASSERT_TRUE(reopened);
  const auto refused = wait((*reopened)->touch_sandboxes({{"sb-1", at(9)}}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason(), "db_unavailable") << refused.error().to_string();
  // The next primary is found by a new connection.
  sql(maintenance, "ALTER DATABASE " + name + " SET default_transaction_read_only = off");
  const auto again = wait((*reopened)->touch_sandboxes({{"sb-1", at(9)}}));
  EXPECT_TRUE(again) << again.error().to_string();
}
INSTANTIATE_TEST_SUITE_P(Postgres, StoreOutageTestNeedsRoot, testing::Values(Engine::kPostgres));

TEST(StoreOpen, RefusesOtherUrls) {
  async::Loop loop(1);
  EXPECT_FALSE(Store::open("mysql://x", &loop));
  EXPECT_FALSE(Store::open("", &loop));
}

}  // namespace
}  // namespace wrenn::store
