#pragma once

#include "cli/doctor.h"
#include "cli/doctor_parse.h"
#include "model/version.h"

// The doctor's look at what runs VMs: KVM, QEMU, Firecracker and its jailer.
namespace wrenn::cli {

// A folder on the way to where jails are made.
struct FolderOwner {
  std::string path;
  std::uint32_t uid = 0;
  std::uint32_t mode = 0;
};
// The first folder of the way, from the root on, in which somebody but root could put other things; empty if
// none. A sticky folder such as /tmp may be on the way but not its end.
std::string open_to_others(const std::vector<FolderOwner>& way);

// What stands in the way of KVM when there is no /dev/kvm.
std::string kvm_device_fix(std::string_view cpuinfo);
// `printed` is the output of `wrenn-agent probe` on a machine with /dev/kvm; `dir` is Wrenn's.
Finding judge_kvm(std::string_view printed, const std::string& dir);
// `printed` is the output of --version.
Finding judge_qemu(std::string_view printed);
// `path` is empty if there is none; `chosen` is the driver that the agent chose, asked only if KVM works.
Finding judge_firecracker(const std::string& path, std::string_view printed, bool kvm_works,
                          std::string_view chosen);
// `open` is what open_to_others said.
Finding judge_jailer(const std::string& path, std::string_view printed,
                     const std::optional<model::Version>& firecracker, const std::string& open);

// Blocking; boots a guest if needed.
std::vector<Finding> check_monitors(const Places& places);

}  // namespace wrenn::cli
