#include "vmm/processor.h"

#include <cpuid.h>
#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <cstring>

namespace wrenn::vmm {
namespace {

// Leaves and bits as in Intel's manual, volume 2A, CPUID, and AMD's, volume 3, appendix E.
constexpr unsigned kFeatures = 1;
constexpr unsigned kMoreFeatures = 7;
constexpr unsigned kSavedState = 0xd;
constexpr unsigned kExtended = 0x8000'0000;
constexpr unsigned kExtendedFeatures = 0x8000'0001;
// Set by the host's own kernel: OSXSAVE, OSPKE.
constexpr unsigned kKernelsChoice1 = 1U << 27U;
constexpr unsigned kKernelsChoice7 = 1U << 4U;
// Of leaf 7's EDX: SRBDS_CTRL, MD_CLEAR, IBRS, STIBP, L1D_FLUSH, ARCH_CAPABILITIES, CORE_CAPABILITIES, SSBD.
constexpr unsigned kWorkarounds = 1U << 9U | 1U << 10U | 0x3fU << 26U;

// FNV-1a of 64 bits.
std::uint64_t digest_of(const std::array<unsigned, 10>& words) {
  std::uint64_t digest = 0xcbf2'9ce4'8422'2325;
  for (const unsigned word : words) {
    for (unsigned shift = 0; shift < 32; shift += 8) {
      digest = (digest ^ (word >> shift & 0xffU)) * 0x100'0000'01b3;
    }
  }
  return digest;
}

std::string vendor_of(const CpuidAnswer& first) {
  std::array<char, 12> text{};
  std::memcpy(text.data(), &first.ebx, 4);
  std::memcpy(text.data() + 4, &first.edx, 4);
  std::memcpy(text.data() + 8, &first.ecx, 4);
  return {text.data(), text.size()};
}

}  // namespace

std::string processor_identity(const Cpuid& cpuid) {
  const CpuidAnswer first = cpuid(0, 0);
  // What a processor answers for leaves that it has not is anything.
  const auto known = [&](unsigned leaf, unsigned subleaf) {
    return leaf <= (leaf < kExtended ? first.eax : cpuid(kExtended, 0).eax) ? cpuid(leaf, subleaf)
                                                                            : CpuidAnswer{};
  };
  const CpuidAnswer basic = known(kFeatures, 0);
  const CpuidAnswer more = known(kMoreFeatures, 0);
  const CpuidAnswer newest = more.eax >= 1 ? known(kMoreFeatures, 1) : CpuidAnswer{};
  const CpuidAnswer state = known(kSavedState, 0);
  const CpuidAnswer extended = known(kExtendedFeatures, 0);
  const unsigned base_family = basic.eax >> 8U & 0xfU;
  const unsigned family = base_family == 0xf ? base_family + (basic.eax >> 20U & 0xffU) : base_family;
  const unsigned high_model = base_family == 6 || base_family == 0xf ? basic.eax >> 16U & 0xfU : 0;
  const std::uint64_t digest =
      digest_of({basic.ecx & ~kKernelsChoice1, basic.edx, more.ebx, more.ecx & ~kKernelsChoice7,
                 more.edx & ~kWorkarounds, newest.eax, state.eax, state.edx, extended.ecx, extended.edx});
  return fmt::format("{} {}/{}/{} {:016x}", vendor_of(first), family,
                     high_model << 4U | (basic.eax >> 4U & 0xfU), basic.eax & 0xfU, digest);
}

std::string processor_identity() {
  return processor_identity([](unsigned leaf, unsigned subleaf) {
    CpuidAnswer answer;
    __cpuid_count(leaf, subleaf, answer.eax, answer.ebx, answer.ecx, answer.edx);
    return answer;
  });
}

}  // namespace wrenn::vmm
