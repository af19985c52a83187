#include "sandbox/disk_reserve.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include "sandbox/journal.h"
#include "sandbox/limits.h"
#include "sys/file.h"

namespace wrenn::sandbox {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

// A filesystem of its own, a little bigger than what must stay free.
class SmallDisk {
 public:
  SmallDisk() {
    const std::string options = "size=" + std::to_string(kDiskReserveBytes + 3 * kJournalReserveBytes);
    mounted_ = ::mount("none", dir_->path().c_str(), "tmpfs", 0, options.c_str()) == 0;
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  ~SmallDisk() { ::umount2(dir_->path().c_str(), MNT_DETACH); }
  bool mounted() const { return mounted_; }
  const std::string& path() const { return dir_->path(); }
  // Writes until nothing fits any more.
  void fill() const {
    const auto file = sys::open_file(path() + "/filler", O_WRONLY | O_CREAT | O_APPEND);
    const std::string block(kMiB, 'x');
    while (sys::write_all(kBlocking, file->get(), block)) continue;
  }

 private:
  Result<sys::TempDir> dir_ = sys::TempDir::make(kBlocking, "wrenn-reserve");
  bool mounted_ = false;
};

Record record_of(Phase phase) {
  Record record;
  record.id = "sb-1";
  record.template_name = "minimal";
  record.vcpus = 1;
  record.memory_mib = 512;
  record.phase = phase;
  return record;
}

TEST(DiskReserve, JournalsOfSandboxesThatExistHaveIt) {
  const SmallDisk disk;
  if (!disk.mounted()) GTEST_SKIP() << "needs root";
  const std::string reserve = disk.path() + "/.reserve";
  const std::string dir = disk.path() + "/sb-1";
  const auto write = [&](Phase phase) {
    return write_record(kBlocking, dir, record_of(phase), Durability::kAtomic);
  };
  ASSERT_TRUE(sys::mkdirs(dir));
  ASSERT_TRUE(keep_disk_reserve(kBlocking, disk.path()));
  EXPECT_EQ(sys::file_size(reserve), kJournalReserveBytes);
  disk.fill();
  EXPECT_EQ(write(Phase::kCreating).error().reason(), "disk_full");
  EXPECT_TRUE(sys::exists(reserve));
  EXPECT_TRUE(write(Phase::kPaused));
  EXPECT_EQ(read_record(kBlocking, dir)->phase, Phase::kPaused);
  EXPECT_FALSE(sys::exists(reserve));

  ASSERT_TRUE(keep_disk_reserve(kBlocking, disk.path()));
  EXPECT_FALSE(sys::exists(reserve)) << "there is no space yet";
  ASSERT_TRUE(sys::remove_file(kBlocking, disk.path() + "/filler"));
  ASSERT_TRUE(keep_disk_reserve(kBlocking, disk.path()));
  EXPECT_TRUE(sys::exists(reserve));
}

}  // namespace
}  // namespace wrenn::sandbox
