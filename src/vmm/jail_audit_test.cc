#include "vmm/jail_audit_test.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <sstream>

#include "base/bytes.h"
#include "sys/file.h"

namespace wrenn::vmm {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

std::string status_field(pid_t pid, const std::string& name) {
  std::istringstream lines(sys::read_file("/proc/" + std::to_string(pid) + "/status").value_or(""));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(name + ":"))
      return std::string(trim(std::string_view(line).substr(name.size() + 1)));
  }
  return "absent";
}

// What a descriptor may be: nothing of the host's files but what this VM was lent.
bool expected_descriptor(const std::string& target) {
  constexpr std::string_view kKnown[] = {"/base",    "/overlay",     "/memory", "/console",    "/dev/null",
                                         "/dev/kvm", "/dev/net/tun", "socket:", "anon_inode:", "pipe:",
                                         "/state",   "/memfd:",      "/kernel", "/initramfs",  "/metrics"};
  // The console is this test's own file.
  return target.ends_with("/console1") || target.ends_with("/console2") ||
         std::ranges::any_of(kKnown, [&](std::string_view known) { return target.starts_with(known); });
}

void audit_privileges(pid_t pid, uid_t uid) {
  const std::string user = std::to_string(uid);
  EXPECT_EQ(status_field(pid, "Uid"), user + "\t" + user + "\t" + user + "\t" + user);
  EXPECT_EQ(status_field(pid, "Gid"), user + "\t" + user + "\t" + user + "\t" + user);
  EXPECT_EQ(status_field(pid, "Groups"), "");
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapAmb"}) {
    EXPECT_EQ(status_field(pid, set), "0000000000000000") << set;
  }
  EXPECT_EQ(status_field(pid, "NoNewPrivs"), "1");
  EXPECT_THAT(status_field(pid, "NSpid"), testing::EndsWith("\t1")) << "no PID namespace of its own";
  EXPECT_EQ(status_field(pid, "THP_enabled"), "0") << "a page of zeros may be a written one";
  const std::string limits = sys::read_file("/proc/" + std::to_string(pid) + "/limits").value_or("");
  EXPECT_THAT(limits, testing::ContainsRegex("Max core file size +0 +0 "));
  EXPECT_THAT(limits, testing::ContainsRegex("Max file size +[0-9]+ +[0-9]+ "));
  char theirs[64] = {};
  char ours[64] = {};
  ASSERT_GT(::readlink(("/proc/" + std::to_string(pid) + "/ns/ipc").c_str(), theirs, sizeof theirs - 1), 0);
  ASSERT_GT(::readlink("/proc/self/ns/ipc", ours, sizeof ours - 1), 0);
  EXPECT_STRNE(theirs, ours) << "the host's IPC";
  std::printf("audit of %s\n  user and group %s, capabilities %s, no_new_privs %s\n",
              status_field(pid, "Name").c_str(), user.c_str(), status_field(pid, "CapEff").c_str(),
              status_field(pid, "NoNewPrivs").c_str());
  // Every thread, not only the first.
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  for (const std::string& thread : sys::list_dir(kBlocking, tasks).value_or(std::vector<std::string>{})) {
    const std::string mode = status_field(std::stoi(thread), "Seccomp");
    EXPECT_EQ(mode, "2") << "thread " << thread;
    std::printf("  thread: seccomp mode %s\n", mode.c_str());
  }
}

void audit_descriptors(pid_t pid) {
  const std::string folder = "/proc/" + std::to_string(pid);
  for (const std::string& fd :
       sys::list_dir(kBlocking, folder + "/fd").value_or(std::vector<std::string>{})) {
    char target[256] = {};
    ASSERT_GT(::readlink((folder + "/fd/" + fd).c_str(), target, sizeof target - 1), 0);
    EXPECT_TRUE(expected_descriptor(target)) << "descriptor " << fd << " is " << target;
    const std::string flags = sys::read_file(folder + "/fdinfo/" + fd).value_or("");
    const bool shared =
        std::string_view(target).starts_with("/base") || std::string_view(target).starts_with("/memory");
    // Octal; the last digit's lower bits are the access mode.
    const auto mode =
        flags.find("flags:") == std::string::npos
            ? -1
            : static_cast<int>(std::stoul(flags.substr(flags.find("flags:") + 6), nullptr, 8) & 3);
    if (shared) EXPECT_EQ(mode, O_RDONLY) << target << " is shared between VMs and open for writing";
    std::printf("  descriptor: %s%s\n", target, mode == O_RDONLY ? ", to read" : "");
  }
}

// The jail itself and what is bound into it, read-only.
void audit_mounts(pid_t pid) {
  std::istringstream mounts(sys::read_file("/proc/" + std::to_string(pid) + "/mountinfo").value_or(""));
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words(line);
    std::string id, parent, device, root, point, options;
    words >> id >> parent >> device >> root >> point >> options;
    std::printf("  mount: %s (%s)\n", point.c_str(), options.c_str());
    if (point != "/") EXPECT_THAT(options, testing::StartsWith("ro,nosuid,nodev")) << line;
  }
}

}  // namespace

void audit_jail(pid_t pid, uid_t uid) {
  audit_privileges(pid, uid);
  audit_descriptors(pid);
  audit_mounts(pid);
}

}  // namespace wrenn::vmm
