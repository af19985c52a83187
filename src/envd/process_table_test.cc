#include "envd/process_table.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

#include "sys/file.h"

namespace wrenn::envd {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

using process::ProcessInput;
using process::ProcessSelector;

StartSpec script(std::string text) {
  StartSpec spec;
  spec.request.mutable_process()->set_cmd("/bin/sh");
  spec.request.mutable_process()->add_args("-c");
  spec.request.mutable_process()->add_args(std::move(text));
  spec.user = {.name = "me", .uid = ::geteuid(), .gid = ::getegid(), .home = "/", .shell = "/bin/sh"};
  spec.cwd = "/";
  spec.env = {"PATH=/usr/bin:/bin"};
  return spec;
}

struct Outcome {
  std::uint32_t pid = 0;
  std::string out, err, pty;
  process::ProcessEvent::EndEvent end;
};

// Reads a subscription to its end.
Task<Outcome> finish(Subscription subscription) {
  Outcome outcome;
  while (auto event = CO_TRY(co_await subscription.channel()->receive())) {
    if (event->has_start()) outcome.pid = event->start().pid();
    outcome.out += event->data().stdout();
    outcome.err += event->data().stderr();
    outcome.pty += event->data().pty();
    if (event->has_end()) outcome.end = event->end();
  }
  co_return outcome;
}

Task<Outcome> run_to_end(ProcessTable* table, StartSpec spec) {
  auto subscription = CO_TRY(table->start(std::move(spec)));
  co_return co_await finish(std::move(subscription));
}

// Runs `body` with a table and checks that nothing of it lives on.
template <class Body>
void with_table(Body body) {
  async::Loop loop(1);
  ProcessGroups groups("");
  ProcessTable table(loop.executor(), &groups);
  const auto run = [](ProcessTable* t, Body* test) -> Task<> {
    const Result<> done = co_await async::with_timeout((*test)(t), Milliseconds(30'000), "test");
    co_await t->shutdown();
    EXPECT_TRUE(t->list().empty());
    co_return done;
  };
  const Result<> done = loop.run_plain(run(&table, &body));
  EXPECT_TRUE(done) << done.error().to_string();
}

ProcessSelector by_pid(std::uint32_t pid) {
  ProcessSelector selector;
  selector.set_pid(pid);
  return selector;
}

ProcessSelector by_tag(std::string tag) {
  ProcessSelector selector;
  selector.set_tag(std::move(tag));
  return selector;
}

ProcessInput stdin_of(std::string bytes) {
  ProcessInput input;
  input.set_stdin(std::move(bytes));
  return input;
}

TEST(ProcessTable, DeliversBothStreamsAndTheExit) {
  with_table([](ProcessTable* table) -> Task<> {
    auto outcome = CO_TRY(co_await run_to_end(table, script("echo out; echo err >&2; exit 7")));
    EXPECT_GT(outcome.pid, 0U);
    EXPECT_EQ(outcome.out, "out\n");
    EXPECT_EQ(outcome.err, "err\n");
    EXPECT_TRUE(outcome.end.exited());
    EXPECT_EQ(outcome.end.exit_code(), 7);
    EXPECT_EQ(outcome.end.status(), "exit status 7");
    auto killed = CO_TRY(co_await run_to_end(table, script("kill -9 $$")));
    EXPECT_FALSE(killed.end.exited());
    EXPECT_EQ(killed.end.exit_code(), -1);
    EXPECT_EQ(killed.end.status(), "signal: killed");
    co_return Result<>{};
  });
}

TEST(ProcessTable, OutputOfAnySizeIsWhole) {
  with_table([](ProcessTable* table) -> Task<> {
    auto outcome = CO_TRY(co_await run_to_end(table, script("head -c 3000000 /dev/zero")));
    EXPECT_EQ(outcome.out.size(), 3'000'000U);
    co_return Result<>{};
  });
}

TEST(ProcessTable, InputReachesTheProcessAndItsEndToo) {
  with_table([](ProcessTable* table) -> Task<> {
    StartSpec spec = script("cat");
    spec.request.set_tag("cat");
    auto subscription = CO_TRY(table->start(std::move(spec)));
    EXPECT_EQ(table->list().size(), 1U);
    CO_TRY(co_await table->send_input(by_tag("cat"), stdin_of("one ")));
    CO_TRY(co_await table->send_input(by_tag("cat"), stdin_of("two")));
    CO_TRY(table->close_stdin(by_tag("cat")));
    CO_TRY(table->close_stdin(by_tag("cat")));
    EXPECT_FALSE(co_await table->send_input(by_tag("cat"), stdin_of("late")));
    const auto outcome = CO_TRY(co_await finish(std::move(subscription)));
    EXPECT_EQ(outcome.out, "one two");
    const auto gone = co_await table->send_input(by_tag("cat"), stdin_of("x"));
    EXPECT_EQ(gone.error().code(), Code::kNotFound);
    co_return Result<>{};
  });
}

TEST(ProcessTable, ListenersComeAndGoWithoutTheProcessNoticing) {
  with_table([](ProcessTable* table) -> Task<> {
    std::uint32_t pid = 0;
    {
      auto first = CO_TRY(table->start(script("read line; echo got $line")));
      auto event = CO_TRY(co_await first.channel()->receive());
      pid = event->start().pid();
    }
    auto second = CO_TRY(table->connect(by_pid(pid)));
    auto third = CO_TRY(table->connect(by_pid(pid)));
    CO_TRY(co_await table->send_input(by_pid(pid), stdin_of("it\n")));
    EXPECT_EQ(CO_TRY(co_await finish(std::move(second))).out, "got it\n");
    EXPECT_EQ(CO_TRY(co_await finish(std::move(third))).out, "got it\n");
    co_return Result<>{};
  });
}

TEST(ProcessTable, ExitsAreRemembered) {
  with_table([](ProcessTable* table) -> Task<> {
    StartSpec spec = script("exit 3");
    spec.request.set_tag("job");
    const auto outcome = CO_TRY(co_await run_to_end(table, std::move(spec)));
    auto again = CO_TRY(table->connect(by_tag("job")));
    const auto start = CO_TRY(co_await again.channel()->receive());
    EXPECT_EQ(start->start().pid(), outcome.pid);
    const auto end = CO_TRY(co_await again.channel()->receive());
    EXPECT_EQ(end->end().exit_code(), 3);
    EXPECT_EQ(table->connect(by_tag("other")).error().code(), Code::kNotFound);
    co_return Result<>{};
  });
}

// True once the process is gone, waiting for it.
Task<bool> ends(pid_t pid) {
  for (int i = 0; i < 500 && sys::process_start_time(pid); ++i) {
    CO_TRY(co_await async::sleep_for(Milliseconds(20)));
  }
  co_return !sys::process_start_time(pid);
}

TEST(ProcessTable, LifetimesEndTheWholeGroup) {
  with_table([](ProcessTable* table) -> Task<> {
    StartSpec spec = script("sleep 300 & echo $!; wait");
    spec.lifetime = Milliseconds(300);
    const auto outcome = CO_TRY(co_await run_to_end(table, std::move(spec)));
    EXPECT_EQ(outcome.end.status(), "signal: killed");
    EXPECT_TRUE(CO_TRY(co_await ends(std::atoi(outcome.out.c_str())))) << "a child of the process lives on";
    co_return Result<>{};
  });
}

TEST(ProcessTable, SignalsReachTheWholeGroup) {
  with_table([](ProcessTable* table) -> Task<> {
    for (const int number : {SIGTERM, SIGKILL}) {
      auto subscription = CO_TRY(table->start(script("sleep 300 & echo $!; wait")));
      const auto start = CO_TRY(co_await subscription.channel()->receive());
      const auto line = CO_TRY(co_await subscription.channel()->receive());
      const pid_t child = std::atoi(line->data().stdout().c_str());
      CO_TRY(table->signal(by_pid(start->start().pid()), number));
      const auto outcome = CO_TRY(co_await finish(std::move(subscription)));
      EXPECT_FALSE(outcome.end.exited());
      EXPECT_TRUE(CO_TRY(co_await ends(child))) << "a child lives on after signal " << number;
    }
    co_return Result<>{};
  });
}

TEST(ProcessTable, TerminalsEchoAndResize) {
  with_table([](ProcessTable* table) -> Task<> {
    StartSpec spec = script("stty size; read line; stty size; echo $line");
    spec.request.mutable_pty()->mutable_size()->set_cols(90);
    spec.request.mutable_pty()->mutable_size()->set_rows(30);
    spec.request.set_tag("tty");
    auto subscription = CO_TRY(table->start(std::move(spec)));
    ProcessInput input;
    input.set_pty("typed\n");
    process::PTY size;
    size.mutable_size()->set_cols(100);
    size.mutable_size()->set_rows(40);
    EXPECT_FALSE(co_await table->send_input(by_tag("tty"), stdin_of("x"))) << "pty input only";
    EXPECT_FALSE(table->close_stdin(by_tag("tty")));
    // The first size is printed before the new one is set.
    std::string seen;
    while (seen.find("30 90") == std::string::npos) {
      const auto event = CO_TRY(co_await subscription.channel()->receive());
      if (!event) co_return fail(Code::kInternal, "ended early: " + seen);
      seen += event->data().pty();
    }
    CO_TRY(table->resize(by_tag("tty"), size));
    CO_TRY(co_await table->send_input(by_tag("tty"), input));
    const auto outcome = CO_TRY(co_await finish(std::move(subscription)));
    EXPECT_NE(outcome.pty.find("40 100"), std::string::npos) << outcome.pty;
    EXPECT_NE(outcome.pty.find("typed"), std::string::npos) << outcome.pty;
    EXPECT_TRUE(outcome.out.empty());
    co_return Result<>{};
  });
}

TEST(ProcessTable, WhatCannotStartIsTold) {
  with_table([](ProcessTable* table) -> Task<> {
    EXPECT_EQ(check_cwd(kBlocking, "/no/such/folder").error().field(), "cwd");
    EXPECT_EQ(check_cwd(kBlocking, "/etc/passwd").error().field(), "cwd");
    EXPECT_TRUE(check_cwd(kBlocking, "/"));
    StartSpec nothing = script("true");
    nothing.request.mutable_process()->set_cmd("");
    EXPECT_EQ(table->start(std::move(nothing)).error().field(), "cmd");
    StartSpec missing = script("true");
    missing.request.mutable_process()->set_cmd("no-such-program-anywhere");
    const auto outcome = CO_TRY(co_await run_to_end(table, std::move(missing)));
    EXPECT_EQ(outcome.end.exit_code(), 127);
    co_return Result<>{};
  });
}

TEST(ProcessTable, LeavesNoDescriptorsBehind) {
  with_table([](ProcessTable* table) -> Task<> {
    CO_TRY(co_await run_to_end(table, script("true")));
    const std::size_t before = CO_TRY(sys::list_dir(kBlocking, "/proc/self/fd")).size();
    for (int i = 0; i < 30; ++i) CO_TRY(co_await run_to_end(table, script("echo x")));
    EXPECT_EQ(CO_TRY(sys::list_dir(kBlocking, "/proc/self/fd")).size(), before);
    co_return Result<>{};
  });
}

}  // namespace
}  // namespace wrenn::envd
