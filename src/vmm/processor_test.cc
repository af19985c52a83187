#include "vmm/processor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sys/file.h"
#include "vmm/qemu/qemu_driver.h"

namespace wrenn::vmm {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

// A Zen 1 of AMD's.
struct Processor {
  CpuidAnswer basic{.eax = 0x0080'0f12, .ebx = 0, .ecx = 0x7ed8'320b, .edx = 0x178b'fbff};
  CpuidAnswer more{.eax = 0, .ebx = 0x209c'01a9, .ecx = 0, .edx = 0};
  std::string identity() const {
    return processor_identity([this](unsigned leaf, unsigned) -> CpuidAnswer {
      if (leaf == 0) return {.eax = 0xd, .ebx = 0x6874'7541, .ecx = 0x444d'4163, .edx = 0x6974'6e65};
      if (leaf == 1) return basic;
      if (leaf == 7) return more;
      // As processors do: what the highest leaf has.
      return {.eax = 7, .ebx = 7, .ecx = 7, .edx = 7};
    });
  }
};

TEST(Processor, IsNamedByWhatGuestsMayUse) {
  const Processor first;
  EXPECT_THAT(first.identity(), testing::StartsWith("AuthenticAMD 23/1/2 "));
  Processor without_avx2;
  without_avx2.more.ebx &= ~(1U << 5U);
  EXPECT_NE(without_avx2.identity(), first.identity());
  Processor next_stepping;
  ++next_stepping.basic.eax;
  EXPECT_NE(next_stepping.identity(), first.identity());
  Processor new_microcode;
  new_microcode.more.edx |= 1U << 31U | 1U << 10U;  // SSBD, MD_CLEAR
  EXPECT_EQ(new_microcode.identity(), first.identity());
  Processor other_place;
  other_place.basic.ebx = 0x0300'0800;  // its APIC's number
  EXPECT_EQ(other_place.identity(), first.identity());
}

TEST(Processor, IsTheKernelsToo) {
  const auto cpuinfo = sys::read_file("/proc/cpuinfo");
  ASSERT_TRUE(cpuinfo);
  const auto value = [&](const std::string& name) {
    const auto at = cpuinfo->find("\n" + name + "\t");
    const auto from = cpuinfo->find(": ", at) + 2;
    return at == std::string::npos ? "absent" : cpuinfo->substr(from, cpuinfo->find('\n', from) - from);
  };
  EXPECT_THAT(processor_identity(), testing::StartsWith(value("vendor_id") + " " + value("cpu family") + "/" +
                                                        value("model") + "/" + value("stepping") + " "));
}

TEST(Processor, BindsSnapshotsOfKvmGuestsOnly) {
  const auto folder = sys::TempDir::make(kBlocking);
  ASSERT_TRUE(folder);
  async::Loop loop(1);
  const auto model = [&](const char* accel) {
    const auto made =
        qemu::QemuDriver::make(kBlocking, loop.executor(), &loop.pool(), accel, "7.2.22", folder->path());
    return made ? (*made)->base_shape().cpu_model : made.error().message();
  };
  EXPECT_THAT(model("kvm"), testing::EndsWith(processor_identity()));
  // What emulation offers is the same everywhere.
  EXPECT_THAT(model("tcg"), testing::Not(testing::HasSubstr(processor_identity())));
}

}  // namespace
}  // namespace wrenn::vmm
