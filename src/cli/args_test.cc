#include "cli/args.h"

#include <gtest/gtest.h>

namespace wrenn::cli {
namespace {

using Words = std::vector<std::string>;

std::optional<int> parse(Words words, Args* args) {
  std::vector<char*> argv;
  words.insert(words.begin(), "wrenn");
  for (auto& word : words) argv.push_back(word.data());
  return parse_args(static_cast<int>(argv.size()), argv.data(), args);
}

TEST(Args, ExecKeepsTheCommandsOwnFlags) {
  Args args;
  ASSERT_EQ(parse({"exec", "--timeout-sec", "5", "sb-1", "--", "ls", "-la", "--json"}, &args), std::nullopt);
  EXPECT_EQ(args.command, Command::kExec);
  EXPECT_EQ(args.ids, Words{"sb-1"});
  EXPECT_EQ(args.command_line, (Words{"ls", "-la", "--json"}));
  EXPECT_EQ(args.exec_timeout_sec, 5);
  EXPECT_FALSE(args.json);
}

TEST(Args, ExecWithoutTheMarker) {
  Args args;
  ASSERT_EQ(parse({"--json", "exec", "sb-1", "python3", "-c", "print(1)"}, &args), std::nullopt);
  EXPECT_EQ(args.command_line, (Words{"python3", "-c", "print(1)"}));
  EXPECT_TRUE(args.json);
}

TEST(Args, FlagsMayStandAfterTheCommandName) {
  Args args;
  ASSERT_EQ(parse({"create", "-m", "1024", "--json", "--template", "t"}, &args), std::nullopt);
  EXPECT_EQ(args.memory_mb, 1024);
  EXPECT_EQ(args.template_name, "t");
  EXPECT_EQ(args.vcpus, std::nullopt);
  EXPECT_TRUE(args.json);
}

TEST(Args, SeveralIds) {
  Args args;
  ASSERT_EQ(parse({"rm", "a", "b"}, &args), std::nullopt);
  EXPECT_EQ(args.ids, (Words{"a", "b"}));
}

TEST(Args, WrongUsageIsTwo) {
  for (const Words& words :
       {Words{}, Words{"fly"}, Words{"exec", "sb-1"}, Words{"rm"}, Words{"rm", "--all", "x"},
        Words{"create", "--vcpus", "many"}, Words{"pause"}, Words{"cp", "a"}}) {
    Args args;
    EXPECT_EQ(parse(words, &args), 2) << (words.empty() ? "" : words[0]);
  }
}

TEST(Args, HelpIsSuccess) {
  Args args;
  EXPECT_EQ(parse({"--help"}, &args), 0);
  Args other;
  EXPECT_EQ(parse({"create", "--help"}, &other), 0);
}

}  // namespace
}  // namespace wrenn::cli
