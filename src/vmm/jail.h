#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "sys/process.h"
#include "vmm/vmm.h"

// The folder that becomes the file system of a VM's monitor: hard links to what this VM needs and nothing
// else.
namespace wrenn::vmm {

// Where the files of a VmSpec are inside its jail.
inline constexpr const char* kJailKernel = "/kernel";
inline constexpr const char* kJailInitramfs = "/initramfs";
inline constexpr const char* kJailBase = "/base";
inline constexpr const char* kJailOverlay = "/overlay";
inline constexpr const char* kJailMemory = "/memory";
inline constexpr const char* kJailState = "/state";        // read by a load
inline constexpr const char* kJailSaved = "/saved-state";  // written by a save
inline constexpr const char* kJailConsole = "/console";

// Makes `root` anew with `spec`'s files: disks; to boot, kernel and initramfs; memory and console where the
// spec has them. Only overlay and console belong to the VM's user; the others are readable, whatever folder
// they came from keeps everybody else out.
Result<> make_jail(async::Blocking blocking, const std::string& root, const VmSpec& spec, Start how);
// The size that no file may exceed which the monitor writes: disk, console, and at a save its memory.
Result<std::uint64_t> most_file_bytes(const VmSpec& spec);
// One more file to read: linked, or copied from another file system.
Result<> lend_file(async::Blocking blocking, const std::string& source, const std::string& target);
// `spec` as the monitor sees it.
VmSpec spec_in_jail(const VmSpec& spec);
// Gives a file of the jail to the VM's user.
Result<> own(const std::string& path, const VmSpec& spec);
// A character device below `root` for the VM's user.
Result<> add_device(const std::string& root, const VmSpec& spec, const std::string& name, unsigned major,
                    unsigned minor);
inline constexpr unsigned kMiscMajor = 10;  // Linux's admin-guide/devices.txt
inline constexpr unsigned kTunMinor = 200;
inline constexpr unsigned kMemoryMajor = 1;
inline constexpr unsigned kNullMinor = 3;
inline constexpr unsigned kKvmMinor = 232;

// An empty file for the VM's user to write, and what it wrote moved to `path`, root's.
Result<> add_output(async::Blocking blocking, const std::string& root, const VmSpec& spec, const char* name);
Result<> take_output(async::Blocking blocking, const std::string& root, const char* name,
                     const std::string& path);

}  // namespace wrenn::vmm
