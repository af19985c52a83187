#include "cli/exec.h"

#include <gtest/gtest.h>

namespace wrenn::cli {
namespace {

TEST(ExecFrame, KnowsEveryType) {
  EXPECT_EQ(parse_exec_frame(R"({"type":"start","pid":7})")->kind, ExecFrame::Kind::kStart);
  EXPECT_EQ(parse_exec_frame(R"({"type":"stderr","data":"x"})")->kind, ExecFrame::Kind::kStderr);
  EXPECT_EQ(parse_exec_frame(R"({"type":"exit","exit_code":3})")->exit_code, 3);
  EXPECT_EQ(parse_exec_frame(R"({"type":"error","data":"gone"})")->data, "gone");
  EXPECT_EQ(parse_exec_frame(R"({"type":"error","data":"gone","code":"not_found"})")->code, "not_found");
  EXPECT_EQ(parse_exec_frame(R"({"type":"later"})")->kind, ExecFrame::Kind::kOther);
}

TEST(ExecFrame, DecodesBytes) {
  const auto frame = parse_exec_frame(R"({"type":"stdout","data":"AP8=","encoding":"base64"})");
  ASSERT_TRUE(frame);
  EXPECT_EQ(frame->data, std::string("\0\xff", 2));
  EXPECT_EQ(parse_exec_frame(R"({"type":"stdout","data":"AP8="})")->data, "AP8=");
}

TEST(ExecFrame, RefusesGarbage) {
  EXPECT_FALSE(parse_exec_frame("[]"));
  EXPECT_FALSE(parse_exec_frame("{"));
  EXPECT_FALSE(parse_exec_frame(R"({"type":"stdout","data":"***","encoding":"base64"})"));
}

}  // namespace
}  // namespace wrenn::cli
