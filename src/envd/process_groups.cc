#include "envd/process_groups.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "base/log.h"
#include "envd/limits.h"
#include "sys/file.h"

namespace wrenn::envd {
namespace {

using Clock = std::chrono::steady_clock;
constexpr const char* kNames[] = {"user", "pty"};
constexpr const char* kCpuWeights[] = {"50", "200"};

std::uint64_t memory_limit() {
  struct sysinfo info{};
  ::sysinfo(&info);
  const std::uint64_t total = std::uint64_t{info.totalram} * info.mem_unit;
  return total - std::min(total / 8, kReservedMemoryBytes);
}

// Waits for "frozen 1" in a group's events; the kernel announces changes as urgent data.
bool wait_frozen(const std::string& folder, Clock::time_point deadline) {
  const auto fd = sys::open_file(folder + "/cgroup.events", O_RDONLY);
  if (!fd) return false;
  while (true) {
    char text[256];
    const ssize_t got = ::pread(fd->get(), text, sizeof text, 0);
    if (got > 0 &&
        std::string_view(text, static_cast<std::size_t>(got)).find("frozen 1") != std::string_view::npos)
      return true;
    const auto left = std::chrono::ceil<Milliseconds>(deadline - Clock::now());
    if (got < 0 || left.count() <= 0) return false;
    pollfd event{.fd = fd->get(), .events = POLLPRI, .revents = 0};
    ::poll(&event, 1, static_cast<int>(left.count()));
  }
}

}  // namespace

ProcessGroups::ProcessGroups(std::string root) : root_(std::move(root)) {
  if (root_.empty()) return;
  const Result<> ready = set_up();
  if (ready) return;
  log::warn("processes run without cgroups: {}", ready.error().to_string());
  root_.clear();
}

ProcessGroups::~ProcessGroups() { sweep(); }

Result<> ProcessGroups::set_up() {
  TRY(sys::write_existing(root_ + "/cgroup.subtree_control", "+cpu +memory"));
  for (int kind = 0; kind < 2; ++kind) {
    const std::string folder = fmt::format("{}/{}", root_, kNames[kind]);
    TRY(sys::mkdirs(folder));
    TRY(sys::write_existing(folder + "/cpu.weight", kCpuWeights[kind]));
    TRY(sys::write_existing(folder + "/memory.max", std::to_string(memory_limit())));
  }
  return {};
}

Result<std::optional<std::string>> ProcessGroups::add(Kind kind) {
  if (root_.empty()) return std::optional<std::string>{};
  if (frozen_) return fail(Error(Code::kUnavailable, "the sandbox is being paused").with_reason("frozen"));
  sweep();
  std::string group = fmt::format("{}/{}/{}", root_, kNames[static_cast<int>(kind)], ++next_);
  TRY(sys::mkdirs(group));
  return std::optional<std::string>(std::move(group));
}

Result<> ProcessGroups::kill(const std::string& group) {
  return sys::write_existing(group + "/cgroup.kill", "1");
}

void ProcessGroups::release(std::string group) {
  emptying_.push_back(std::move(group));
  sweep();
}

void ProcessGroups::sweep() {
  // A group that still holds processes refuses to go.
  emptying_.remove_if(
      [](const std::string& group) { return ::rmdir(group.c_str()) == 0 || errno == ENOENT; });
}

std::vector<std::string> ProcessGroups::freeze() {
  std::vector<std::string> asked;
  if (root_.empty()) return asked;
  frozen_ = true;
  for (const char* name : kNames) {
    std::string folder = fmt::format("{}/{}", root_, name);
    const auto written = sys::write_existing(folder + "/cgroup.freeze", "1");
    if (written) asked.push_back(std::move(folder));
    if (!written) log::warn("freeze: {}", written.error().to_string());
  }
  return asked;
}

int ProcessGroups::count_frozen(async::Blocking /*blocking*/, const std::vector<std::string>& groups,
                                Milliseconds limit) {
  const auto deadline = Clock::now() + limit;
  return static_cast<int>(
      std::ranges::count_if(groups, [&](const auto& group) { return wait_frozen(group, deadline); }));
}

Result<> ProcessGroups::thaw() {
  if (root_.empty() || !frozen_) return {};
  Result<> done;
  for (const char* name : kNames) {
    const auto written = sys::write_existing(fmt::format("{}/{}/cgroup.freeze", root_, name), "0");
    if (!written) done = written;
  }
  frozen_ = false;
  return done;
}

}  // namespace wrenn::envd
