// The agent's end of envd against servers that answer as a hostile guest may, over real sockets.
#include "sandbox/guest_client.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <set>

#include "base/bytes.h"
#include "net/gzip.h"
#include "sandbox/limits.h"

namespace wrenn::sandbox {
namespace {

using ExchangePtr = std::shared_ptr<net::Exchange>;
using Handler = std::function<Task<>(ExchangePtr)>;

// Serves `handler` as a guest and runs `body` as the agent. Each test process has an address of its own.
void with_guest(Handler handler, std::function<Task<>(GuestClient*)> body) {
  async::Loop loop(1);
  const net::Endpoint at{.host = fmt::format("127.{}.{}.9", 1 + ::getpid() / 250 % 250, ::getpid() % 250),
                         .port = kEnvdPort};
  net::HttpServer server(loop.executor(), std::move(handler));
  ASSERT_TRUE(server.listen(at));
  const auto run = [](async::Loop* l, net::HttpServer* s, std::string host,
                      std::function<Task<>(GuestClient*)>* test) -> Task<> {
    async::Nursery nursery(l->executor());
    nursery.spawn("guest", s->serve(Milliseconds(200)));
    GuestClient client(std::make_shared<net::HttpClient>(l->executor()), std::move(host), "token");
    const Result<> done = co_await async::with_timeout((*test)(&client), Milliseconds(60'000), "test");
    EXPECT_TRUE(done) << done.error().to_string();
    co_await nursery.cancel_and_join();
    co_return Result<>{};
  };
  EXPECT_TRUE(loop.run_plain(run(&loop, &server, at.host, &body)));
}

Handler answers(std::string bytes, std::string encoding = "") {
  return [bytes, encoding](ExchangePtr exchange) -> Task<> {
    net::Headers headers;
    headers.set("Content-Type", "application/proto");
    if (!encoding.empty()) headers.set("Content-Encoding", encoding);
    co_return co_await exchange->respond(200, std::move(headers), bytes);
  };
}

Handler packed(const std::string& bytes) { return answers(net::gzip_compress(bytes).value(), "gzip"); }

std::string empty_entries(std::size_t count) {
  std::string bytes;
  for (std::size_t i = 0; i < count; ++i) bytes.append("\x0a\0", 2);
  return bytes;
}

template <class Entry>
Result<std::size_t> read_through(connect::ElementReader entries) {
  std::size_t count = 0;
  Entry entry;
  while (TRY(entries.next(&entry))) ++count;
  return count;
}

TEST(GuestClient, ListsAreBoundedInBytesAndEntries) {
  with_guest(answers(empty_entries(16'000'000)), [](GuestClient* guest) -> Task<> {
    EXPECT_EQ((co_await guest->list_dir("/", 1)).error().reason(), "too_large");
    EXPECT_EQ((co_await guest->processes()).error().reason(), "too_large");
    co_return Result<>{};
  });
  with_guest(packed(empty_entries(16'000'000)), [](GuestClient* guest) -> Task<> {
    EXPECT_EQ((co_await guest->list_dir("/", 1)).error().code(), Code::kInternal) << "packed unasked";
    co_return Result<>{};
  });
  with_guest(answers(empty_entries(kMaxGuestListEntries + 1)), [](GuestClient* guest) -> Task<> {
    auto files = CO_TRY(co_await guest->list_dir("/", 1));
    EXPECT_EQ(read_through<filesystem::EntryInfo>(std::move(files.entries)).error().reason(),
              "too_many_entries");
    auto processes = CO_TRY(co_await guest->processes());
    EXPECT_EQ(read_through<process::ProcessInfo>(std::move(processes.entries)).error().reason(),
              "too_many_entries");
    co_return Result<>{};
  });
  with_guest(answers(empty_entries(kMaxGuestListEntries)), [](GuestClient* guest) -> Task<> {
    auto files = CO_TRY(co_await guest->list_dir("/", 1));
    EXPECT_EQ(read_through<filesystem::EntryInfo>(std::move(files.entries)).value(), kMaxGuestListEntries);
    co_return Result<>{};
  });
}

TEST(GuestClient, PlainAnswersAreSmall) {
  const auto error = [](ExchangePtr exchange) -> Task<> {
    net::Headers headers;
    headers.set("Content-Type", "application/json");
    headers.set("Content-Encoding", "gzip");
    const std::string body = R"({"code":"internal","message":")" + std::string(1'000'000, 'x') + "\"}";
    co_return co_await exchange->respond(500, std::move(headers), net::gzip_compress(body).value());
  };
  with_guest(error, [](GuestClient* guest) -> Task<> {
    EXPECT_EQ((co_await guest->make_dir("/a")).error().reason(), "too_large");
    co_return Result<>{};
  });
  with_guest(packed(std::string("\x0a\xff\xff\x3f", 4) + std::string(1'048'575, 'x')),
             [](GuestClient* guest) -> Task<> {
               EXPECT_EQ((co_await guest->make_dir("/a")).error().reason(), "too_large");
               co_return Result<>{};
             });
}

Handler silent_stream(std::string beginning) {
  return [beginning](ExchangePtr exchange) -> Task<> {
    net::Headers headers;
    headers.set("Content-Type", "application/connect+proto");
    CO_TRY(co_await exchange->start(200, std::move(headers)));
    CO_TRY(co_await exchange->write(beginning));
    co_return co_await async::sleep_for(Milliseconds(60'000));
  };
}

TEST(GuestClient, StreamsOfAGuestAreCountedAndTheirEventsSmall) {
  with_guest(silent_stream(std::string("\0\2\0\0\0", 5)), [](GuestClient* guest) -> Task<> {
    std::vector<std::unique_ptr<GuestProcess>> streams;
    streams.reserve(kMaxGuestStreams);
    for (long i = 0; i < kMaxGuestStreams; ++i)
      streams.push_back(CO_TRY(co_await guest->start({.cmd = "x"})));
    EXPECT_EQ((co_await guest->start({.cmd = "x"})).error().reason(), "too_many_streams");
    EXPECT_EQ((co_await streams.back()->next()).error().reason(), "too_large");
    streams.pop_back();
    EXPECT_TRUE(co_await guest->start({.cmd = "x"}));
    co_return Result<>{};
  });
}

// What a guest is told at each /init.
TEST(GuestClient, InitBringsFreshEntropyEachTime) {
  auto bodies = std::make_shared<std::vector<boost::json::object>>();
  const auto guest_side = [bodies](ExchangePtr exchange) -> Task<> {
    const std::string text = CO_TRY(co_await net::read_all(exchange.get(), 1'000'000));
    bodies->push_back(boost::json::parse(text).as_object());
    net::Headers headers;
    headers.set("X-Envd-Clock", std::to_string(std::numeric_limits<std::int64_t>::min()));
    co_return co_await exchange->respond(204, std::move(headers), "");
  };
  with_guest(guest_side, [](GuestClient* guest) -> Task<> {
    const std::string id(32, 'a');
    co_return co_await guest->init({{"A", "1"}}, id, [] { return true; }, Milliseconds(20'000));
  });
  // A clock that is off by centuries has it set again a few times, and no more.
  ASSERT_EQ(bodies->size(), static_cast<std::size_t>(kInitRounds));
  std::set<std::string> seen;
  for (const auto& body : *bodies) {
    const std::string entropy = from_base64(std::string(body.at("entropy").as_string())).value();
    EXPECT_EQ(entropy.size(), kEntropyBytes);
    EXPECT_TRUE(seen.insert(entropy).second) << "the same twice";
    EXPECT_EQ(body.at("machineId").as_string(), std::string(32, 'a'));
    EXPECT_EQ(body.at("accessToken").as_string(), "token");
  }
}

struct Kills {
  std::size_t starts = 0;
  std::vector<std::uint32_t> pids;
};

// A guest that takes its time to say that a process runs.
void serve_slow_start(connect::Router* router, Kills* kills) {
  router->server_stream<process::StartRequest, process::StartResponse>(
      "/process.Process/Start",
      [kills](connect::Context, process::StartRequest,
              connect::Writer<process::StartResponse> out) -> Task<> {
        ++kills->starts;
        CO_TRY(co_await async::sleep_for(Milliseconds(300)));
        process::StartResponse started;
        started.mutable_event()->mutable_start()->set_pid(77);
        CO_TRY(co_await out.send(started));
        co_return co_await async::sleep_for(Milliseconds(60'000));
      });
  router->unary<process::SendSignalRequest, process::SendSignalResponse>(
      "/process.Process/SendSignal",
      [kills](connect::Context, process::SendSignalRequest request) -> Task<process::SendSignalResponse> {
        kills->pids.push_back(request.process().pid());
        co_return process::SendSignalResponse();
      });
}

TEST(GuestClient, WhoLeavesWhileACommandStartsEndsItAllTheSame) {
  connect::Router router;
  Kills kills;
  serve_slow_start(&router, &kills);
  with_guest([&router](ExchangePtr exchange) { return router.handle(std::move(exchange)); },
             [&kills](GuestClient* guest) -> Task<> {
               for (const int after_ms : {0, 1, 50, 150}) {
                 kills = {};
                 const auto left =
                     co_await async::with_timeout(guest->exec({.cmd = "x"}, std::make_shared<bool>(false)),
                                                  Milliseconds(after_ms), "client");
                 EXPECT_FALSE(left);
                 EXPECT_EQ(kills.pids, std::vector<std::uint32_t>(kills.starts, 77))
                     << "left after " << after_ms << " ms";
                 if (after_ms >= 50) EXPECT_EQ(kills.starts, 1U);
               }
               co_return Result<>{};
             });
}

}  // namespace
}  // namespace wrenn::sandbox
