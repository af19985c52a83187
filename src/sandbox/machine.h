#pragma once

#include <memory>
#include <string>

#include "sandbox/context.h"
#include "sandbox/limits.h"
#include "snapshot/snapshot.h"

// A VM together with what the host lends it: network slot and cgroup.
namespace wrenn::sandbox {

struct Machine {
  std::shared_ptr<vmm::Vm> vm;
  host::Slot slot;
};

struct LaunchPlan {
  std::string id;
  int vcpus = 1;
  int memory_mib = 512;
  std::string memory_file;   // mapped privately; empty when the guest boots
  std::string snapshot_dir;  // what is loaded: a template's snapshot or a sandbox's; empty: the guest boots
};

// The shape of a VM of this size on this host.
vmm::Shape shape_of(const Context& context, int vcpus, int memory_mib);
// The description of the VM `plan` in `slot`; its files are at Paths.
vmm::VmSpec spec_of(const Context& context, const LaunchPlan& plan, const host::Slot& slot);

// A place among the guests that start at this moment, to be held until the guest answers: a crowd waits here,
// where nothing of it is begun, and not inside starts that run out of their time together. kCanceled;
// kResourceExhausted with reason "host_busy" after `limit`.
Task<async::Semaphore::Guard> take_start(Context* context, Milliseconds limit = kStartQueueLimit);

// Makes the cgroup and starts the VM (booting, or loaded and paused). Paths' files exist. On failure nothing
// is left but the slot, which stays the caller's.
Task<std::shared_ptr<vmm::Vm>> launch(Context* context, LaunchPlan plan, host::Slot slot);
// Kills the VM if there is one, forgets connections to it, and gives slot and cgroup back; nobody uses its
// address any more. Goes on after errors; answers the first.
Task<> dismantle(Context* context, std::string id, Machine machine);

// What a snapshot must say to be loadable here, besides kind, id and generation.
snapshot::Manifest manifest_of(const Context& context, int vcpus, int memory_mib,
                               const std::string& base_image);
// kFailedPrecondition reason "snapshot_incompatible" naming what differs.
Result<> check_loadable(const Context& context, const snapshot::Manifest& manifest);

}  // namespace wrenn::sandbox
