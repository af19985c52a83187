#include "cli/supervisor.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/log.h"
#include "sys/file.h"

namespace wrenn::cli {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

class SupervisorTest : public testing::Test {
 protected:
  void SetUp() override {
    auto made = sys::TempDir::make(kBlocking);
    ASSERT_TRUE(made);
    dir_.emplace(std::move(*made));
    log::configure("test", log::Level::kError);
  }
  std::string path(const std::string& name) const { return dir_->path() + "/" + name; }
  Program shell(const std::string& name, const std::string& script) {
    const std::string flag = path(name + ".ready");
    return {.name = name,
            .argv = {"/bin/sh", "-c", script},
            .env = {"PATH=/usr/bin:/bin", "DIR=" + dir_->path()},
            .log_path = path(name + ".log"),
            .ready = [flag]() -> Task<> { return flag_ready(flag); }};
  }
  static Task<> flag_ready(std::string flag) {
    if (!sys::exists(flag)) co_return fail(Code::kUnavailable, "not yet");
    co_return Result<>{};
  }
  SupervisorOptions options() const {
    return {.ready_limit = Milliseconds(2'000),
            .first_backoff = Milliseconds(20),
            .max_backoff = Milliseconds(100),
            .healthy_after = Milliseconds(60'000),
            .stop_limit = Milliseconds(500),
            .max_log_bytes = 1000};
  }
  std::optional<sys::TempDir> dir_;
  std::vector<ProcessName> seen_;
  async::Loop loop_{1};
};

Task<> start_watch_stop(Supervisor* supervisor, Program program, Milliseconds watched) {
  const Result<> started = co_await supervisor->start(std::move(program));
  if (started) {
    static_cast<void>(co_await async::with_timeout(supervisor->watch(), watched, std::string("watching")));
  }
  const Result<> stopped = co_await supervisor->stop();
  co_return started ? stopped : started;
}

TEST_F(SupervisorTest, StartsAndStops) {
  Supervisor supervisor(options(), [this](const auto& running) { seen_ = running; });
  pid_t pid = 0;
  Supervisor* raw = &supervisor;
  Program program = shell("ok", "touch $DIR/ok.ready; exec sleep 30");
  const auto run = [](Supervisor* which, Program what, std::vector<ProcessName>* seen, pid_t* out) -> Task<> {
    CO_TRY(co_await which->start(std::move(what)));
    *out = seen->at(0).pid;
    const bool alive = is_alive(seen->at(0));
    CO_TRY(co_await which->stop());
    if (!alive) co_return fail(Code::kInternal, "not alive after start");
    co_return Result<>{};
  };
  const Result<> result = loop_.run_plain(run(raw, std::move(program), &seen_, &pid));
  EXPECT_TRUE(result) << result.error().to_string();
  EXPECT_TRUE(seen_.empty());
  EXPECT_FALSE(sys::process_start_time(pid));
}

TEST_F(SupervisorTest, AFailedStartTellsTheLog) {
  Supervisor supervisor(options(), [](const auto&) {});
  const Result<> result = loop_.run_plain(
      start_watch_stop(&supervisor, shell("bad", "echo no such database >&2; exit 7"), Milliseconds(1)));
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message().find("exit status 7"), std::string::npos) << result.error().message();
  EXPECT_NE(result.error().message().find("no such database"), std::string::npos);
}

TEST_F(SupervisorTest, NeverReadyIsADeadline) {
  auto quick = options();
  quick.ready_limit = Milliseconds(100);
  Supervisor supervisor(quick, [](const auto&) {});
  const Result<> result =
      loop_.run_plain(start_watch_stop(&supervisor, shell("slow", "exec sleep 30"), Milliseconds(1)));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), Code::kDeadlineExceeded);
}

TEST_F(SupervisorTest, RestartsWhatDies) {
  Supervisor supervisor(options(), [](const auto&) {});
  const Result<> result = loop_.run_plain(start_watch_stop(
      &supervisor, shell("dying", "echo run >> $DIR/runs; touch $DIR/dying.ready; sleep 0.05"),
      Milliseconds(1'500)));
  EXPECT_TRUE(result) << result.error().to_string();
  const auto runs = sys::read_file(path("runs"));
  ASSERT_TRUE(runs);
  const auto count = std::count(runs->begin(), runs->end(), '\n');
  EXPECT_GE(count, 2);
  // The pauses grow: without them it would have run some twenty times.
  EXPECT_LE(count, 8);
}

TEST_F(SupervisorTest, KillsWhatIgnoresTerm) {
  Supervisor supervisor(options(), [this](const auto& running) { seen_ = running; });
  const Result<> result = loop_.run_plain(start_watch_stop(
      &supervisor, shell("deaf", "trap '' TERM; touch $DIR/deaf.ready; while :; do sleep 1; done"),
      Milliseconds(1)));
  EXPECT_TRUE(result) << result.error().to_string();
  EXPECT_TRUE(seen_.empty());
}

TEST_F(SupervisorTest, LogsAreBounded) {
  const std::string file = path("big.log");
  std::ofstream(file) << std::string(1500, 'x') << "\n";
  ASSERT_TRUE(trim_log(file, 1000));
  EXPECT_EQ(*sys::file_size(file), 0U);
  EXPECT_EQ(*sys::file_size(file + ".1"), 1501U);
  ASSERT_TRUE(trim_log(file, 1000));
  EXPECT_EQ(*sys::file_size(file + ".1"), 1501U);
}

TEST_F(SupervisorTest, TailIsTheLastLines) {
  const std::string file = path("tail.log");
  std::ofstream(file) << "one\ntwo\nthree\n";
  EXPECT_EQ(log_tail(file, 2), "two\nthree");
  EXPECT_EQ(log_tail(file, 9), "one\ntwo\nthree");
  EXPECT_EQ(log_tail(path("none"), 2), "");
}

}  // namespace
}  // namespace wrenn::cli
