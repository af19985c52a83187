#include <gtest/gtest.h>

#include "cli/doctor_data.h"
#include "cli/doctor_host.h"
#include "cli/doctor_vmm.h"
#include "sys/file.h"

namespace wrenn::cli {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

using model::Version;

constexpr const char* kBare = "vendor_id : GenuineIntel\nflags : fpu vmx\nmicrocode : 0x42\n";
constexpr const char* kVirtual = "vendor_id : AuthenticAMD\nflags : fpu hypervisor\nmicrocode : 0x1\n";
constexpr const char* kNested = "flags : fpu svm hypervisor\n";

bool never(const std::string& /*name*/) { return false; }

TEST(DoctorJudge, Machine) {
  EXPECT_EQ(judge_machine(kBare, std::nullopt).verdict, Verdict::kOk);
  EXPECT_EQ(judge_machine(kBare, "N\n").detail, "yes");
  EXPECT_NE(judge_machine(kBare, "1\n").detail, "yes");
  EXPECT_EQ(judge_machine(kVirtual, std::nullopt).verdict, Verdict::kWarn);
  EXPECT_NE(judge_machine(kVirtual, std::nullopt).fix, judge_machine(kNested, std::nullopt).fix);
  EXPECT_EQ(judge_machine(std::nullopt, std::nullopt).verdict, Verdict::kWarn);
  EXPECT_EQ(judge_machine("nonsense", std::nullopt).verdict, Verdict::kWarn);
  EXPECT_NE(kvm_device_fix(kBare).find("modprobe"), std::string::npos);
  EXPECT_NE(kvm_device_fix(kVirtual).find("nested"), std::string::npos);
  EXPECT_NE(kvm_device_fix("").find("firmware"), std::string::npos);
}

TEST(DoctorJudge, SwitchesOfTheKernel) {
  EXPECT_EQ(judge_smt("0\n").verdict, Verdict::kOk);
  for (const Text& text : {Text("1\n"), Text("x"), Text()}) {
    EXPECT_EQ(judge_smt(text).verdict, Verdict::kWarn);
  }
  for (const Text& text : {Text("0\n"), Text("2\n"), Text()}) {
    EXPECT_EQ(judge_ksm(text).verdict, Verdict::kOk);
  }
  EXPECT_EQ(judge_ksm("1\n").verdict, Verdict::kWarn);
  EXPECT_EQ(judge_forwarding("1\n").verdict, Verdict::kOk);
  EXPECT_EQ(judge_forwarding("0\n").verdict, Verdict::kWarn);
  EXPECT_EQ(judge_forwarding(std::nullopt).verdict, Verdict::kWarn);
}

TEST(DoctorJudge, Swap) {
  const std::string heading = "Filename Type Size Used Priority\n";
  EXPECT_EQ(judge_swap(heading, never).verdict, Verdict::kOk);
  EXPECT_EQ(judge_swap(std::nullopt, never).verdict, Verdict::kWarn);
  const std::string two = heading + "/dev/zram0 partition 1 0 5\n/dev/sda2 partition 1 0 -2\n";
  const Finding open = judge_swap(two, [](const std::string& name) { return name == "/dev/zram0"; });
  EXPECT_EQ(open.verdict, Verdict::kWarn);
  EXPECT_EQ(open.detail.find("zram"), std::string::npos);
  EXPECT_EQ(judge_swap(two, [](const std::string& /*name*/) { return true; }).verdict, Verdict::kOk);
}

TEST(DoctorJudge, Vulnerabilities) {
  const std::vector<Vulnerability> closed = {{"meltdown", "Mitigation: PTI"},
                                             {"mds", "Mitigation: Clear CPU buffers; SMT vulnerable"},
                                             {"l1tf", ""}};
  EXPECT_EQ(judge_mitigations(closed, "", false).verdict, Verdict::kOk);
  EXPECT_EQ(judge_microcode(closed, kBare).detail, "revision 0x42");
  EXPECT_EQ(judge_mitigations({}, "", false).verdict, Verdict::kWarn);
  EXPECT_EQ(judge_microcode({}, "").verdict, Verdict::kOk);

  const std::vector<Vulnerability> open = {{"itlb_multihit", "KVM: Vulnerable"},
                                           {"old_microcode", "Vulnerable"},
                                           {"spec_rstack_overflow", "Vulnerable: Safe RET, no microcode"}};
  const Finding kernel = judge_mitigations(open, "quiet mitigations=off", true);
  EXPECT_EQ(kernel.detail, "vulnerable: itlb_multihit");
  EXPECT_NE(kernel.fix.find("mitigations=off"), std::string::npos);
  EXPECT_EQ(judge_mitigations(open, "mitigations=offset", true).fix.find("mitigations=off"),
            std::string::npos);
  const Finding microcode = judge_microcode(open, kVirtual);
  EXPECT_EQ(microcode.verdict, Verdict::kWarn);
  EXPECT_NE(microcode.detail.find("old_microcode, spec_rstack_overflow"), std::string::npos);
  EXPECT_NE(microcode.fix.find("amd64-microcode"), std::string::npos);
  EXPECT_NE(judge_microcode(open, kBare).fix.find("intel-microcode"), std::string::npos);
}

TEST(DoctorJudge, KernelFeatures) {
  EXPECT_EQ(judge_kernel("6.7.0\n").verdict, Verdict::kOk);
  EXPECT_EQ(judge_kernel("6.18.44-with-a-long-name-of-its-own\n").detail,
            "Linux 6.18.44-with-a-long-name-of-its-own");
  EXPECT_EQ(judge_kernel("6.1.0-18-amd64\n").verdict, Verdict::kWarn);
  EXPECT_EQ(judge_kernel("six").verdict, Verdict::kWarn);
  EXPECT_EQ(judge_kernel(std::nullopt).verdict, Verdict::kWarn);
  EXPECT_EQ(judge_userfaultfd(true, std::nullopt).verdict, Verdict::kOk);
  EXPECT_EQ(judge_userfaultfd(false, "1\n").verdict, Verdict::kOk);
  EXPECT_EQ(judge_userfaultfd(false, "0\n").verdict, Verdict::kWarn);
  EXPECT_EQ(judge_userfaultfd(false, std::nullopt).verdict, Verdict::kWarn);
  EXPECT_EQ(judge_overlayfs("nodev\toverlay\n", "").verdict, Verdict::kOk);
  EXPECT_EQ(judge_overlayfs(std::nullopt, "").verdict, Verdict::kWarn);
  EXPECT_EQ(judge_cgroups("", "cpu memory pids").verdict, Verdict::kOk);
  EXPECT_EQ(judge_cgroups("c /x cgroup rw,cpu,memory,pids 0 0\n", "").verdict, Verdict::kWarn);
  EXPECT_EQ(judge_cgroups("", "").verdict, Verdict::kFail);
}

TEST(DoctorJudge, Sizes) {
  EXPECT_EQ(judge_memory("MemAvailable: 4194304 kB\n").verdict, Verdict::kOk);
  EXPECT_EQ(judge_memory("MemAvailable: 1048576 kB\n").verdict, Verdict::kWarn);
  EXPECT_EQ(judge_memory("MemAvailable: 1024 kB\n").verdict, Verdict::kFail);
  EXPECT_EQ(judge_memory(std::nullopt).verdict, Verdict::kWarn);
  EXPECT_EQ(judge_disk(6000, "/d").verdict, Verdict::kOk);
  EXPECT_EQ(judge_disk(2000, "/d").verdict, Verdict::kWarn);
  EXPECT_EQ(judge_disk(1000, "/d").verdict, Verdict::kFail);
}

TEST(DoctorJudge, FileSystems) {
  EXPECT_EQ(judge_links({{"a", 1, 2}, {"b", 1, 2}}).verdict, Verdict::kOk);
  EXPECT_EQ(judge_links({{"a", 1, 2}, {"b", 1, 3}}).verdict, Verdict::kWarn);
  EXPECT_EQ(judge_links({{"a", 1, 2}, {"b", 1, 2}, {"c", 2, 2}}).verdict, Verdict::kWarn);
  EXPECT_EQ(judge_links({}).verdict, Verdict::kOk);
  auto dir = sys::TempDir::make(kBlocking);
  ASSERT_TRUE(dir);
  const auto can = can_reflink(dir->path());
  EXPECT_TRUE(can) << can.error().to_string();
  EXPECT_TRUE(sys::list_dir(kBlocking, dir->path())->empty());
  EXPECT_FALSE(can_reflink(dir->path() + "/absent"));
}

TEST(DoctorJudge, Kvm) {
  EXPECT_EQ(judge_kvm("{\"accel\":\"kvm\"}", "/d").verdict, Verdict::kOk);
  const Finding emulated = judge_kvm("{\"accel\":\"tcg\"}", "/d");
  EXPECT_EQ(emulated.verdict, Verdict::kWarn);
  EXPECT_NE(emulated.fix.find("rm /d/cache/kvm-probe-*"), std::string::npos);
  EXPECT_EQ(judge_kvm("oops\nmore", "/d").detail, "not known: the agent said oops");
}

TEST(DoctorJudge, Qemu) {
  EXPECT_EQ(judge_qemu("QEMU emulator version 7.2.19 (Debian)").verdict, Verdict::kOk);
  EXPECT_EQ(judge_qemu("QEMU emulator version 6.9.9").verdict, Verdict::kFail);
  EXPECT_EQ(judge_qemu("").verdict, Verdict::kFail);
}

TEST(DoctorJudge, Firecracker) {
  const auto verdict = [](const char* path, const char* printed, bool kvm, const char* chosen) {
    return judge_firecracker(path, printed, kvm, chosen).verdict;
  };
  EXPECT_EQ(verdict("", "", false, ""), Verdict::kOk);
  EXPECT_EQ(verdict("", "", true, "qemu"), Verdict::kWarn);
  EXPECT_EQ(verdict("/f", "Firecracker v1.12.1\n", true, "firecracker"), Verdict::kOk);
  EXPECT_EQ(verdict("/f", "Firecracker v1.12.1\n", true, "qemu"), Verdict::kWarn);
  EXPECT_EQ(verdict("/f", "Firecracker v1.12.1\n", false, ""), Verdict::kOk);
  EXPECT_EQ(verdict("/f", "Firecracker v1.14.3\n", false, ""), Verdict::kFail);
  EXPECT_EQ(verdict("/f", "Firecracker v1.0.0\n", true, "qemu"), Verdict::kFail);
  EXPECT_EQ(verdict("/f", "Exec format error", true, "qemu"), Verdict::kFail);
}

TEST(DoctorJudge, Jailer) {
  EXPECT_EQ(judge_jailer("/j", "nothing", std::nullopt, "").verdict, Verdict::kFail);
  EXPECT_EQ(judge_jailer("/j", "Jailer v1.15.1", std::nullopt, "/tmp").verdict, Verdict::kOk);
  EXPECT_EQ(judge_jailer("/j", "Jailer v1.14.0", std::nullopt, "/tmp").verdict, Verdict::kFail);
  EXPECT_EQ(judge_jailer("/j", "Jailer v1.12.1", Version{1, 12, 1}, "").verdict, Verdict::kOk);
  EXPECT_EQ(judge_jailer("/j", "Jailer v1.12.1", Version{1, 14, 4}, "").verdict, Verdict::kWarn);
  const Finding open = judge_jailer("/j", "Jailer v1.12.1", Version{1, 12, 1}, "/srv/w");
  EXPECT_EQ(open.verdict, Verdict::kFail);
  EXPECT_NE(open.fix.find("chmod go-w /srv/w"), std::string::npos);
  EXPECT_EQ(judge_jailer("", "", std::nullopt, "").verdict, Verdict::kWarn);
}

TEST(DoctorJudge, FoldersOpenToOthers) {
  EXPECT_EQ(open_to_others({{"", 0, 040755}, {"/a", 0, 040700}}), "");
  EXPECT_EQ(open_to_others({{"/a", 0, 040755}, {"/a/b", 7, 040755}, {"/a/b/c", 0, 040755}}), "/a/b");
  EXPECT_EQ(open_to_others({{"/a", 0, 040775}}), "/a");
  EXPECT_EQ(open_to_others({{"/tmp", 0, 041777}, {"/tmp/w", 0, 040755}}), "");
  EXPECT_EQ(open_to_others({{"/tmp", 0, 041777}}), "/tmp");
  EXPECT_EQ(open_to_others({}), "");
}

}  // namespace
}  // namespace wrenn::cli
