#include "async/async.h"

#include <gtest/gtest.h>

#include <type_traits>

namespace wrenn::async {
namespace {

using std::chrono::milliseconds;

TEST(Async, TryInsideCoroutineReturnsTheError) {
  Loop loop(1);
  auto failing = []() -> Task<int> { co_return fail(Code::kNotFound, "gone"); };
  auto outer = [&]() -> Task<> {
    const int value = CO_TRY(co_await failing());
    EXPECT_EQ(value, -1) << "not reached";
    co_return Result<>{};
  };
  const Result<> result = loop.run_plain(outer());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), Code::kNotFound);
}

TEST(Async, TimeoutCancelsAndNamesTheOperation) {
  Loop loop(1);
  bool saw_cancel = false;
  auto slow = [&]() -> Task<> {
    const Result<> slept = co_await sleep_for(milliseconds(60'000));
    saw_cancel = !slept && slept.error().code() == Code::kCanceled;
    co_return slept;
  };
  const Result<> result = loop.run_plain(with_timeout(slow(), milliseconds(20), "the nap"));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), Code::kDeadlineExceeded);
  EXPECT_EQ(result.error().message(), "the nap took longer than 20 ms");
  EXPECT_TRUE(saw_cancel);
}

TEST(Async, CancelBetweenTwoWaitsIsNotLost) {
  Loop loop(1);
  int turns = 0;
  auto body = [&]() -> Task<> {
    Nursery nursery(loop.executor());
    auto spinner = [](int* count) -> Task<> {
      while (true) {
        ++*count;
        CO_TRY(co_await sleep_for(milliseconds(0)));
      }
    };
    for (int i = 0; i < 50; ++i) nursery.spawn("spinner", spinner(&turns));
    CO_TRY(co_await sleep_for(milliseconds(5)));
    co_await nursery.cancel_and_join();
    EXPECT_EQ(nursery.size(), 0U);
    co_return Result<>{};
  };
  ASSERT_TRUE(loop.run_plain(with_timeout(body(), milliseconds(5'000), "join")));
  EXPECT_GT(turns, 50);
}

TEST(Async, NurseryCancelledBeforeItsChildStarts) {
  Loop loop(1);
  bool ran = false;
  auto body = [&]() -> Task<> {
    Nursery nursery(loop.executor());
    nursery.spawn("never", [](bool* out) -> Task<> {
      CO_TRY(co_await sleep_for(milliseconds(1)));
      *out = true;
      co_return Result<>{};
    }(&ran));
    co_await nursery.cancel_and_join();
    co_return Result<>{};
  };
  ASSERT_TRUE(loop.run_plain(body()));
  EXPECT_FALSE(ran);
}

TEST(Async, ShieldedWorkOutlivesCancellation) {
  Loop loop(1);
  bool finished = false;
  auto transition = [](bool* out) -> Task<> {
    CO_TRY(co_await sleep_for(milliseconds(30)));
    *out = true;
    co_return Result<>{};
  };
  auto request = [&]() -> Task<> { co_return co_await shielded(transition(&finished)); };
  auto body = [&]() -> Task<> {
    const Result<> result = co_await with_timeout(request(), milliseconds(5), "request");
    EXPECT_TRUE(result) << "the transition finished in spite of the deadline";
    co_return Result<>{};
  };
  ASSERT_TRUE(loop.run_plain(body()));
  EXPECT_TRUE(finished);
}

TEST(Async, RunUntilCancelsTheWorkWhenToldToStop) {
  Loop loop(1);
  const auto nap = [](int ms) -> Task<> { co_return co_await sleep_for(milliseconds(ms)); };
  const auto broken = []() -> Task<> { co_return fail(Code::kUnavailable, "no watcher"); };
  const Result<> stopped = loop.run_plain(run_until(nap(60'000), nap(5)));
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code(), Code::kCanceled);
  EXPECT_TRUE(loop.run_plain(run_until(nap(5), nap(60'000))));
  EXPECT_TRUE(loop.run_plain(run_until(nap(5), broken()))) << "a failed watcher stops nothing";
}

TEST(Async, MutexIsFairAndSurvivesAbandonedWaiters) {
  Loop loop(1);
  std::string order;
  auto body = [&]() -> Task<> {
    Mutex mutex(loop.executor());
    Nursery nursery(loop.executor());
    auto worker = [](Mutex* m, std::string* out, char name) -> Task<> {
      auto guard = CO_TRY(co_await m->lock());
      CO_TRY(co_await sleep_for(milliseconds(5)));
      *out += name;
      co_return Result<>{};
    };
    nursery.spawn("a", worker(&mutex, &order, 'a'));
    CO_TRY(co_await sleep_for(milliseconds(1)));
    EXPECT_FALSE(co_await with_timeout(worker(&mutex, &order, 'x'), milliseconds(1), "x"));
    nursery.spawn("b", worker(&mutex, &order, 'b'));
    nursery.spawn("c", worker(&mutex, &order, 'c'));
    co_await nursery.join();
    EXPECT_FALSE(mutex.locked());
    co_return Result<>{};
  };
  ASSERT_TRUE(loop.run_plain(body()));
  EXPECT_EQ(order, "abc");
}

TEST(Async, SemaphoreBoundsItsHoldersAndPassesAbandonedPlacesOn) {
  Loop loop(1);
  std::string order;
  int holders = 0;
  int most = 0;
  auto body = [&]() -> Task<> {
    Semaphore semaphore(loop.executor(), 2);
    Nursery nursery(loop.executor());
    auto worker = [&](char name) -> Task<> {
      auto guard = CO_TRY(co_await semaphore.acquire());
      order += name;
      most = std::max(most, ++holders);
      const Result<> slept = co_await sleep_for(milliseconds(20));
      --holders;
      co_return slept;
    };
    nursery.spawn("a", worker('a'));
    nursery.spawn("b", worker('b'));
    CO_TRY(co_await sleep_for(milliseconds(1)));
    EXPECT_FALSE(co_await with_timeout(worker('x'), milliseconds(1), "x"));
    EXPECT_FALSE(co_await with_timeout(worker('y'), milliseconds(1), "y"));
    for (const char name : {'c', 'd', 'e'}) nursery.spawn("later", worker(name));
    co_await nursery.join();
    EXPECT_TRUE(semaphore.idle());
    co_return Result<>{};
  };
  ASSERT_TRUE(loop.run_plain(body()));
  EXPECT_EQ(order, "abcde");
  EXPECT_EQ(most, 2);
}

TEST(Async, ChannelHoldsBackASenderUntilRead) {
  Loop loop(1);
  std::size_t most = 0;
  int sum = 0;
  auto body = [&]() -> Task<> {
    Channel<int> channel(loop.executor(), 2);
    Nursery nursery(loop.executor());
    nursery.spawn("producer", [](Channel<int>* out, std::size_t* peak) -> Task<> {
      for (int i = 1; i <= 10; ++i) {
        CO_TRY(co_await out->send(i));
        *peak = std::max(*peak, out->size());
      }
      out->close();
      co_return Result<>{};
    }(&channel, &most));
    while (auto value = CO_TRY(co_await channel.receive())) sum += *value;
    co_await nursery.join();
    co_return Result<>{};
  };
  ASSERT_TRUE(loop.run_plain(body()));
  EXPECT_EQ(sum, 55);
  EXPECT_LE(most, 2U);
}

// Nobody makes one but offload(), and without_loop(), whose places scripts/lint.py knows.
static_assert(!std::is_default_constructible_v<Blocking> && !std::is_aggregate_v<Blocking>);

TEST(Async, OffloadRunsElsewhereAndResumesHere) {
  Loop loop(2);
  auto body = [&]() -> Task<> {
    const auto here = std::this_thread::get_id();
    const auto there = CO_TRY(co_await offload(
        loop.pool(), [](Blocking) -> Result<std::thread::id> { return std::this_thread::get_id(); }));
    EXPECT_TRUE(here != there);
    EXPECT_TRUE(here == std::this_thread::get_id());
    co_return Result<>{};
  };
  ASSERT_TRUE(loop.run_plain(body()));
}

}  // namespace
}  // namespace wrenn::async
