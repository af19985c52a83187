#include "sandbox/template_cache.h"

#include <gtest/gtest.h>

#include "sandbox/files.h"
#include "sys/file.h"

namespace wrenn::sandbox {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();
using Names = std::vector<std::string>;

CachedSnapshot entry(const std::string& dir, std::uint64_t bytes, std::int64_t used, bool current = true) {
  return {.dir = dir, .bytes = bytes, .used_ns = used, .current = current};
}

TEST(TemplateSizes, AreFew) {
  int sizes = 0;
  for (int mib = 128; mib <= 65'536; ++mib) sizes += is_template_size(mib) ? 1 : 0;
  EXPECT_EQ(sizes, 8 + 12 + 60);
  for (const int mib : {128, 512, 1024, 1280, 4096, 5120, 65'536}) EXPECT_TRUE(is_template_size(mib)) << mib;
  for (const int mib : {129, 777, 1152, 4352}) EXPECT_FALSE(is_template_size(mib)) << mib;
}

TEST(TemplateCache, WhatIsOfNoUseGoesFirstThenWhatWasUsedLongestAgo) {
  const std::vector<CachedSnapshot> found{entry("new", 10, 40), entry("old image", 10, 50, false),
                                          entry("older", 10, 20), entry("oldest", 10, 10)};
  EXPECT_EQ(choose_evicted(found, 40, {}), Names{});
  EXPECT_EQ(choose_evicted(found, 39, {}), Names{"old image"});
  EXPECT_EQ(choose_evicted(found, 29, {}), (Names{"old image", "oldest"}));
  EXPECT_EQ(choose_evicted(found, 29, {"oldest"}), (Names{"old image", "older"}));
  EXPECT_EQ(choose_evicted(found, 0, {"new", "oldest"}), (Names{"old image", "older"}));
}

TEST(TemplateCache, FindsWhatTheImagesHave) {
  const auto dir = sys::TempDir::make(kBlocking, "wrenn-cache");
  ASSERT_TRUE(dir);
  const std::string image = dir->path() + "/minimal";
  for (const char* key : {"1c-512m-today", "1c-512m-before", "captured"}) {
    ASSERT_TRUE(sys::mkdirs(image + "/snapshots/" + key));
    ASSERT_TRUE(
        sys::write_file(kBlocking, image + "/snapshots/" + key + "/memory", std::string(100'000, 'm')));
  }
  ASSERT_TRUE(sys::write_file(kBlocking, image + "/rootfs.ext4", "image"));
  mark_used(image + "/snapshots/captured");
  const auto found = cached_snapshots(kBlocking, dir->path(), [&](const std::string& version) {
    return version == *image_version(image + "/rootfs.ext4") ? "today" : "";
  });
  ASSERT_TRUE(found) << found.error().to_string();
  ASSERT_EQ(found->size(), 3U);
  for (const CachedSnapshot& each : *found) {
    EXPECT_GE(each.bytes, 100'000U);
    EXPECT_GT(each.used_ns, 0);
    EXPECT_EQ(each.current, each.dir.ends_with("today")) << each.dir;
  }
  EXPECT_EQ(*cache_budget(dir->path(), 77), 77U);
  EXPECT_GT(*cache_budget(dir->path(), 0), 1U << 20U);
}

TEST(Images, AReplacedOneIsNotLinked) {
  const auto dir = sys::TempDir::make(kBlocking, "wrenn-image");
  ASSERT_TRUE(dir);
  const std::string image = dir->path() + "/rootfs.ext4";
  ASSERT_TRUE(sys::write_file(kBlocking, image, "first"));
  const std::string version = *image_version(image);
  EXPECT_TRUE(link_image(kBlocking, image, version, dir->path() + "/base"));
  ASSERT_TRUE(sys::write_file_atomic(kBlocking, image, "other"));
  const auto linked = link_image(kBlocking, image, version, dir->path() + "/base");
  ASSERT_FALSE(linked);
  EXPECT_EQ(linked.error().reason(), kImageReplaced);
}

}  // namespace
}  // namespace wrenn::sandbox
