#include "cli/doctor_parse.h"

#include <gtest/gtest.h>

namespace wrenn::cli {
namespace {

TEST(DoctorParse, Meminfo) {
  const char* text = "MemTotal:       2048000 kB\nMemAvailable:    1048576 kB\nHalf\nOdd: x kB\n";
  EXPECT_EQ(meminfo_mib(text, "MemAvailable"), 1024U);
  EXPECT_EQ(meminfo_mib(text, "Available"), std::nullopt);
  EXPECT_EQ(meminfo_mib(text, "SwapFree"), std::nullopt);
  EXPECT_EQ(meminfo_mib(text, "Odd"), std::nullopt);
  EXPECT_EQ(meminfo_mib("MemFree:", "MemFree"), std::nullopt);
}

TEST(DoctorParse, Cpuinfo) {
  const char* text =
      "processor\t: 0\nflags\t\t: fpu svm\nbugs\t:\n\nprocessor\t: 1\nflags\t\t: other\nodd line\n";
  EXPECT_EQ(cpuinfo_field(text, "flags"), "fpu svm");
  EXPECT_EQ(cpuinfo_field(text, "bugs"), "");
  EXPECT_EQ(cpuinfo_field(text, "odd line"), std::nullopt);
  EXPECT_EQ(cpuinfo_field("", "flags"), std::nullopt);
}

TEST(DoctorParse, Words) {
  EXPECT_TRUE(has_word("a\tbc  d\n", "bc"));
  EXPECT_TRUE(has_word("svm", "svm"));
  EXPECT_FALSE(has_word("svm_lock vmx2", "svm"));
  EXPECT_FALSE(has_word(" \n", ""));
}

TEST(DoctorParse, Swaps) {
  const char* const kHeading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
  EXPECT_EQ(swap_names(kHeading), std::vector<std::string>());
  EXPECT_EQ(
      swap_names(std::string(kHeading) + "/dev/sda2  partition\t1\t0\t-2\n\n/swap\\040file file 1 0 -3"),
      (std::vector<std::string>{"/dev/sda2", "/swap\\040file"}));
  EXPECT_EQ(swap_names(""), std::nullopt);
  EXPECT_EQ(swap_names("/dev/sda2 partition 1 0 -2\n"), std::nullopt);
}

TEST(DoctorParse, Cgroups) {
  EXPECT_EQ(cgroup_version("", "cpuset cpu io memory pids\n"), 2);
  EXPECT_EQ(cgroup_version("", "cpuset io memory pids"), 0);
  const std::string v1 =
      "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0\n"
      "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n";
  const std::string pids = "cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n";
  EXPECT_EQ(cgroup_version(v1, ""), 0);
  EXPECT_EQ(cgroup_version(v1 + pids, ""), 1);
  EXPECT_EQ(
      cgroup_version("cgroup /x cgroup rw,cpuset,cpuacct 0 0\ncgroup /y cgroup rw,memory,pids 0 0\n", ""), 0);
  EXPECT_EQ(cgroup_version("cgroup /x cgroup", ""), 0);
  EXPECT_EQ(cgroup2_mount(v1 + "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"), "/sys/fs/cgroup/unified");
  EXPECT_EQ(cgroup2_mount(v1), "");
  EXPECT_EQ(cgroup2_mount("a cgroup2"), "");
}

TEST(DoctorParse, Filesystems) {
  EXPECT_TRUE(has_filesystem("nodev\tsysfs\nnodev\toverlay\n\text4\n", "", "overlay"));
  EXPECT_TRUE(has_filesystem("nodev\tsysfs\n", "kernel/fs/overlayfs/overlay.ko.xz:\n", "overlay"));
  EXPECT_FALSE(has_filesystem("nodev\toverlayish\n", "kernel/fs/nonoverlay.ko:\n", "overlay"));
  EXPECT_FALSE(has_filesystem("", "", "overlay"));
}

TEST(DoctorParse, Probe) {
  const auto probed = parse_probe("{\"driver\":\"firecracker\",\"accel\":\"kvm\",\"version\":\"1.12.1\"}\n");
  ASSERT_TRUE(probed);
  EXPECT_EQ(probed->driver, "firecracker");
  EXPECT_EQ(probed->accel, "kvm");
  for (const char* bad :
       {"", "kvm", "[]", "{}", "{\"accel\":1}", "{\"accel\":\"kvm\"", "{\"driver\":\"qemu\"}"}) {
    EXPECT_FALSE(parse_probe(bad)) << bad;
  }
}

}  // namespace
}  // namespace wrenn::cli
