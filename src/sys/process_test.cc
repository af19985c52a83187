#include "sys/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>

#include "async/async.h"
#include "sys/file.h"

namespace wrenn::sys {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

constexpr Milliseconds kLimit{20'000};

std::string output_of(SpawnSpec spec, std::string_view input = {}) {
  const auto out = run(kBlocking, std::move(spec), kLimit, input);
  EXPECT_TRUE(out) << out.error().to_string();
  return out ? out->stdout_text + out->stderr_text : "";
}

SpawnSpec shell(std::string script) {
  SpawnSpec spec;
  spec.argv = {"/bin/sh", "-c", std::move(script)};
  return spec;
}

TEST(Process, RunsWithItsOwnEnvironmentFolderAndInput) {
  SpawnSpec spec = shell("echo $NAME; pwd; cat; echo end >&2");
  spec.env = {"NAME=value", "PATH=/usr/bin:/bin"};
  spec.cwd = "/usr";
  EXPECT_EQ(output_of(std::move(spec), "input\n"), "value\n/usr\ninput\nend\n");
}

TEST(Process, InheritsNoDescriptorBeyondThoseNamed) {
  const auto extra = open_file("/dev/null", O_RDONLY);
  SpawnSpec spec;
  spec.argv = {"ls", "/proc/self/fd"};
  spec.extra_fds = {{extra->get(), 7}};
  EXPECT_EQ(output_of(std::move(spec)), "0\n1\n2\n3\n7\n") << "3 is ls's own view of the folder";
}

TEST(Process, ReportsHowItEnded) {
  EXPECT_EQ(run(kBlocking, shell("exit 3"), kLimit)->status.to_string(), "exit status 3");
  EXPECT_EQ(run(kBlocking, shell("kill -9 $$"), kLimit)->status.to_string(), "signal: killed");
  EXPECT_NE(run_checked(kBlocking, shell("echo why >&2; exit 1"), kLimit).error().message().find("why"),
            std::string::npos);
}

TEST(Process, WhatCannotBeExecutedFailsOrExitsAsAShellWould) {
  SpawnSpec spec;
  spec.argv = {"no-such-program-anywhere"};
  EXPECT_EQ(spawn(spec).error().code(), Code::kNotFound);
  spec.exec_failure_exits = true;
  EXPECT_EQ(run(kBlocking, spec, kLimit)->status.exit_code, 127);
  spec.argv = {"/etc/passwd"};
  EXPECT_EQ(run(kBlocking, spec, kLimit)->status.exit_code, 126);
  spec.argv = {"/bin/true"};
  spec.cwd = "/no/such/folder";
  spec.exec_failure_exits = false;
  EXPECT_FALSE(spawn(spec));
}

TEST(Process, LimitsOfTimeAndOutputHold) {
  const auto started = std::chrono::steady_clock::now();
  EXPECT_EQ(run(kBlocking, shell("sleep 60"), Milliseconds(100)).error().code(), Code::kDeadlineExceeded);
  EXPECT_LT(std::chrono::steady_clock::now() - started, std::chrono::seconds(20));
  const auto out = run(kBlocking, shell("head -c 5000000 /dev/zero"), kLimit, {}, 1000);
  ASSERT_TRUE(out);
  EXPECT_EQ(out->stdout_text.size(), 1000U);
  EXPECT_TRUE(out->status.ok()) << "the rest is read and dropped";
}

TEST(Process, SignalsReachTheWholeGroup) {
  const auto pipe = make_pipe();
  ASSERT_TRUE(pipe);
  SpawnSpec spec = shell("sleep 300 & echo $!; wait");
  spec.new_session = true;
  spec.stdout_fd = pipe->write.get();
  auto child = spawn(spec);
  ASSERT_TRUE(child);
  std::array<char, 16> number{};
  ASSERT_GT(::read(pipe->read.get(), number.data(), number.size() - 1), 0);
  const pid_t grandchild = std::atoi(number.data());
  ASSERT_TRUE(process_start_time(grandchild));
  EXPECT_FALSE(child->try_wait()->has_value());
  const auto start_time = process_start_time(child->pid());
  ASSERT_TRUE(start_time);
  EXPECT_GT(*start_time, 0U);
  ASSERT_TRUE(child->signal_group(SIGKILL));
  EXPECT_EQ(child->wait_blocking(kBlocking, kLimit)->signal, SIGKILL);
  EXPECT_EQ(child->signal(SIGTERM).error().code(), Code::kNotFound);
  EXPECT_EQ(process_start_time(child->pid()).error().code(), Code::kNotFound);
  EXPECT_EQ(open_pidfd(child->pid()).error().code(), Code::kNotFound);
  const auto until = std::chrono::steady_clock::now() + kLimit;
  while (process_start_time(grandchild) && std::chrono::steady_clock::now() < until) ::usleep(1'000);
  EXPECT_FALSE(process_start_time(grandchild));
}

TEST(Process, WaitingOnTheLoopCanBeCancelled) {
  async::Loop loop(1);
  const auto body = []() -> Task<> {
    SpawnSpec spec;
    spec.argv = {"sleep", "300"};
    auto child = CO_TRY(spawn(spec));
    const auto early = co_await async::with_timeout(child.wait(), Milliseconds(50), "child");
    EXPECT_EQ(early.error().code(), Code::kDeadlineExceeded);
    CO_TRY(child.signal(SIGTERM));
    const auto status = CO_TRY(co_await child.wait());
    EXPECT_EQ(status.signal, SIGTERM);
    EXPECT_EQ(CO_TRY(co_await child.wait()).signal, SIGTERM) << "remembered";
    co_return Result<>{};
  };
  const auto done = loop.run_plain(body());
  EXPECT_TRUE(done) << done.error().to_string();
}

TEST(Process, TerminalsHaveTheirSizeAndJob) {
  const auto pty = open_pty(101, 31);
  ASSERT_TRUE(pty);
  SpawnSpec spec = shell("stty size; tty; sleep 0.2; stty size");
  spec.new_session = true;
  spec.controlling_terminal = true;
  spec.stdin_fd = spec.stdout_fd = spec.stderr_fd = pty->slave.get();
  auto child = spawn(spec);
  ASSERT_TRUE(child) << child.error().to_string();
  std::string text;
  std::array<char, 256> buffer{};
  while (text.find(pty->slave_path) == std::string::npos) {
    const ssize_t got = ::read(pty->master.get(), buffer.data(), buffer.size());
    ASSERT_GT(got, 0);
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  EXPECT_TRUE(text.starts_with("31 101")) << text;
  ASSERT_TRUE(resize_pty(pty->master.get(), 80, 24));
  ASSERT_TRUE(child->wait_blocking(kBlocking, kLimit));
  const ssize_t got = ::read(pty->master.get(), buffer.data(), buffer.size());
  ASSERT_GT(got, 0);
  EXPECT_NE(std::string(buffer.data(), static_cast<std::size_t>(got)).find("24 80"), std::string::npos);
}

TEST(Process, LeavesNoDescriptorsBehind) {
  const auto open_now = [] { return list_dir(kBlocking, "/proc/self/fd")->size(); };
  (void)run(kBlocking, shell("true"), kLimit);
  const std::size_t before = open_now();
  for (int i = 0; i < 50; ++i) {
    (void)run(kBlocking, shell("exit 1"), kLimit, "input");
    SpawnSpec missing;
    missing.argv = {"no-such-program-anywhere"};
    (void)spawn(missing);
  }
  EXPECT_EQ(open_now(), before);
}

TEST(ProcessRoot, IgnoresSync) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  SpawnSpec spec = shell("sync /dev/null; sync -d /dev/null");  // a device that knows no sync
  const std::string refused = output_of(spec);
  EXPECT_NE(refused.find("error syncing"), std::string::npos) << refused;
  spec.ignores_sync = true;
  EXPECT_EQ(output_of(spec), "");
}

TEST(ProcessRoot, CredentialsAreDropped) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  SpawnSpec spec = shell("id -u; id -g; id -G; grep CapEff /proc/self/status");
  spec.credentials = Credentials{.uid = 65534, .gid = 65534, .groups = {65534, 27}};
  EXPECT_EQ(output_of(std::move(spec)), "65534\n65534\n65534 27\nCapEff:\t0000000000000000\n");
}

}  // namespace
}  // namespace wrenn::sys
