#include "cli/copy.h"

#include <gtest/gtest.h>

namespace wrenn::cli {
namespace {

TEST(CopySide, TellsSandboxFromFile) {
  EXPECT_EQ(parse_copy_side("sb-1:/tmp/a:b").sandbox, "sb-1");
  EXPECT_EQ(parse_copy_side("sb-1:/tmp/a:b").path, "/tmp/a:b");
  EXPECT_EQ(parse_copy_side("sb-1:notes").path, "notes");
  EXPECT_EQ(parse_copy_side("./a:b").sandbox, "");
  EXPECT_EQ(parse_copy_side("/tmp/a:b").path, "/tmp/a:b");
  EXPECT_EQ(parse_copy_side("-").path, "-");
  EXPECT_EQ(parse_copy_side(":x").sandbox, "");
}

TEST(Multipart, PathComesBeforeFile) {
  const MultipartFrame frame = multipart_frame("/tmp/x", "BB");
  EXPECT_EQ(frame.content_type, "multipart/form-data; boundary=BB");
  const std::string body = frame.head + "DATA" + frame.tail;
  EXPECT_LT(body.find("name=\"path\"\r\n\r\n/tmp/x\r\n--BB"), body.find("name=\"file\""));
  EXPECT_TRUE(body.ends_with("\r\n\r\nDATA\r\n--BB--\r\n"));
}

}  // namespace
}  // namespace wrenn::cli
