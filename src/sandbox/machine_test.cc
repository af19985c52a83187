#include "sandbox/machine.h"

#include <gtest/gtest.h>

namespace wrenn::sandbox {
namespace {

using std::chrono::milliseconds;

TEST(Machine, AStartThatWaitsTooLongIsTypedAndKeepsNoPlace) {
  async::Loop loop(1);
  Context context{.executor = loop.executor()};
  context.starts = std::make_unique<async::Semaphore>(loop.executor(), 1);
  auto body = [&]() -> Task<> {
    {
      const auto first = CO_TRY(co_await take_start(&context));
      const auto second = co_await take_start(&context, milliseconds(20));
      EXPECT_FALSE(second);
      if (second) co_return Result<>{};
      EXPECT_EQ(second.error().code(), Code::kResourceExhausted);
      EXPECT_EQ(second.error().reason(), "host_busy");
    }
    EXPECT_TRUE(context.starts->idle());
    EXPECT_TRUE(co_await take_start(&context, milliseconds(20)));
    co_return Result<>{};
  };
  const Result<> done = loop.run_plain(body());
  EXPECT_TRUE(done) << done.error().to_string();
}

// So a client that leaves, or an agent that stops, leaves nothing behind.
TEST(Machine, AStartThatIsCancelledLeavesTheQueue) {
  async::Loop loop(1);
  Context context{.executor = loop.executor()};
  context.starts = std::make_unique<async::Semaphore>(loop.executor(), 1);
  auto body = [&]() -> Task<> {
    std::optional<async::Semaphore::Guard> first(CO_TRY(co_await take_start(&context)));
    std::optional<Code> told;
    auto waiter = [&]() -> Task<> {
      const auto place = co_await take_start(&context);
      if (!place) told = place.error().code();
      co_return Result<>{};
    };
    async::Nursery nursery(loop.executor());
    nursery.spawn("waiter", waiter());
    CO_TRY(co_await async::sleep_for(milliseconds(5)));
    co_await nursery.cancel_and_join();
    EXPECT_EQ(told, Code::kCanceled);
    first.reset();
    EXPECT_TRUE(context.starts->idle());
    co_return Result<>{};
  };
  const Result<> done = loop.run_plain(body());
  EXPECT_TRUE(done) << done.error().to_string();
}

}  // namespace
}  // namespace wrenn::sandbox
