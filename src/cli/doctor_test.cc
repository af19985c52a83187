#include "cli/doctor.h"

#include <gtest/gtest.h>

#include "cli/up.h"
#include "sys/file.h"

namespace wrenn::cli {
namespace {

TEST(Doctor, QemuVersions) {
  EXPECT_EQ(parse_qemu_version("QEMU emulator version 7.2.19 (Debian 1:7.2)\nCopyright"), (Version{7, 2}));
  EXPECT_EQ(parse_qemu_version("QEMU emulator version 10.0.0"), (Version{10, 0}));
  EXPECT_EQ(parse_qemu_version("command not found"), Version{});
  EXPECT_LT((Version{6, 9}), (Version{7, 2}));
}

TEST(Doctor, Meminfo) {
  const char* text = "MemTotal:       2048000 kB\nMemAvailable:    1048576 kB\n";
  EXPECT_EQ(meminfo_mib(text, "MemAvailable"), 1024U);
  EXPECT_EQ(meminfo_mib(text, "Available"), std::nullopt);
  EXPECT_EQ(meminfo_mib(text, "SwapFree"), std::nullopt);
}

TEST(Doctor, Cgroups) {
  EXPECT_TRUE(has_cgroups("", "cpuset cpu io memory pids\n"));
  EXPECT_FALSE(has_cgroups("", "cpuset io memory pids"));
  const std::string v1 =
      "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0\n"
      "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n";
  EXPECT_FALSE(has_cgroups(v1, ""));
  EXPECT_TRUE(has_cgroups(v1 + "cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n", ""));
  EXPECT_FALSE(
      has_cgroups("cgroup /x cgroup rw,cpuset,cpuacct 0 0\ncgroup /y cgroup rw,memory,pids 0 0\n", ""));
}

TEST(Doctor, EveryProblemHasAFix) {
  for (const auto& finding : check_host("/nonexistent/wrenn", "/nonexistent")) {
    EXPECT_EQ(finding.fix.empty(), finding.verdict == Verdict::kOk) << finding.name;
    if (finding.name == "guest image") {
      EXPECT_EQ(finding.verdict, Verdict::kFail);
    }
  }
}

TEST(UpState, RoundTrip) {
  auto dir = sys::TempDir::make();
  ASSERT_TRUE(dir);
  EXPECT_EQ(load_state(dir->path()).error().code(), Code::kNotFound);
  ASSERT_TRUE(save_state(dir->path(), {{"wrenn", 12, 345}, "http://localhost:1", {{"wrenn-cp", 13, 346}}}));
  const auto state = load_state(dir->path());
  ASSERT_TRUE(state) << state.error().to_string();
  EXPECT_EQ(state->self.pid, 12);
  EXPECT_EQ(state->url, "http://localhost:1");
  ASSERT_EQ(state->children.size(), 1U);
  EXPECT_EQ(state->children[0].start_time, 346U);
  ASSERT_TRUE(sys::write_file(state_path(dir->path()), "{\"self\":1}"));
  EXPECT_EQ(load_state(dir->path()).error().code(), Code::kDataLoss);
}

TEST(UpState, LocalUrls) {
  EXPECT_EQ(*local_url(":8000"), "http://localhost:8000");
  EXPECT_EQ(*local_url("127.0.0.1:9"), "http://localhost:9");
  EXPECT_EQ(*local_url("10.1.2.3:80"), "http://10.1.2.3:80");
  EXPECT_FALSE(local_url("unix:/x"));
}

}  // namespace
}  // namespace wrenn::cli
