#pragma once

#include <functional>
#include <string>

namespace wrenn::vmm {

// What the CPUID instruction answers for a leaf and its subleaf.
struct CpuidAnswer {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
};
using Cpuid = std::function<CpuidAnswer(unsigned leaf, unsigned subleaf)>;

// Names what of a processor a guest under KVM uses, and a snapshot of it therefore needs again:
// "AuthenticAMD 23/1/2 1f2e3d4c5b6a7988", that is vendor, family, model, stepping, and a digest of the
// instructions that programs may use. Bits by which only a kernel works around flaws are left out, so that
// new microcode does not cost anybody a snapshot.
std::string processor_identity(const Cpuid& cpuid);
// This host's.
std::string processor_identity();

}  // namespace wrenn::vmm
