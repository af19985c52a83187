// Every wait for a peer has an end, and a full server makes room.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <optional>

#include "net/byte_stream.h"
#include "net/forward.h"
#include "net/serving.h"
#include "net/websocket.h"

namespace wrenn::net {
namespace {

constexpr std::string_view kGet = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

Task<> say_ok(std::shared_ptr<Exchange> exchange) { co_return co_await exchange->respond(200, {}, "ok"); }

Task<std::string> ask(std::shared_ptr<Connection> connection) {
  CO_TRY(co_await send_raw(connection, std::string(kGet)));
  co_return co_await read_up_to(connection, "ok");
}

TEST(Waits, AConnectionThatSaysNothingIsNotWaitedForAsLongAsOneBetweenRequests) {
  const ServerOptions options{.header_timeout = Milliseconds(200), .idle_timeout = Milliseconds(600'000)};
  serving(
      {say_ok},
      [](Served served) -> Task<> {
        const auto spoke = CO_TRY(co_await raw_connection(served.places[0]));
        CO_TRY(co_await ask(spoke));
        const auto silent = CO_TRY(co_await raw_connection(served.places[0]));
        EXPECT_EQ(CO_TRY(co_await read_to_end(silent)), "");
        EXPECT_TRUE(co_await ask(spoke)) << "an idle connection was closed like a silent one";
        co_return Result<>{};
      },
      options);
}

TEST(Waits, AFullServerClosesWhoNeverSpokeThenWhoWasIdleLongest) {
  serving({say_ok},
          [](Served served) -> Task<> {
            const auto first = CO_TRY(co_await raw_connection(served.places[0]));
            CO_TRY(co_await ask(first));
            const auto second = CO_TRY(co_await raw_connection(served.places[0]));
            CO_TRY(co_await ask(second));
            const auto silent = CO_TRY(co_await raw_connection(served.places[0]));
            const auto third = CO_TRY(co_await raw_connection(served.places[0]));
            CO_TRY(co_await ask(third));
            EXPECT_EQ(CO_TRY(co_await read_to_end(silent)), "");
            const auto fourth = CO_TRY(co_await raw_connection(served.places[0]));
            CO_TRY(co_await ask(fourth));
            EXPECT_EQ(CO_TRY(co_await read_to_end(first)), "");
            for (const auto& kept : {second, third, fourth}) EXPECT_TRUE(co_await ask(kept));
            co_return Result<>{};
          },
          {.max_connections = 3});
}

TEST(Waits, AFullServerWithoutAnIdleConnectionRefuses) {
  const auto hold = [](std::shared_ptr<Exchange> exchange) -> Task<> {
    co_return co_await exchange->wait_disconnect();
  };
  serving({hold},
          [](Served served) -> Task<> {
            const auto busy = CO_TRY(co_await raw_connection(served.places[0]));
            CO_TRY(co_await send_raw(busy, std::string(kGet)));
            std::string refused;
            // Until the request has arrived the connection counts as idle.
            for (int i = 0; i < 200 && refused.empty(); ++i) {
              CO_TRY(co_await async::sleep_for(Milliseconds(10)));
              refused = CO_TRY(co_await talk(served.places[0], std::string(kGet)));
            }
            EXPECT_TRUE(refused.starts_with("HTTP/1.1 503 ")) << refused;
            co_return Result<>{};
          },
          {.max_connections = 1});
}

TEST(Waits, AnAnswerThatNobodyTakesIsGivenUp) {
  std::optional<Error> seen;
  const auto flood = [&seen](std::shared_ptr<Exchange> exchange) {
    const auto send = [](std::shared_ptr<Exchange> to, std::optional<Error>* out) -> Task<> {
      const Result<> sent = co_await to->respond(200, {}, std::string(64 * 1024 * 1024, 'x'));
      if (!sent) *out = sent.error();
      co_return sent;
    };
    return send(std::move(exchange), &seen);
  };
  const auto script = [](Served served, std::optional<Error>* out) -> Task<> {
    const auto reader = CO_TRY(co_await raw_connection(served.places[0]));
    CO_TRY(co_await send_raw(reader, std::string(kGet)));
    for (int i = 0; i < 2'000 && !*out; ++i) CO_TRY(co_await async::sleep_for(Milliseconds(10)));
    co_return Result<>{};
  };
  serving({flood}, [&](Served served) { return script(std::move(served), &seen); },
          {.write_stall_limit = Milliseconds(200)});
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->reason(), "stalled");
}

TEST(Waits, AnAnswerThatIsTakenSlowlyIsNotGivenUp) {
  static constexpr std::size_t kSize = 8 * 1024 * 1024;
  const auto flood = [](std::shared_ptr<Exchange> exchange) -> Task<> {
    co_return co_await exchange->respond(200, {}, std::string(kSize, 'x'));
  };
  serving({flood},
          [](Served served) -> Task<> {
            const auto reader = CO_TRY(co_await raw_connection(served.places[0]));
            CO_TRY(co_await send_raw(reader, std::string(kGet)));
            std::size_t got = 0;
            while (got < kSize) {
              CO_TRY(co_await async::sleep_for(Milliseconds(5)));
              if (!CO_TRY(co_await reader->fill())) break;
              got += reader->input.size();
              reader->input.consume(reader->input.size());
            }
            EXPECT_GE(got, kSize);
            co_return Result<>{};
          },
          {.write_stall_limit = Milliseconds(500)});
}

// One side of a tunnel: it has some pieces to tell, then ends or stays silent.
class Side : public ByteStream {
 public:
  Side(asio::any_io_executor executor, int pieces, bool ends)
      : never_(executor), left_(pieces), ends_(ends) {}
  Task<std::size_t> read(std::span<char> buffer) override {
    if (left_ > 0) {
      --left_;
      CO_TRY(co_await async::sleep_for(Milliseconds(60)));
      buffer[0] = 'x';
      co_return std::size_t{1};
    }
    if (!ends_) CO_TRY(co_await never_.wait());
    co_return std::size_t{0};
  }
  Task<> write(std::string bytes) override {
    taken += bytes.size();
    co_return Result<>{};
  }
  void shutdown_send() override { told_end = true; }

  std::size_t taken = 0;
  bool told_end = false;

 private:
  async::Condition never_;
  int left_;
  bool ends_;
};

TEST(Waits, AHalfClosedTunnelEndsOnceTheOtherHalfIsSilent) {
  async::Loop loop(1);
  Side ended(loop.executor(), 0, true);
  Side talker(loop.executor(), 10, false);
  const auto run = [](Side* a, Side* b) -> Task<> {
    co_return co_await async::with_timeout(tunnel(a, b, Milliseconds(200)), Milliseconds(20'000),
                                           "the tunnel");
  };
  const Result<> done = loop.run_plain(run(&ended, &talker));
  EXPECT_TRUE(done) << done.error().to_string();
  EXPECT_TRUE(talker.told_end);
  EXPECT_EQ(ended.taken, 10U) << "it ended while the other half still talked";
}

TEST(Waits, ATunnelOfTwoSilentHalvesStays) {
  async::Loop loop(1);
  Side a(loop.executor(), 0, false);
  Side b(loop.executor(), 0, false);
  const auto run = [](Side* one, Side* other) -> Task<> {
    co_return co_await async::with_timeout(tunnel(one, other, Milliseconds(10)), Milliseconds(500),
                                           "the tunnel");
  };
  const Result<> done = loop.run_plain(run(&a, &b));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code(), Code::kDeadlineExceeded);
}

int option_of(Socket* socket, int level, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  EXPECT_EQ(::getsockopt(socket->native_handle(), level, name, &value, &size), 0);
  return value;
}

TEST(Waits, TheKernelLooksForPeersThatVanish) {
  asio::io_context context;
  Socket socket(context.get_executor(), asio::generic::stream_protocol(AF_INET, IPPROTO_TCP));
  watch_peer(&socket);
  EXPECT_EQ(option_of(&socket, SOL_SOCKET, SO_KEEPALIVE), 1);
  EXPECT_EQ(option_of(&socket, IPPROTO_TCP, TCP_KEEPIDLE), kKeepAliveIdleSec);
  EXPECT_EQ(option_of(&socket, IPPROTO_TCP, TCP_KEEPINTVL), kKeepAliveProbeSec);
  EXPECT_EQ(option_of(&socket, IPPROTO_TCP, TCP_USER_TIMEOUT), kPeerGoneLimit.count());
}

TEST(Waits, FramesThatComeWithTheUpgradeAreRead) {
  const auto echo = [](std::shared_ptr<Exchange> exchange) -> Task<> {
    const auto socket = CO_TRY(co_await exchange->accept_websocket());
    while (auto message = CO_TRY(co_await socket->receive())) CO_TRY(co_await socket->send(*message));
    co_return Result<>{};
  };
  serving({echo}, [](Served served) -> Task<> {
    const auto client = CO_TRY(co_await raw_connection(served.places[0]));
    // A masked text frame "hi", under the mask 0.
    const std::string frame("\x81\x82\0\0\0\0hi", 8);
    CO_TRY(co_await send_raw(client,
                             "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                             "Sec-WebSocket-Version: 13\r\n"
                             "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" +
                                 frame));
    const std::string answer = CO_TRY(co_await read_up_to(client, "\x81\x02hi"));
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 101 ")) << answer;
    co_return Result<>{};
  });
}

}  // namespace
}  // namespace wrenn::net
