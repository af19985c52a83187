#include "snapshot/snapshot.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "snapshot/digest.h"
#include "snapshot/manifest.h"
#include "sys/file.h"

namespace wrenn::snapshot {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

using testing::HasSubstr;

constexpr std::uint64_t kPages = 64;
constexpr std::uint64_t kBytes = kPages * kPageBytes;

// A private mapping of a file, as a VMM maps a guest's RAM. The "VMM" is this process.
class Ram {
 public:
  explicit Ram(const std::string& path) {
    const auto fd = sys::open_file(path, O_RDONLY);
    EXPECT_TRUE(fd);
    base_ = static_cast<char*>(
        ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd->get(), 0));
    EXPECT_NE(base_, MAP_FAILED);
  }
  Ram(const Ram&) = delete;
  Ram& operator=(const Ram&) = delete;
  ~Ram() { ::munmap(base_, kBytes); }
  sys::ProcessMemory memory() const { return sys::own_memory(base_, kBytes); }
  char* page(std::uint64_t number) const { return base_ + number * kPageBytes; }
  void fill(std::uint64_t number, char value) const { std::memset(page(number), value, kPageBytes); }

 private:
  char* base_;
};

class Snapshot : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return dir_->path() + "/" + name; }
  // A file of kPages pages; page N holds byte 'a' + N % 26, but every fourth is a hole.
  std::string memory_file(const std::string& name) const {
    const auto fd = sys::open_file(path(name), O_WRONLY | O_CREAT);
    EXPECT_EQ(::ftruncate(fd->get(), static_cast<off_t>(kBytes)), 0);
    for (std::uint64_t page = 0; page < kPages; ++page) {
      if (page % 4 == 0) continue;
      EXPECT_TRUE(sys::pwrite_all(kBlocking, fd->get(),
                                  std::string(kPageBytes, static_cast<char>('a' + page % 26)),
                                  page * kPageBytes));
    }
    return path(name);
  }
  static std::uint64_t allocated(const std::string& file) {
    struct stat info{};
    EXPECT_EQ(::stat(file.c_str(), &info), 0);
    return static_cast<std::uint64_t>(info.st_blocks) * 512;
  }

  Result<sys::TempDir> dir_ = sys::TempDir::make(kBlocking, "wrenn-snapshot");
};

TEST_F(Snapshot, DirtyPagesAreThoseWrittenNotThoseRead) {
  const Ram ram(memory_file("memory"));
  char read = 0;
  for (std::uint64_t page = 0; page < kPages; ++page) read = static_cast<char>(read + *ram.page(page));
  EXPECT_NE(read, 0);
  EXPECT_TRUE(sys::private_pages(kBlocking, ram.memory())->empty());
  for (const std::uint64_t page : {3, 4, 10, 63}) ram.fill(page, 'X');
  const auto runs = sys::private_pages(kBlocking, ram.memory());
  ASSERT_TRUE(runs) << runs.error().to_string();
  ASSERT_EQ(runs->size(), 3U);
  EXPECT_EQ((*runs)[0].first, 3U);
  EXPECT_EQ((*runs)[0].count, 2U);
  EXPECT_EQ((*runs)[1].first, 10U);
  EXPECT_EQ((*runs)[2].first, 63U);
}

TEST_F(Snapshot, PagesComeBackWhereTheyWere) {
  const std::string file = memory_file("memory");
  const Ram before(file);
  for (const std::uint64_t page : {0, 7, 8, 9, 63}) before.fill(page, 'Y');
  before.fill(5, '\0');
  const auto runs = sys::private_pages(kBlocking, before.memory());
  EXPECT_EQ(write_pages(kBlocking, before.memory(), *runs, path("pages")), 6 * kPageBytes);
  const Ram after(file);
  ASSERT_TRUE(load_pages(kBlocking, after.memory(), path("pages")));
  EXPECT_EQ(std::memcmp(before.page(0), after.page(0), kBytes), 0);
}

// Every damaged file is refused before one byte of RAM has changed.
TEST_F(Snapshot, DamagedPagesAreRefusedWhole) {
  const std::string file = memory_file("memory");
  const Ram ram(file);
  for (const std::uint64_t page : {1, 20, 21}) ram.fill(page, 'Z');
  ASSERT_TRUE(
      write_pages(kBlocking, ram.memory(), *sys::private_pages(kBlocking, ram.memory()), path("pages")));
  const std::string good = *sys::read_file(path("pages"));
  const Ram target(file);
  const auto refused = [&](const std::string& bytes) {
    EXPECT_TRUE(sys::write_file(kBlocking, path("bad"), bytes));
    const auto loaded = load_pages(kBlocking, target.memory(), path("bad"));
    return !loaded && loaded.error().code() == Code::kDataLoss &&
           loaded.error().reason() == "snapshot_corrupt";
  };
  const auto with_u64 = [&](std::size_t offset, std::uint64_t value) {
    std::string bytes = good;
    std::memcpy(bytes.data() + offset, &value, sizeof value);
    return bytes;
  };
  constexpr std::size_t kHeader = 32;
  for (std::size_t size = 0; size < good.size(); size += 511) EXPECT_TRUE(refused(good.substr(0, size)));
  EXPECT_TRUE(refused(good + "x"));
  EXPECT_TRUE(refused(with_u64(0, 1))) << "magic";
  EXPECT_TRUE(refused(with_u64(8, 2))) << "version";
  EXPECT_TRUE(refused(with_u64(16, ~std::uint64_t{0}))) << "count of runs";
  EXPECT_TRUE(refused(with_u64(24, 4))) << "count of pages";
  EXPECT_TRUE(refused(with_u64(kHeader, kPages))) << "a run outside of RAM";
  EXPECT_TRUE(refused(with_u64(kHeader, 20))) << "runs that overlap";
  EXPECT_TRUE(refused(with_u64(kHeader + 8, ~std::uint64_t{0}))) << "a length that overflows";
  EXPECT_TRUE(sys::private_pages(kBlocking, target.memory())->empty()) << "RAM was written";
  EXPECT_FALSE(refused(good));
}

TEST_F(Snapshot, PagesThatWereOnlyReadNeedNotBeKept) {
  const std::string file = memory_file("memory");
  const Ram ram(file);
  ram.fill(3, 'X');
  ram.fill(4, '\0');                        // a hole of the file
  ram.fill(5, static_cast<char>('a' + 5));  // what the file has
  ram.fill(6, static_cast<char>('a' + 6));
  ram.page(6)[kPageBytes - 1] = 'X';
  const auto runs = sys::private_pages(kBlocking, ram.memory());
  ASSERT_EQ(runs->size(), 1U);
  const auto changed = changed_pages(kBlocking, ram.memory(), *runs, file);
  ASSERT_TRUE(changed) << changed.error().to_string();
  ASSERT_EQ(changed->size(), 2U);
  EXPECT_EQ((*changed)[0].first, 3U);
  EXPECT_EQ((*changed)[0].count, 1U);
  EXPECT_EQ((*changed)[1].first, 6U);
}

TEST_F(Snapshot, WorkingSetsComeBackUnlessTheyAreDamaged) {
  const std::vector<PageRun> runs{{2, 4}, {60, 4}};
  ASSERT_TRUE(write_runs(kBlocking, runs, path("set")));
  const auto read = read_runs(kBlocking, kBytes, path("set"));
  ASSERT_TRUE(read) << read.error().to_string();
  ASSERT_EQ(read->size(), 2U);
  EXPECT_EQ((*read)[1].first, 60U);
  EXPECT_EQ((*read)[1].count, 4U);
  EXPECT_EQ(read_runs(kBlocking, kBytes / 2, path("set")).error().reason(), "snapshot_corrupt")
      << "outside of RAM";
  EXPECT_FALSE(load_pages(kBlocking, sys::own_memory(nullptr, kBytes), path("set"))) << "it has no content";
  const std::string good = *sys::read_file(path("set"));
  ASSERT_TRUE(sys::write_file(kBlocking, path("set"), good + "x"));
  EXPECT_EQ(read_runs(kBlocking, kBytes, path("set")).error().reason(), "snapshot_corrupt");
}

TEST_F(Snapshot, MemoryFilesOfBootedGuestsAreSparse) {
  ASSERT_TRUE(sys::write_file(kBlocking, path("nothing"), ""));
  ASSERT_EQ(::truncate(path("nothing").c_str(), static_cast<off_t>(kBytes)), 0);
  const Ram ram(path("nothing"));
  ram.fill(1, '\0');
  ram.fill(8, 'N');
  const auto written = write_memory(kBlocking, ram.memory(), path("memory"));
  ASSERT_TRUE(written) << written.error().to_string();
  EXPECT_EQ(*written, 2 * kPageBytes);
  EXPECT_EQ(*sys::read_file(path("memory")), std::string(ram.page(0), kBytes));
  EXPECT_EQ(allocated(path("memory")), kPageBytes);
}

Manifest sample() {
  Manifest manifest;
  manifest.kind = "sandbox";
  manifest.id = "sb-1";
  manifest.generation = 3;
  manifest.parent = "minimal-1x512";
  manifest.driver = "qemu";
  manifest.vcpus = 1;
  manifest.memory_mib = 512;
  return manifest;
}

Result<Manifest> publish(const std::string& dir, const std::string& state,
                         const VerifiedFiles& verified = VerifiedFiles()) {
  auto writer = TRY(Writer::create(kBlocking, dir));
  TRY(sys::write_file(kBlocking, writer.path("state"), state));
  TRY(sys::write_file(kBlocking, writer.path("overlay"), "disk"));
  TRY(sys::write_file(kBlocking, writer.path("memory"), std::string(70'000, 'm')));
  TRY(sys::write_file(kBlocking, writer.path("pages"), std::string(100'000, 'p')));
  return writer.publish(kBlocking, sample(), verified);
}

Result<> verify(const std::string& dir, const Manifest& manifest) {
  VerifiedFiles verified;
  return verify(kBlocking, dir, manifest, &verified);
}

TEST_F(Snapshot, PublishedFoldersReadBackAndVerify) {
  const std::string dir = path("sb-1");
  const auto published = publish(dir, "state");
  ASSERT_TRUE(published) << published.error().to_string();
  const auto manifest = read_manifest(kBlocking, dir);
  ASSERT_TRUE(manifest) << manifest.error().to_string();
  EXPECT_EQ(manifest_json(*published), manifest_json(*manifest));
  EXPECT_EQ(manifest->generation, 3U);
  EXPECT_EQ(manifest->parent, "minimal-1x512");
  EXPECT_EQ(manifest->files.size(), 4U);
  EXPECT_TRUE(verify(dir, *manifest));
  ASSERT_TRUE(publish(dir, "newer state"));
  EXPECT_EQ(*sys::read_file(dir + "/state"), "newer state");
  EXPECT_EQ(sys::list_dir(kBlocking, dir_->path())->size(), 1U) << "the replaced folder is gone";
}

TEST_F(Snapshot, VerifyNamesTheDamagedFile) {
  const std::string dir = path("sb-1");
  ASSERT_TRUE(publish(dir, "state"));
  const Manifest manifest = *read_manifest(kBlocking, dir);
  const auto damaged = [&] {
    const auto result = verify(dir, manifest);
    return result ? std::string() : result.error().reason() + " " + result.error().message();
  };
  std::string pages = *sys::read_file(dir + "/pages");
  pages[70'000] = 'q';
  ASSERT_TRUE(sys::write_file(kBlocking, dir + "/pages", pages));
  EXPECT_THAT(damaged(), HasSubstr("snapshot_corrupt"));
  EXPECT_THAT(damaged(), HasSubstr("/pages"));
  ASSERT_TRUE(sys::write_file(kBlocking, dir + "/pages", std::string(99'999, 'p')));
  EXPECT_THAT(damaged(), HasSubstr("/pages"));
  ASSERT_TRUE(sys::remove_file(kBlocking, dir + "/state"));
  ASSERT_TRUE(sys::write_file(kBlocking, dir + "/pages", std::string(100'000, 'p')));
  EXPECT_THAT(damaged(), HasSubstr("/state"));
}

// What a template and its sandboxes share is one file, so it is read once, but never trusted unread.
TEST_F(Snapshot, SharedMemoryIsVerifiedOnceAndAgainWhenItChanged) {
  const std::string dir = path("sb-1");
  const Manifest manifest = *publish(dir, "state");
  ASSERT_NE(manifest.find("memory"), nullptr);
  VerifiedFiles verified;
  EXPECT_EQ(verified.find(dir + "/memory"), std::nullopt) << "publishing is not verifying";
  ASSERT_TRUE(verify(kBlocking, dir, manifest, &verified));
  EXPECT_EQ(verified.find(dir + "/memory"), manifest.find("memory")->digest);
  EXPECT_EQ(verified.find(dir + "/pages"), std::nullopt) << "no other snapshot has this file";
  ASSERT_EQ(::link((dir + "/memory").c_str(), path("link").c_str()), 0);
  EXPECT_TRUE(verified.find(path("link")));

  std::string memory = *sys::read_file(dir + "/memory");
  memory[69'999] = 'q';
  ASSERT_TRUE(sys::write_existing(dir + "/memory", memory));
  EXPECT_EQ(verified.find(dir + "/memory"), std::nullopt);
  const auto damaged = verify(kBlocking, dir, manifest, &verified);
  ASSERT_FALSE(damaged);
  EXPECT_EQ(damaged.error().reason(), "snapshot_corrupt");
  EXPECT_THAT(damaged.error().message(), HasSubstr("/memory"));
}

TEST_F(Snapshot, AFileThatShouldBeKnownMustBeTheSame) {
  auto writer = Writer::create(kBlocking, path("sb-1"));
  ASSERT_TRUE(writer);
  for (const char* name : {"state", "overlay", "pages", "memory"}) {
    ASSERT_TRUE(sys::write_file(kBlocking, writer->path(name), name));
  }
  Manifest manifest = sample();
  manifest.files = {{.name = "memory", .size = 0, .digest = *file_digest(kBlocking, writer->path("state"))}};
  const auto published = writer->publish(kBlocking, manifest, VerifiedFiles());
  ASSERT_FALSE(published);
  EXPECT_EQ(published.error().reason(), "snapshot_corrupt");
  EXPECT_FALSE(sys::exists(path("sb-1")));
  manifest.files[0].digest = *file_digest(kBlocking, writer->path("memory"));
  EXPECT_TRUE(writer->publish(kBlocking, manifest, VerifiedFiles()));
}

// A folder that holds a mount point can be renamed and not removed.
class Unremovable {
 public:
  explicit Unremovable(const std::string& dir) : point_(dir + "/busy") {
    EXPECT_TRUE(sys::mkdirs(point_));
    mounted_ = ::mount("none", point_.c_str(), "tmpfs", 0, "size=4k") == 0;
  }
  Unremovable(const Unremovable&) = delete;
  Unremovable& operator=(const Unremovable&) = delete;
  ~Unremovable() { ::umount2(point_.c_str(), MNT_DETACH); }
  void moved_to(const std::string& dir) { point_ = dir + "/busy"; }
  bool mounted() const { return mounted_; }

 private:
  std::string point_;
  bool mounted_ = false;
};

TEST_F(Snapshot, ASnapshotIsPublishedThoughTheOldOneCannotBeRemoved) {
  const std::string dir = path("sb-1");
  ASSERT_TRUE(publish(dir, "old state"));
  Unremovable busy(dir);
  if (!busy.mounted()) GTEST_SKIP() << "needs root";
  const auto published = publish(dir, "new state");
  for (const auto& name : *sys::list_dir(kBlocking, dir_->path())) {
    if (name != "sb-1") busy.moved_to(path(name));
  }
  ASSERT_TRUE(published) << published.error().to_string();
  EXPECT_EQ(*sys::read_file(dir + "/state"), "new state");
  EXPECT_EQ(sys::list_dir(kBlocking, dir_->path())->size(), 2U);
  EXPECT_TRUE(sweep_unpublished(kBlocking, dir_->path())) << "what cannot be removed stops no agent";
}

TEST_F(Snapshot, ARemovedSnapshotIsNoneThoughItsFilesStay) {
  const std::string dir = path("sb-1");
  EXPECT_TRUE(remove(kBlocking, dir)) << "absent is fine";
  ASSERT_TRUE(publish(dir, "state"));
  Unremovable busy(dir);
  if (!busy.mounted()) GTEST_SKIP() << "needs root";
  EXPECT_TRUE(remove(kBlocking, dir));
  busy.moved_to(path(sys::list_dir(kBlocking, dir_->path())->front()));
  EXPECT_FALSE(sys::exists(dir));
}

TEST_F(Snapshot, WhatIsNotPublishedGoes) {
  const std::string dir = path("sb-1");
  {
    auto discarded = Writer::create(kBlocking, dir);
    ASSERT_TRUE(discarded);
    ASSERT_TRUE(sys::write_file(kBlocking, discarded->path("state"), "half"));
    EXPECT_TRUE(discarded->discard(kBlocking));
    EXPECT_TRUE(discarded->discard(kBlocking)) << "nothing is left to remove";
  }
  EXPECT_TRUE(sys::list_dir(kBlocking, dir_->path())->empty());
  ASSERT_TRUE(publish(dir, "state"));
  ASSERT_TRUE(sys::mkdirs(path("sb-2.tmp-abc/deep")));
  ASSERT_TRUE(sweep_unpublished(kBlocking, dir_->path()));
  EXPECT_EQ(*sys::list_dir(kBlocking, dir_->path()), std::vector<std::string>{"sb-1"});
  EXPECT_TRUE(sweep_unpublished(kBlocking, path("absent")));
}

TEST(Manifests, EveryTruncationAndEveryOtherFormatIsRefused) {
  Manifest manifest = sample();
  for (const char* name : {"overlay", "memory", "pages", "state"}) {
    manifest.files.push_back({.name = name, .size = 5, .digest = "xxh3-128:00"});
  }
  const std::string text = manifest_json(manifest);
  EXPECT_TRUE(parse_manifest(text, "m"));
  for (std::size_t size = 0; size < text.size(); ++size) {
    EXPECT_EQ(parse_manifest(text.substr(0, size), "m").error().reason(), "snapshot_corrupt") << size;
  }
  for (const char* name : {"../state", "/etc/passwd", "", ".hidden"}) {
    Manifest bad = manifest;
    bad.files.push_back({.name = name, .size = 5, .digest = "xxh3-128:00"});
    EXPECT_FALSE(parse_manifest(manifest_json(bad), "m")) << name;
  }
  for (std::size_t left_out = 0; left_out < manifest.files.size(); ++left_out) {
    Manifest bad = manifest;
    bad.files.erase(bad.files.begin() + static_cast<std::ptrdiff_t>(left_out));
    EXPECT_FALSE(parse_manifest(manifest_json(bad), "m")) << manifest.files[left_out].name;
    // The first format left `memory` to the template.
    bad.format = 1;
    EXPECT_EQ(parse_manifest(manifest_json(bad), "m").has_value(), manifest.files[left_out].name == "memory");
  }
  for (const int format : {0, kFormatVersion + 1}) {
    manifest.format = format;
    EXPECT_FALSE(parse_manifest(manifest_json(manifest), "m")) << format;
  }
}

TEST_F(Snapshot, DigestsIgnoreHolesButNotPlaces) {
  const auto file = [&](const std::string& name, std::uint64_t offset) {
    const auto fd = sys::open_file(path(name), O_WRONLY | O_CREAT);
    EXPECT_EQ(::ftruncate(fd->get(), 1 << 20), 0);
    EXPECT_TRUE(sys::pwrite_all(kBlocking, fd->get(), "data", offset));
    return *file_digest(kBlocking, path(name));
  };
  const std::string digest = file("a", 500'000);
  ASSERT_TRUE(sys::write_file(kBlocking, path("full"), *sys::read_file(path("a"))));
  EXPECT_EQ(*file_digest(kBlocking, path("full")), digest) << "zeros written or not are the same";
  ASSERT_TRUE(sys::copy_sparse(kBlocking, path("a"), path("copy")));
  EXPECT_EQ(*file_digest(kBlocking, path("copy")), digest);
  EXPECT_NE(file("b", 500'000 + 65'536), digest);
}

}  // namespace
}  // namespace wrenn::snapshot
