#pragma once

#include <optional>

#include "base/result.h"
#include "vmm/vmm.h"

namespace wrenn::vmm {

// That a VM's process is gone for good: the kernel said so of its pidfd, or its number is free or another
// process's. Nothing else makes one, so who asks for a DeathProof never takes silence for death.
class DeathProof {
 public:
  // Of a VM that is held; nullopt while its process lives.
  static std::optional<DeathProof> of(const Vm& vm);
  // Of a process that an earlier agent started; nullopt while it lives. An error when that cannot be told.
  static Result<std::optional<DeathProof>> of(const ProcessIdentity& process);

 private:
  DeathProof() = default;
};

}  // namespace wrenn::vmm
