#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <sstream>
#include <thread>

#include "base/bytes.h"
#include "host/host.h"
#include "host/limits.h"
#include "sys/file.h"

namespace wrenn::host {
namespace {

constexpr Milliseconds kPoll{5};
constexpr std::uint64_t kNsPerUs = 1000;

struct Hierarchy {
  std::string mount_point;
  std::string type;     // "cgroup" or "cgroup2"
  std::string options;  // superblock options: v1's controllers
};

// Fields of /proc/self/mountinfo: 5th the mount point; after " - " type, source, superblock options
// (proc(5)).
std::vector<Hierarchy> hierarchies() {
  std::vector<Hierarchy> found;
  std::istringstream lines(sys::read_file("/proc/self/mountinfo").value_or(""));
  for (std::string line; std::getline(lines, line);) {
    const std::size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream left(line.substr(0, dash));
    std::istringstream right(line.substr(dash + 3));
    std::string skip;
    Hierarchy h;
    left >> skip >> skip >> skip >> skip >> h.mount_point;
    right >> h.type >> skip >> h.options;
    if (h.type.starts_with("cgroup")) found.push_back(h);
  }
  return found;
}

bool has_controller(const std::string& list, std::string_view name) {
  std::istringstream words(list);
  for (std::string word; std::getline(words, word, ',');) {
    if (word == name) return true;
  }
  return false;
}

std::uint64_t number_in(const std::string& path) {
  const std::string text = sys::read_file(path).value_or("");
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

Result<> make_dir(const std::string& path) {
  if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) return fail_errno("mkdir " + path);
  return {};
}

// True when nothing lives in the group any more.
bool kill_all(const std::string& dir) {
  std::istringstream pids(sys::read_file(dir + "/cgroup.procs").value_or(""));
  bool any = false;
  for (pid_t pid = 0; pids >> pid;) {
    any = true;
    ::kill(pid, SIGKILL);
  }
  return !any;
}

Result<> remove_group(async::Blocking /*blocking*/, const std::string& dir) {
  const auto until = std::chrono::steady_clock::now() + kCgroupEmptyLimit;
  while (true) {
    const bool empty = kill_all(dir);
    if (::rmdir(dir.c_str()) == 0 || errno == ENOENT) return {};
    if (errno != EBUSY) return fail_errno("rmdir " + dir);
    if (std::chrono::steady_clock::now() > until) {
      return fail(Code::kDeadlineExceeded, fmt::format("{} is still {}", dir, empty ? "busy" : "in use"));
    }
    std::this_thread::sleep_for(kPoll);
  }
}

}  // namespace

// roots_: v2 has one entry; v1 has cpu, memory, pids and, where it is mounted apart from cpu, cpuacct.
Result<CgroupManager> CgroupManager::detect(async::Blocking /*blocking*/, std::string parent) {
  CgroupManager manager;
  std::string unified;
  std::string cpu, memory, pids, cpuacct;
  for (const Hierarchy& h : hierarchies()) {
    if (h.type == "cgroup2") unified = h.mount_point;
    if (h.type == "cgroup" && has_controller(h.options, "cpu")) cpu = h.mount_point;
    if (h.type == "cgroup" && has_controller(h.options, "memory")) memory = h.mount_point;
    if (h.type == "cgroup" && has_controller(h.options, "pids")) pids = h.mount_point;
    if (h.type == "cgroup" && has_controller(h.options, "cpuacct")) cpuacct = h.mount_point;
  }
  const std::string offered =
      unified.empty() ? "" : sys::read_file(unified + "/cgroup.controllers").value_or("");
  if (offered.find("memory") != std::string::npos && offered.find("cpu") != std::string::npos) {
    manager.unified_ = true;
    manager.roots_ = {unified + "/" + parent};
    TRY(make_dir(manager.roots_[0]));
    TRY(sys::write_existing(unified + "/cgroup.subtree_control", "+cpu +memory +pids"));
    TRY(sys::write_existing(manager.roots_[0] + "/cgroup.subtree_control", "+cpu +memory +pids"));
    return manager;
  }
  if (cpu.empty() || memory.empty() || pids.empty()) {
    return fail(Error(Code::kFailedPrecondition,
                      "no usable cgroups: mount cgroup2 on /sys/fs/cgroup, or v1 with cpu, memory and pids")
                    .with_reason("no_cgroups"));
  }
  for (const std::string& mount : {cpu, memory, pids}) {
    manager.roots_.push_back(mount + "/" + parent);
    TRY(make_dir(manager.roots_.back()));
  }
  if (!cpuacct.empty() && cpuacct != cpu) {
    manager.roots_.push_back(cpuacct + "/" + parent);
    TRY(make_dir(manager.roots_.back()));
  }
  return manager;
}

std::string CgroupManager::version() const { return unified_ ? "v2" : "v1"; }

Result<> CgroupManager::create(async::Blocking /*blocking*/, const std::string& id,
                               const CgroupLimits& limits) {
  if (limits.vcpus <= 0 || limits.memory_bytes == 0 || limits.max_pids == 0)
    return fail(Code::kInvalidArgument, "a VM's cgroup needs all of its limits");
  for (const std::string& root : roots_) TRY(make_dir(root + "/" + id));
  const std::int64_t quota = std::int64_t{limits.vcpus} * kCpuPeriodUs;
  if (unified_) {
    const std::string dir = roots_[0] + "/" + id;
    TRY(sys::write_existing(dir + "/cpu.max", fmt::format("{} {}", quota, kCpuPeriodUs)));
    TRY(sys::write_existing(dir + "/memory.max", std::to_string(limits.memory_bytes)));
    return sys::write_existing(dir + "/pids.max", std::to_string(limits.max_pids));
  }
  TRY(sys::write_existing(roots_[0] + "/" + id + "/cpu.cfs_period_us", std::to_string(kCpuPeriodUs)));
  TRY(sys::write_existing(roots_[0] + "/" + id + "/cpu.cfs_quota_us", std::to_string(quota)));
  TRY(sys::write_existing(roots_[1] + "/" + id + "/memory.limit_in_bytes",
                          std::to_string(limits.memory_bytes)));
  return sys::write_existing(roots_[2] + "/" + id + "/pids.max", std::to_string(limits.max_pids));
}

std::vector<std::string> CgroupManager::procs_files(const std::string& id) const {
  std::vector<std::string> files;
  files.reserve(roots_.size());
  for (const std::string& root : roots_) files.push_back(root + "/" + id + "/cgroup.procs");
  return files;
}

Result<> CgroupManager::remove(async::Blocking blocking, const std::string& id) {
  for (const std::string& root : roots_) TRY(remove_group(blocking, root + "/" + id));
  return {};
}

Result<> CgroupManager::remove_empty(async::Blocking /*blocking*/, const std::string& id) {
  for (const std::string& root : roots_) {
    const std::string dir = root + "/" + id;
    if (::rmdir(dir.c_str()) != 0 && errno != ENOENT) return fail_errno("rmdir " + dir);
  }
  return {};
}

Result<bool> CgroupManager::populated(async::Blocking /*blocking*/, const std::string& id) const {
  for (const std::string& root : roots_) {
    const auto pids = sys::read_file(root + "/" + id + "/cgroup.procs");
    if (!pids && pids.error().sys_errno() != ENOENT && pids.error().sys_errno() != ENODEV)
      return std::unexpected(pids.error());
    if (pids && !trim(*pids).empty()) return true;
  }
  return false;
}

Result<std::vector<std::string>> CgroupManager::list(async::Blocking blocking) const {
  std::vector<std::string> ids;
  for (std::string& name : TRY(sys::list_dir(blocking, roots_[0]))) {
    if (sys::is_directory(roots_[0] + "/" + name)) ids.push_back(std::move(name));
  }
  return ids;
}

Result<CgroupManager::Usage> CgroupManager::usage(const std::string& id) const {
  Usage usage;
  if (unified_) {
    const std::string stat = TRY(sys::read_file(roots_[0] + "/" + id + "/cpu.stat"));
    std::istringstream words(stat);
    std::string name;
    for (std::uint64_t value = 0; words >> name >> value;) {
      if (name == "usage_usec") usage.cpu_time_us = value;
    }
    usage.memory_bytes = number_in(roots_[0] + "/" + id + "/memory.current");
    return usage;
  }
  usage.memory_bytes = number_in(roots_[1] + "/" + id + "/memory.usage_in_bytes");
  const std::string& accounting = roots_.size() > 3 ? roots_[3] : roots_[0];
  usage.cpu_time_us = number_in(accounting + "/" + id + "/cpuacct.usage") / kNsPerUs;
  return usage;
}

}  // namespace wrenn::host
