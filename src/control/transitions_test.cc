#include "control/transitions.h"

#include <gtest/gtest.h>

#include "control/limits.h"

namespace wrenn::control {
namespace {

using store::Sandbox;

Sandbox row_of(std::string id, std::int64_t version) {
  Sandbox row;
  row.id = std::move(id);
  row.version = version;
  return row;
}

Task<Sandbox> begun(std::string id, std::int64_t version) { co_return row_of(std::move(id), version); }
Task<Sandbox> busy() { co_return fail(Error(Code::kAborted, "it is pausing").with_reason("busy")); }

void run(std::function<Task<>(asio::any_io_executor)> script) {
  async::Loop loop(1);
  const auto result = loop.run_plain(script(loop.executor()));
  EXPECT_TRUE(result) << result.error().to_string();
}

TEST(TeamShares, OneTeamCannotTakeAll) {
  TeamShares shares(5, 2, "things");
  auto first = shares.take("a");
  auto second = shares.take("a");
  ASSERT_TRUE(first && second);
  const auto third = shares.take("a");
  ASSERT_FALSE(third);
  EXPECT_EQ(third.error().code(), Code::kResourceExhausted);
  EXPECT_TRUE(shares.take("b"));
  {
    auto moved = *std::move(first);
    EXPECT_FALSE(shares.take("a"));
  }
  EXPECT_TRUE(shares.take("a")) << "given back";
  auto b = shares.take("b"), c = shares.take("c"), d = shares.take("d"), e = shares.take("e");
  EXPECT_TRUE(b && c && d && e);
  EXPECT_FALSE(shares.take("f")) << "all are taken";
  EXPECT_EQ(shares.taken(), 5U);
}

TEST(Transitions, LeaseWhatTheyBeganAndNothingElse) {
  run([](asio::any_io_executor executor) -> Task<> {
    Transitions transitions(executor);
    auto refused = co_await transitions.run("team", "sb-1", busy(), [](Sandbox row) {
      ADD_FAILURE() << "nothing was begun";
      return begun(row.id, row.version);
    });
    EXPECT_FALSE(refused);
    EXPECT_TRUE(transitions.leases().empty());
    auto ended = co_await transitions.run("team", "sb-1", begun("sb-1", 7), [&transitions](Sandbox row) {
      const auto leases = transitions.leases();
      EXPECT_EQ(leases.size(), 1U);
      EXPECT_EQ(leases.front().id, "sb-1");
      EXPECT_EQ(leases.front().version, 7);
      return begun(row.id, row.version + 1);
    });
    EXPECT_TRUE(ended);
    EXPECT_EQ(ended->version, 8);
    EXPECT_TRUE(transitions.leases().empty());
    co_await transitions.stop(Milliseconds(0));
    co_return Result<>{};
  });
}

Task<Sandbox> endless(Sandbox) {
  while (true) CO_TRY(co_await async::sleep_for(Milliseconds(60'000)));
}

TEST(Transitions, AStoppedOneAnswersAndNoneBeginsAfter) {
  run([](asio::any_io_executor executor) -> Task<> {
    Transitions transitions(executor);
    std::optional<Result<Sandbox>> result;
    auto asked = [&]() -> Task<> {
      result = co_await transitions.run("team", "sb-1", begun("sb-1", 1), endless);
      co_return Result<>{};
    };
    async::Nursery requests(executor);
    requests.spawn("request", asked());
    while (transitions.leases().empty()) CO_TRY(co_await async::sleep_for(Milliseconds(1)));
    // Spawned, and cancelled before its first step.
    std::optional<Result<Sandbox>> late;
    auto asked_late = [&]() -> Task<> {
      late = co_await transitions.run("team", "sb-2", begun("sb-2", 1), endless);
      co_return Result<>{};
    };
    requests.spawn("request", asked_late());
    CO_TRY(co_await async::sleep_for(Milliseconds(1)));
    co_await transitions.stop(Milliseconds(0));
    co_await requests.join();
    EXPECT_EQ(result->error().code(), Code::kCanceled);
    EXPECT_EQ(late->error().code(), Code::kCanceled);
    const auto refused = co_await transitions.run("team", "sb-3", begun("sb-3", 1), endless);
    EXPECT_EQ(refused.error().code(), Code::kUnavailable);
    co_return Result<>{};
  });
}

TEST(PendingRow, WorkThatNeverBeginsAnswers) {
  run([](asio::any_io_executor executor) -> Task<> {
    auto pending = std::make_shared<PendingRow>(executor);
    {
      const PendingRow::Promise promise(pending);
    }
    const auto result = co_await pending->wait();
    EXPECT_EQ(result.error().code(), Code::kCanceled);
    co_return Result<>{};
  });
}

}  // namespace
}  // namespace wrenn::control
