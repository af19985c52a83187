#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// What the doctor reads, taken apart: text of /proc and /sys, output of programs. Nothing here does I/O.
namespace wrenn::cli {

// The value in MiB of a line of /proc/meminfo.
std::optional<std::uint64_t> meminfo_mib(std::string_view meminfo, std::string_view name);

// The value of the first line "name : value" of /proc/cpuinfo.
std::optional<std::string> cpuinfo_field(std::string_view cpuinfo, std::string_view name);

// True when `word` is one of the words of `list`, which spaces, tabs or line ends separate.
bool has_word(std::string_view list, std::string_view word);

// The places of /proc/swaps, such as "/dev/sda2"; nullopt for a text that is not it.
std::optional<std::vector<std::string>> swap_names(std::string_view swaps);

// Where cgroup v2 is mounted by the text of /proc/self/mounts; empty if it is not.
std::string cgroup2_mount(std::string_view mounts);
// Which cgroups offer cpu, memory and pids: 2, else 1, else 0. `controllers` is v2's cgroup.controllers.
int cgroup_version(std::string_view mounts, std::string_view controllers);

// True when a kernel has the file system: by /proc/filesystems, or as a module by modules.dep or
// modules.builtin.
bool has_filesystem(std::string_view filesystems, std::string_view modules, std::string_view name);

// What `wrenn-agent probe` prints.
struct Probed {
  std::string driver;
  std::string accel;
};
std::optional<Probed> parse_probe(std::string_view text);

}  // namespace wrenn::cli
