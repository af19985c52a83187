#include "cli/output.h"

#include <gtest/gtest.h>

namespace wrenn::cli {
namespace {

constexpr std::int64_t kNow = 1'767'323'045;  // 2026-01-02T03:04:05Z

TEST(Output, TableAlignsColumns) {
  EXPECT_EQ(render_table({"ID", "STATUS"}, {{"sb-1", "running"}, {"sb-22222", "paused"}}),
            "ID        STATUS\n"
            "sb-1      running\n"
            "sb-22222  paused\n");
}

TEST(Output, TableCountsCharactersNotBytes) {
  EXPECT_EQ(render_table({"A", "B"}, {{"é", "1"}, {"xyz", "2"}}), "A    B\né    1\nxyz  2\n");
}

TEST(Output, ControlCharactersDoNotReachTheTerminal) {
  EXPECT_EQ(render_tsv({{"a\x1b[31m\tb\n", "c"}}), "a [31m b \tc\n");
}

TEST(Output, NeitherDoThoseOfMessages) {
  EXPECT_EQ(printable("no \x1b]0;title\x07 file\r\n\tx\x7f"), "no  ]0;title  file \n\tx ");
  EXPECT_EQ(printable("\xC2\x9B"
                      "31mred \xC2\xA0 \xC3\xA9"),
            " 31mred \xC2\xA0 \xC3\xA9")
      << "C1 goes, letters stay";
}

TEST(Output, Ages) {
  EXPECT_EQ(age_of("2026-01-02T03:04:00Z", kNow), "5 s ago");
  EXPECT_EQ(age_of("2026-01-02T03:00:00.123456Z", kNow), "4 min ago");
  EXPECT_EQ(age_of("2026-01-01T20:04:05+00:00", kNow), "7 h ago");
  EXPECT_EQ(age_of("2025-12-23T03:04:05Z", kNow), "10 d ago");
  EXPECT_EQ(age_of("2026-01-02T03:05:00Z", kNow), "0 s ago");
  EXPECT_EQ(age_of("yesterday", kNow), "yesterday");
}

TEST(Output, Sizes) {
  EXPECT_EQ(size_text(12), "12 B");
  EXPECT_EQ(size_text(1536), "1.5 KiB");
  EXPECT_EQ(size_text(std::uint64_t{5} * 1024 * 1024 * 1024), "5.0 GiB");
  EXPECT_EQ(timeout_text(0), "never");
  EXPECT_EQ(timeout_text(90), "90 s");
}

TEST(Output, ExitCodes) {
  EXPECT_EQ(exit_code_for(Error(Code::kNotFound, "")), 1);
  EXPECT_EQ(exit_code_for(Error(Code::kInvalidArgument, "")), 2);
  EXPECT_EQ(exit_code_for(Error(Code::kUnavailable, "")), 3);
  EXPECT_EQ(exit_code_for(Error(Code::kUnauthenticated, "")), 3);
  EXPECT_EQ(exit_code_for(Error(Code::kDeadlineExceeded, "")), 124);
}

}  // namespace
}  // namespace wrenn::cli
