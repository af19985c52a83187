#include "vmm/death.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>

#include "sys/process.h"

namespace wrenn::vmm {
namespace {

sys::ChildProcess sleeper() {
  sys::SpawnSpec spec;
  spec.argv = {"/bin/sleep", "60"};
  auto child = sys::spawn(spec);
  EXPECT_TRUE(child) << child.error().to_string();
  return std::move(*child);
}

ProcessIdentity identity_of(pid_t pid) { return {.pid = pid, .start_time = *sys::process_start_time(pid)}; }

// True, false, or nothing when it could not be told.
std::optional<bool> dead(const ProcessIdentity& process) {
  const auto answer = DeathProof::of(process);
  if (!answer) return std::nullopt;
  return answer->has_value();
}

TEST(DeathProof, ALivingProcessIsNotDeadUntilItHasExited) {
  sys::ChildProcess child = sleeper();
  const ProcessIdentity process = identity_of(child.pid());
  EXPECT_EQ(dead(process), false);
  ASSERT_TRUE(child.signal(SIGKILL));
  ASSERT_TRUE(child.wait_blocking(async::Blocking::without_loop(), Milliseconds(10'000)));
  EXPECT_EQ(dead(process), true);
}

TEST(DeathProof, AnotherProcessOfTheNumberIsNotTheOneMeant) {
  ProcessIdentity other = identity_of(::getpid());
  other.start_time += 1;
  EXPECT_EQ(dead(other), true);
  other.start_time = 0;
  EXPECT_EQ(dead(other), false) << "a start time that was never learned tells nothing";
}

TEST(DeathProof, AHostOutOfDescriptorsTellsNothing) {
  const ProcessIdentity living = identity_of(::getpid());
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const std::optional<bool> answer = dead(living);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(answer, std::nullopt);
}

}  // namespace
}  // namespace wrenn::vmm
