#include "sys/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys/passwd.h"

namespace wrenn::sys {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

class Files : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return dir_->path() + "/" + name; }
  Result<TempDir> dir_ = TempDir::make(kBlocking, "wrenn-files");
};

TEST_F(Files, ReadsAreBoundedAndNameThePath) {
  ASSERT_TRUE(write_file(kBlocking, path("f"), std::string(1000, 'x')));
  EXPECT_EQ(read_file(path("f"), 1000)->size(), 1000U);
  EXPECT_EQ(read_file(path("f"), 999).error().reason(), "too_large");
  EXPECT_EQ(read_file("/dev/zero", 4096).error().reason(), "too_large");
  const auto missing = read_file(path("none"));
  EXPECT_EQ(missing.error().code(), Code::kNotFound);
  EXPECT_NE(missing.error().message().find(path("none")), std::string::npos);
  EXPECT_TRUE(read_file("/proc/self/status")->starts_with("Name:")) << "files that say size 0";
}

TEST_F(Files, AtomicWritesReplaceAndLeaveNothingBeside) {
  ASSERT_TRUE(write_file_atomic(kBlocking, path("f"), "old"));
  ASSERT_TRUE(write_file_atomic(kBlocking, path("f"), "new", 0600));
  EXPECT_EQ(*read_file(path("f")), "new");
  struct stat info{};
  ASSERT_EQ(::stat(path("f").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  ASSERT_TRUE(write_file_atomic(kBlocking, path("f"), "newest", 0600, Durability::kAtomic));
  EXPECT_EQ(*read_file(path("f")), "newest");
  EXPECT_EQ(list_dir(kBlocking, dir_->path())->size(), 1U);
  EXPECT_FALSE(write_file_atomic(kBlocking, path("none/f"), "x"));
}

TEST_F(Files, FullDisksAreTold) {
  const auto full = write_file(kBlocking, "/dev/full", "x");
  EXPECT_EQ(full.error().code(), Code::kResourceExhausted);
  EXPECT_EQ(full.error().reason(), "disk_full");
}

TEST_F(Files, RemovalStaysInsideTheTree) {
  ASSERT_TRUE(mkdirs(path("keep")));
  ASSERT_TRUE(write_file(kBlocking, path("keep/f"), "precious"));
  ASSERT_TRUE(mkdirs(path("tree/a/b")));
  ASSERT_EQ(::symlink(path("keep").c_str(), path("tree/a/link").c_str()), 0);
  ASSERT_TRUE(remove_tree(kBlocking, path("tree")));
  EXPECT_FALSE(exists(path("tree")));
  EXPECT_EQ(*read_file(path("keep/f")), "precious");
  EXPECT_TRUE(remove_tree(kBlocking, path("tree"))) << "absent is fine";
  ASSERT_EQ(::symlink(path("keep").c_str(), path("link").c_str()), 0);
  ASSERT_TRUE(remove_tree(kBlocking, path("link")));
  EXPECT_TRUE(exists(path("keep/f")));
}

TEST_F(Files, SparseCopiesKeepHolesAndBytes) {
  const auto fd = open_file(path("from"), O_RDWR | O_CREAT);
  ASSERT_EQ(::ftruncate(fd->get(), 64 << 20), 0);
  ASSERT_TRUE(pwrite_all(kBlocking, fd->get(), "middle", 30'000'001));
  ASSERT_TRUE(pwrite_all(kBlocking, fd->get(), "end", (64U << 20U) - 3));
  const timespec old[2] = {{1'000'000'000, 1}, {1'000'000'000, 234'567'890}};
  ASSERT_EQ(::futimens(fd->get(), old), 0);
  ASSERT_TRUE(copy_sparse(kBlocking, path("from"), path("to")));
  EXPECT_EQ(file_identity(path("to"))->modified_ns, 1'000'000'000'234'567'890);
  struct stat info{};
  ASSERT_EQ(::stat(path("to").c_str(), &info), 0);
  EXPECT_EQ(info.st_size, 64 << 20);
  EXPECT_LT(info.st_blocks * 512, 1 << 20);
  std::string bytes(6, '\0');
  ASSERT_TRUE(pread_all(kBlocking, open_file(path("to"), O_RDONLY)->get(), bytes.data(), 6, 30'000'001));
  EXPECT_EQ(bytes, "middle");
  EXPECT_FALSE(copy_sparse(kBlocking, path("from"), path("to"))) << "must not exist";
  EXPECT_EQ(pread_all(kBlocking, fd->get(), bytes.data(), 6, (64U << 20U) - 3).error().code(),
            Code::kDataLoss);
}

TEST_F(Files, LocksExcludeEachOther) {
  {
    const auto held = lock_file(path("lock"));
    ASSERT_TRUE(held);
    EXPECT_EQ(lock_file(path("lock")).error().code(), Code::kFailedPrecondition);
  }
  EXPECT_TRUE(lock_file(path("lock")));
}

TEST_F(Files, UsersAndGroupsComeFromTheDatabase) {
  ASSERT_TRUE(write_file(kBlocking, path("passwd"),
                         "root:x:0:0:root:/root:/bin/bash\n"
                         "broken line\n"
                         "nouid:x:no:0::/:/bin/sh\n"
                         "user:x:1000:1000:,,,:/home/user:/bin/zsh\n"));
  ASSERT_TRUE(
      write_file(kBlocking, path("group"), "root:x:0:\nuser:x:1000:\nsudo:x:27:other,user\nadm:x:4:userx\n"));
  const auto user = find_user("user", dir_->path());
  ASSERT_TRUE(user);
  EXPECT_EQ(user->uid, 1000U);
  EXPECT_EQ(user->home, "/home/user");
  EXPECT_EQ(user->shell, "/bin/zsh");
  EXPECT_EQ(groups_of(*user, dir_->path()), (std::vector<gid_t>{1000, 27}));
  EXPECT_EQ(find_user("nouid", dir_->path()).error().code(), Code::kUnauthenticated);
  EXPECT_EQ(find_user("", dir_->path()).error().message(), "invalid username: ''");
  EXPECT_EQ(user_name(1000, dir_->path()), "user");
  EXPECT_EQ(user_name(4242, dir_->path()), "4242");
  EXPECT_EQ(group_name(27, dir_->path()), "sudo");
  EXPECT_EQ(group_name(28, dir_->path()), "28");
}

}  // namespace
}  // namespace wrenn::sys
