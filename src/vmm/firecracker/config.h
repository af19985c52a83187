#pragma once

#include <boost/json/object.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/version.h"
#include "vmm/vmm.h"

namespace wrenn::vmm::firecracker {

// The machine as a configuration file; `spec`'s paths are the jail's.
boost::json::object machine_config(const VmSpec& spec);
// The PATCHes, target and body, that put `spec.limits` in force on a loaded VM, whose snapshot has its own.
std::vector<std::pair<std::string, boost::json::object>> limit_requests(const VmSpec& spec);
// Text of a configuration that boots `kernel` without disks to the probe of `initramfs`.
std::string probe_config(const std::string& kernel, const std::string& initramfs);
// Kernel arguments added to VmSpec::kernel_args: what Firecracker's machine lacks need not be searched for.
std::string kernel_args(const VmSpec& spec);
// Body of PUT /snapshot/load for files in the jail; `backend`: "File" or "Uffd", at `path`.
boost::json::object load_request(const model::Version& version, const char* backend, const char* path);
// Body of PUT /snapshot/create.
boost::json::object save_request(const char* state, const char* memory);
// argv of the jailer.
std::vector<std::string> jailer_command(const std::string& jailer, const std::string& firecracker,
                                        const VmSpec& spec, bool configured);
// A name that the jailer takes: letters, digits and '-'.
std::string jail_id(const std::string& id);
// The folder a VM's Firecracker sees as `/`, and its control socket, on the host.
std::string jail_path(const VmSpec& spec);
std::string socket_path(const VmSpec& spec);
inline constexpr const char* kJailConfig = "/config.json";
inline constexpr const char* kJailMetrics = "/metrics";  // a FIFO

}  // namespace wrenn::vmm::firecracker
