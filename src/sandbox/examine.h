#pragma once

#include <memory>
#include <string>
#include <vector>

#include "async/blocking.h"
#include "sandbox/context.h"
#include "sandbox/recovery.h"

// What is left of sandboxes on disk and among processes. Looking changes nothing.
namespace wrenn::sandbox {

struct Leftover {
  Record record;
  Found found;
  std::shared_ptr<vmm::Vm> vm;  // when found.vm_reachable
};

// `held`: its VM, if the agent holds it already. kCanceled when cancelled, so that nothing is decided upon
// what could not be looked at.
Task<Leftover> examine(Context* context, Record record, std::shared_ptr<vmm::Vm> held);

// The folders of sandboxes_dir.
struct Inventory {
  struct Unreadable {
    std::string id;
    std::string problem;
  };
  std::vector<Record> records;
  std::vector<Unreadable> unreadable;
  std::vector<std::string> unborn;  // ids whose creation ended before the first journal entry

  bool knows(const std::string& id) const;
  // Those that need a published snapshot.
  std::vector<std::string> resumable() const;
  std::vector<int> slots() const;
};
Result<Inventory> take_inventory(async::Blocking blocking, const Context& context);

// As AGENT_DRIVER names it: "firecracker", "qemu-kvm" or "qemu-tcg".
std::string driver_name(const std::string& driver, const std::string& accel);
// kFailedPrecondition reason "other_driver" when one of the VMs, which is not dead, is another driver's.
Result<> check_drivers(const Context& context, const std::vector<Leftover>& leftovers);

}  // namespace wrenn::sandbox
