#include "envd/watcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "envd/new_file.h"
#include "sys/file.h"

namespace wrenn::envd {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

using testing::Contains;
using testing::ElementsAre;
using testing::IsSupersetOf;

// "CREATE name" for each event within a moment.
Task<std::vector<std::string>> gather(Watcher* watcher, asio::thread_pool* pool, bool entries = false) {
  std::vector<std::string> seen;
  while (true) {
    auto events = co_await async::with_timeout(watcher->next(pool), Milliseconds(150), "event");
    if (!events && events.error().code() == Code::kDeadlineExceeded) co_return seen;
    if (!events) co_return fail(events.error());
    for (const auto& event : *events) {
      std::string text =
          filesystem::EventType_Name(event.type()).substr(sizeof("EVENT_TYPE_") - 1) + " " + event.name();
      if (entries && event.has_entry()) text += " " + std::to_string(event.entry().size());
      seen.push_back(std::move(text));
    }
  }
}

struct Bench {
  async::Loop* loop;
  std::string dir;
};

template <class Body>
void with_folder(Body body) {
  const auto dir = sys::TempDir::make(kBlocking, "wrenn-watch");
  ASSERT_TRUE(dir);
  async::Loop loop(2);
  const auto run = [](Bench bench, Body* test) -> Task<> { co_return co_await (*test)(bench); };
  const Result<> done = loop.run_plain(run(Bench{&loop, dir->path()}, &body));
  EXPECT_TRUE(done) << done.error().to_string();
}

TEST(Watcher, TellsWhatHappensInAFolder) {
  with_folder([](Bench bench) -> Task<> {
    CO_TRY(sys::write_file(kBlocking, bench.dir + "/before", "x"));
    const auto watcher = CO_TRY(Watcher::open(kBlocking, bench.dir, {.include_entry = true}));
    CO_TRY(sys::write_file(kBlocking, bench.dir + "/a", "12345"));
    EXPECT_THAT(CO_TRY(co_await gather(watcher.get(), &bench.loop->pool(), true)),
                ElementsAre("CREATE a 5", "WRITE a 5"));
    EXPECT_EQ(::chmod((bench.dir + "/a").c_str(), 0600), 0);
    CO_TRY(sys::rename_file(bench.dir + "/a", bench.dir + "/b"));
    CO_TRY(sys::remove_file(kBlocking, bench.dir + "/b"));
    EXPECT_THAT(CO_TRY(co_await gather(watcher.get(), &bench.loop->pool())),
                ElementsAre("CHMOD a", "RENAME a", "CREATE b", "REMOVE b"));
    CO_TRY(sys::mkdirs(bench.dir + "/sub"));
    CO_TRY(sys::write_file(kBlocking, bench.dir + "/sub/deep", "x"));
    EXPECT_THAT(CO_TRY(co_await gather(watcher.get(), &bench.loop->pool())), ElementsAre("CREATE sub"));
    co_return Result<>{};
  });
}

TEST(Watcher, FollowsFoldersThatComeAndGo) {
  with_folder([](Bench bench) -> Task<> {
    CO_TRY(sys::mkdirs(bench.dir + "/old/inner"));
    const auto watcher = CO_TRY(Watcher::open(kBlocking, bench.dir, {.recursive = true}));
    CO_TRY(sys::write_file(kBlocking, bench.dir + "/old/inner/f", ""));
    EXPECT_THAT(CO_TRY(co_await gather(watcher.get(), &bench.loop->pool())),
                ElementsAre("CREATE old/inner/f"));
    // Made at once: inotify alone would miss what is inside.
    CO_TRY(sys::mkdirs(bench.dir + "/new/x/y"));
    CO_TRY(sys::write_file(kBlocking, bench.dir + "/new/x/y/z", ""));
    const auto made = CO_TRY(co_await gather(watcher.get(), &bench.loop->pool()));
    EXPECT_THAT(made, IsSupersetOf({"CREATE new", "CREATE new/x", "CREATE new/x/y", "CREATE new/x/y/z"}));
    CO_TRY(sys::rename_file(bench.dir + "/new", bench.dir + "/moved"));
    CO_TRY(co_await gather(watcher.get(), &bench.loop->pool()));
    CO_TRY(sys::write_file(kBlocking, bench.dir + "/moved/x/later", ""));
    EXPECT_THAT(CO_TRY(co_await gather(watcher.get(), &bench.loop->pool())),
                ElementsAre("CREATE moved/x/later"));
    CO_TRY(sys::remove_tree(kBlocking, bench.dir + "/moved"));
    EXPECT_THAT(CO_TRY(co_await gather(watcher.get(), &bench.loop->pool())),
                IsSupersetOf({"REMOVE moved/x/y/z", "REMOVE moved/x/y", "REMOVE moved"}));
    co_return Result<>{};
  });
}

// An upload writes beside the file and renames; who watches sees the file being written.
TEST(Watcher, ShowsUploadsUnderTheirNames) {
  with_folder([](Bench bench) -> Task<> {
    const sys::User me{.name = "me", .uid = ::geteuid(), .gid = ::getegid(), .home = "/", .shell = "/bin/sh"};
    const auto watcher = CO_TRY(Watcher::open(kBlocking, bench.dir, {}));
    for (const bool first : {true, false}) {
      const auto file = CO_TRY(NewFile::create(kBlocking, bench.dir + "/f", me));
      CO_TRY(sys::write_all(kBlocking, file->fd(), "content"));
      CO_TRY(file->publish(kBlocking));
      const auto seen = CO_TRY(co_await gather(watcher.get(), &bench.loop->pool()));
      if (first) EXPECT_THAT(seen, ElementsAre("CREATE f", "CHMOD f", "WRITE f"));
      if (!first) EXPECT_THAT(seen, ElementsAre("CHMOD f", "WRITE f"));
    }
    co_return Result<>{};
  });
}

TEST(Watcher, SaysThatEventsWereLost) {
  with_folder([](Bench bench) -> Task<> {
    const auto watcher = CO_TRY(Watcher::open(kBlocking, bench.dir, {}));
    const std::string limit = CO_TRY(sys::read_file("/proc/sys/fs/inotify/max_queued_events"));
    const int files = std::stoi(limit) / 2 + 100;
    for (int i = 0; i < files; ++i)
      CO_TRY(sys::write_file(kBlocking, bench.dir + "/" + std::to_string(i), "x"));
    Result<Watcher::Events> events;
    std::size_t seen = 0;
    while ((events = co_await watcher->next(&bench.loop->pool()))) seen += events->size();
    EXPECT_EQ(events.error().code(), Code::kDataLoss);
    EXPECT_EQ(events.error().reason(), "watch_overflow");
    EXPECT_GT(seen, 1000U);
    CO_TRY(co_await gather(watcher.get(), &bench.loop->pool()));
    CO_TRY(sys::write_file(kBlocking, bench.dir + "/after", ""));
    EXPECT_THAT(CO_TRY(co_await gather(watcher.get(), &bench.loop->pool())), Contains("CREATE after"));
    co_return Result<>{};
  });
}

TEST(Watcher, RefusalsAreTyped) {
  with_folder([](Bench bench) -> Task<> {
    EXPECT_EQ(Watcher::open(kBlocking, bench.dir + "/none", {}).error().code(), Code::kNotFound);
    CO_TRY(sys::write_file(kBlocking, bench.dir + "/file", ""));
    EXPECT_EQ(Watcher::open(kBlocking, bench.dir + "/file", {}).error().code(), Code::kInvalidArgument);
    const auto watcher = CO_TRY(Watcher::open(kBlocking, bench.dir, {}));
    CO_TRY(sys::remove_tree(kBlocking, bench.dir));
    EXPECT_THAT(CO_TRY(co_await gather(watcher.get(), &bench.loop->pool())), Contains("REMOVE ."));
    co_return Result<>{};
  });
}

}  // namespace
}  // namespace wrenn::envd
