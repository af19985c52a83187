#pragma once

#include <string>
#include <utility>

#include "vmm/death.h"

namespace wrenn::sandbox {

// Why a sandbox may be given up with all it has. Sandbox::discard takes one, so nothing is removed because of
// a time-out, a cancelled call, or a file that cannot be read.
class Grounds {
 public:
  static Grounds owner_asked() { return Grounds("it was being destroyed"); }
  // Its creation or template build never came to an end, so nobody was told that it exists.
  static Grounds unfinished(std::string why) { return Grounds(std::move(why)); }
  // Its state was in a VM that is dead, and there is no snapshot that holds it.
  static Grounds vm_ended(const vmm::DeathProof& /*proof*/, std::string why) {
    return Grounds(std::move(why));
  }

  const std::string& why() const { return why_; }

 private:
  explicit Grounds(std::string why) : why_(std::move(why)) {}
  std::string why_;
};

}  // namespace wrenn::sandbox
