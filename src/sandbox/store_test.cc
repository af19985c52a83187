#include "sandbox/store.h"

#include <gtest/gtest.h>

#include "sys/file.h"

namespace wrenn::sandbox {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

class Store : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(root_);
    sandboxes_ = root_->path() + "/sandboxes";
    snapshots_ = root_->path() + "/snapshots";
    for (const std::string& dir : {sandboxes_, snapshots_}) ASSERT_TRUE(sys::mkdirs(dir));
  }
  Result<std::string> check(const std::vector<std::string>& resumable = {}) {
    return check_store(kBlocking, sandboxes_, snapshots_, resumable);
  }
  // Puts an empty folder in the place of `dir`, as when its disk is not mounted.
  static void unmount(const std::string& dir) {
    ASSERT_TRUE(sys::rename_file(dir, dir + ".away"));
    ASSERT_TRUE(sys::mkdirs(dir));
  }
  static void mount(const std::string& dir) {
    ASSERT_TRUE(sys::remove_tree(kBlocking, dir));
    ASSERT_TRUE(sys::rename_file(dir + ".away", dir));
  }
  void add_snapshot(const std::string& id) { ASSERT_TRUE(sys::mkdirs(snapshots_ + "/" + id)); }
  void expect_refused(const Result<std::string>& answer, const std::string& names) {
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().reason(), "wrong_store");
    EXPECT_NE(answer.error().message().find(names), std::string::npos) << answer.error().message();
  }

  Result<sys::TempDir> root_ = sys::TempDir::make(kBlocking);
  std::string sandboxes_;
  std::string snapshots_;
};

TEST_F(Store, TheFirstStartMarksBothFoldersAndTheNextFindsThem) {
  const auto first = check();
  ASSERT_TRUE(first) << first.error().to_string();
  EXPECT_EQ(*check({"sb-a"}), *first);
  EXPECT_TRUE(confirm_store(kBlocking, snapshots_, *first));
  EXPECT_FALSE(confirm_store(kBlocking, snapshots_, "another"));
}

TEST_F(Store, SnapshotsThatAreNotMountedAreMissed) {
  ASSERT_TRUE(check());
  unmount(snapshots_);
  expect_refused(check({"sb-a"}), "AGENT_SNAPSHOTS_PATH");
  mount(snapshots_);
  EXPECT_TRUE(check({"sb-a"}));
}

TEST_F(Store, SandboxesThatAreNotMountedAreMissedAsLongAsThereAreSnapshots) {
  ASSERT_TRUE(check());
  add_snapshot("sb-a");
  unmount(sandboxes_);
  expect_refused(check(), "AGENT_SANDBOXES_PATH");
}

TEST_F(Store, FoldersOfTwoStoresDoNotGoTogether) {
  ASSERT_TRUE(check());
  unmount(snapshots_);
  ASSERT_TRUE(sys::write_file(kBlocking, snapshots_ + "/.wrenn-store", "store-other\n"));
  expect_refused(check(), "different stores");
}

TEST_F(Store, AnEarlierAgentsFoldersAreMarkedIfItsSnapshotsAreThere) {
  expect_refused(check({"sb-a", "sb-b"}), "AGENT_SNAPSHOTS_PATH");
  add_snapshot("sb-b");
  EXPECT_TRUE(check({"sb-a", "sb-b"}));
}

}  // namespace
}  // namespace wrenn::sandbox
