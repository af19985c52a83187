// Who still waits for an answer that has begun.
#include <gtest/gtest.h>

#include "net/limits.h"
#include "net/serving.h"

namespace wrenn::net {
namespace {

struct Ends {
  int gone = 0;

  Task<> operator()(std::shared_ptr<Exchange> exchange) {
    CO_TRY(co_await exchange->start(200, {}));
    const bool drips = exchange->request().path() == "/drip";
    const Result<> done =
        co_await async::run_until(drips ? drip(exchange.get()) : silence(), exchange->wait_disconnect());
    if (!done) ++gone;
    co_return done;
  }
  static Task<> drip(Exchange* exchange) {
    for (int i = 0; i < 5; ++i) {
      CO_TRY(co_await async::sleep_for(Milliseconds(50)));
      CO_TRY(co_await exchange->write("drop"));
    }
    co_return co_await exchange->finish();
  }
  static Task<> silence() { return async::sleep_for(10 * kHalfClosedQuiet); }
};

Task<std::shared_ptr<Connection>> begun(Endpoint at, std::string target) {
  auto raw = CO_TRY(co_await raw_connection(std::move(at)));
  CO_TRY(co_await send_raw(raw, "GET " + target + " HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
  CO_TRY(co_await read_up_to(raw, "\r\n\r\n"));
  co_return raw;
}

TEST(Exchange, AnAnswerThatHasBegunReachesAClientThatEndedItsSide) {
  Ends ends;
  serving({std::ref(ends)}, [](Served served) -> Task<> {
    const auto raw = CO_TRY(co_await begun(served.places[0], "/drip"));
    raw->stream.shutdown_send();
    const std::string got = CO_TRY(co_await read_to_end(raw));
    EXPECT_TRUE(got.ends_with("drop\r\n0\r\n\r\n")) << got;
    co_return Result<>{};
  });
  EXPECT_EQ(ends.gone, 0);
}

TEST(Exchange, AClientThatLeftIsNoticedThoughItsAnswerIsSilent) {
  Ends ends;
  serving({std::ref(ends)}, [&ends](Served served) -> Task<> {
    const auto resets = CO_TRY(co_await begun(served.places[0], "/silent"));
    resets->stream.abort();
    while (ends.gone < 1) CO_TRY(co_await async::sleep_for(Milliseconds(5)));
    const auto leaves = CO_TRY(co_await begun(served.places[0], "/silent"));
    leaves->stream.close();
    while (ends.gone < 2) CO_TRY(co_await async::sleep_for(Milliseconds(5)));
    co_return Result<>{};
  });
}

}  // namespace
}  // namespace wrenn::net
