#include "sandbox/journal.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include "sys/file.h"

namespace wrenn::sandbox {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

Record sample() {
  Record record;
  record.id = "sb-abc";
  record.phase = Phase::kPaused;
  record.template_name = "minimal";
  record.vcpus = 2;
  record.memory_mib = 1024;
  record.timeout_sec = 60;
  record.token = "secret";
  record.created_ms = 1'700'000'000'123;
  record.last_active_ms = 1'700'000'001'456;
  record.generation = 7;
  record.process = {4242, 987'654'321};
  record.slot = 12;
  record.auto_paused = true;
  record.memory_digest = "xxh3-128:0123";
  record.driver = "qemu";
  record.accel = "tcg";
  return record;
}

TEST(Journal, RoundTrips) {
  const Record in = sample();
  const auto out = parse_record(to_json(in));
  ASSERT_TRUE(out) << out.error().to_string();
  EXPECT_EQ(to_json(*out), to_json(in));
  EXPECT_EQ(out->phase, Phase::kPaused);
  EXPECT_EQ(out->process.start_time, 987'654'321u);
  EXPECT_EQ(out->memory_digest, "xxh3-128:0123");
}

TEST(Journal, EarlierAgentsDidNotNoteTheMemorysDigest) {
  std::string text = to_json(sample());
  const std::string field = ",\"memory_digest\":\"xxh3-128:0123\"";
  ASSERT_NE(text.find(field), std::string::npos) << text;
  text.erase(text.find(field), field.size());
  const auto out = parse_record(text);
  ASSERT_TRUE(out) << out.error().to_string();
  EXPECT_EQ(out->memory_digest, "");
}

TEST(Journal, EveryTruncationIsRefused) {
  const std::string text = to_json(sample());
  for (std::size_t n = 0; n + 2 < text.size(); ++n) EXPECT_FALSE(parse_record(text.substr(0, n))) << n;
}

TEST(Journal, RefusesWhatIsOutOfRange) {
  const auto refused = [](auto change) {
    Record record = sample();
    change(record);
    return !parse_record(to_json(record));
  };
  EXPECT_TRUE(refused([](Record& r) { r.id = "../x"; }));
  EXPECT_TRUE(refused([](Record& r) { r.template_name = "a/b"; }));
  EXPECT_TRUE(refused([](Record& r) { r.vcpus = 33; }));
  EXPECT_TRUE(refused([](Record& r) { r.memory_mib = 0; }));
  EXPECT_TRUE(refused([](Record& r) { r.slot = -1; }));
  EXPECT_FALSE(refused([](Record&) {}));
}

TEST(Journal, EarlierAgentsDidNotNameTheDriver) {
  std::string text = to_json(sample());
  const std::string fields = R"(,"driver":"qemu","accel":"tcg")";
  ASSERT_NE(text.find(fields), std::string::npos) << text;
  text.erase(text.find(fields), fields.size());
  const auto out = parse_record(text);
  ASSERT_TRUE(out) << out.error().to_string();
  EXPECT_EQ(out->driver, "");
}

TEST(Journal, GoesLastWhenItsFolderIsRemoved) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
  ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  const auto dir = sys::TempDir::make(kBlocking);
  ASSERT_TRUE(dir);
  const std::string sandbox = dir->path() + "/sb-abc";
  // A mount point cannot be removed: the removal stops there, as it would with an agent that dies.
  ASSERT_TRUE(sys::mkdirs(sandbox + "/busy"));
  ASSERT_EQ(::mount("none", (sandbox + "/busy").c_str(), "tmpfs", 0, nullptr), 0);
  ASSERT_TRUE(write_record(kBlocking, sandbox, sample(), Durability::kAtomic));
  EXPECT_FALSE(remove_folder(kBlocking, sandbox));
  EXPECT_TRUE(read_record(kBlocking, sandbox));
  ASSERT_EQ(::umount2((sandbox + "/busy").c_str(), MNT_DETACH), 0);
  EXPECT_TRUE(remove_folder(kBlocking, sandbox));
  EXPECT_FALSE(sys::exists(sandbox));
  EXPECT_TRUE(remove_folder(kBlocking, sandbox)) << "absent is fine";
}

TEST(Journal, WritesReplaceTheOldRecord) {
  const auto dir = sys::TempDir::make(kBlocking);
  ASSERT_TRUE(dir);
  Record record = sample();
  for (const auto durability : {Durability::kAtomic, Durability::kDurable}) {
    ++record.generation;
    ASSERT_TRUE(write_record(kBlocking, dir->path(), record, durability));
    const auto read = read_record(kBlocking, dir->path());
    ASSERT_TRUE(read);
    EXPECT_EQ(read->generation, record.generation);
    EXPECT_EQ(sys::list_dir(kBlocking, dir->path())->size(), 1u);
  }
}

}  // namespace
}  // namespace wrenn::sandbox
