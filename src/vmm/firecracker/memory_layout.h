#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "vmm/vmm.h"

// Where Firecracker's guest memory lies in its process. Above the hole for devices below 4 GiB it goes on as
// a second part, mapped anywhere.
namespace wrenn::vmm::firecracker {

// From a page-fault backend's message: a JSON array of mappings. kInternal unless they make up `size` bytes.
Result<sys::ProcessMemory> parse_mappings(std::string_view text, pid_t pid, std::uint64_t size);

// The same text for a memory that was found otherwise.
std::string mappings_text(const sys::ProcessMemory& memory);

// Of a VM that maps its memory from a file, from the text of /proc/PID/maps; what its guest has given back is
// mapped over with nothing. kNotFound when no file is mapped.
Result<sys::ProcessMemory> find_mapped(std::string_view maps, pid_t pid, std::uint64_t size);

// Of a VM that was booted, whose memory is of nothing. `starts_at` tells whether guest address 0 is at an
// address of the process. kInternal unless there is exactly one place.
Result<sys::ProcessMemory> find_booted(std::string_view maps, pid_t pid, std::uint64_t size,
                                       const std::function<bool(std::uint64_t)>& starts_at);
// By the ACPI root pointer, which Firecracker writes for its guests and they leave alone.
bool has_root_pointer(async::Blocking blocking, pid_t pid, std::uint64_t address);

}  // namespace wrenn::vmm::firecracker
