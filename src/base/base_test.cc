#include <gtest/gtest.h>

#include <set>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"

namespace wrenn {
namespace {

TEST(Error, CodesSurviveTheirNames) {
  for (int i = 1; i <= 16; ++i) {
    const auto code = static_cast<Code>(i);
    EXPECT_EQ(code_from_name(code_name(code)), code);
  }
  EXPECT_EQ(code_from_name("no such code"), Code::kUnknown);
}

TEST(Error, ErrnoIsClassified) {
  const Error full = Error::from_errno(ENOSPC, "write /data");
  EXPECT_EQ(full.code(), Code::kResourceExhausted);
  EXPECT_EQ(full.reason(), "disk_full");
  EXPECT_EQ(full.sys_errno(), ENOSPC);
  EXPECT_EQ(full.message(), "write /data: No space left on device");
}

TEST(Bytes, Base64RoundTripsEveryLength) {
  std::string text;
  for (int i = 0; i < 300; ++i) {
    EXPECT_EQ(from_base64(to_base64(text)).value(), text);
    text += static_cast<char>(i * 7);
  }
  EXPECT_EQ(to_base64("ab"), "YWI=");
  EXPECT_EQ(from_base64("-_8").value(), from_base64("+/8=").value());
  EXPECT_FALSE(from_base64("a"));
  EXPECT_FALSE(from_base64("ab!d"));
}

TEST(Bytes, Utf8RejectsWhatUnicodeForbids) {
  EXPECT_TRUE(is_utf8("plain \xC3\xA9 \xE2\x82\xAC \xF0\x9F\x90\xA6"));
  EXPECT_FALSE(is_utf8("\xC0\xAF")) << "overlong";
  EXPECT_FALSE(is_utf8("\xED\xA0\x80")) << "surrogate";
  EXPECT_FALSE(is_utf8("\xF4\x90\x80\x80")) << "above U+10FFFF";
  EXPECT_FALSE(is_utf8("\xE2\x82")) << "cut";
}

TEST(Bytes, Utf8PrefixKeepsCutCharactersForLater) {
  EXPECT_EQ(utf8_complete_prefix("ab\xE2\x82"), 2U);
  EXPECT_EQ(utf8_complete_prefix("ab\xE2\x82\xAC"), 5U);
  EXPECT_EQ(utf8_complete_prefix("ab"), 2U);
  EXPECT_EQ(utf8_complete_prefix("\xF0\x9F\x90"), 0U);
  EXPECT_EQ(utf8_complete_prefix("\x80\x80\x80\x80"), 4U) << "never valid: pass it on";
}

TEST(Bytes, IdsAreLongAndDistinct) {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) ids.insert(random_id("sb-"));
  EXPECT_EQ(ids.size(), 1000U);
  EXPECT_EQ(ids.begin()->size(), 3U + 26U);
}

TEST(Bytes, ConstantTimeComparisonCompares) {
  EXPECT_TRUE(equal_constant_time("secret", "secret"));
  EXPECT_FALSE(equal_constant_time("secret", "secreT"));
  EXPECT_FALSE(equal_constant_time("secret", "secre"));
}

}  // namespace
}  // namespace wrenn
