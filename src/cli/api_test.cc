#include "cli/api.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>

namespace wrenn::cli {
namespace {

json::array list_of(const char* text) { return json::parse(text).as_array(); }

TEST(ApiError, ReadsTheEnvelope) {
  const Error error =
      error_of_response(409, R"({"error":{"code":"invalid_state","message":"it is paused"}})");
  EXPECT_EQ(error.code(), Code::kFailedPrecondition);
  EXPECT_EQ(error.message(), "it is paused");
  EXPECT_EQ(error.reason(), "invalid_state");
}

TEST(ApiError, CopesWithOtherBodies) {
  for (const char* body : {"", "<html>", "[]", "{}", R"({"error":"x"})", R"({"error":{"message":5}})"}) {
    const Error error = error_of_response(503, body);
    EXPECT_EQ(error.code(), Code::kUnavailable) << body;
    EXPECT_NE(error.message().find("503"), std::string::npos) << body;
  }
}

TEST(MatchId, PrefixWithAndWithoutItsBeginning) {
  const auto list = list_of(R"([{"id":"sb-abc","status":"running"},{"id":"sb-abd","status":"paused"},
                                {"id":"sb-xyz","status":"stopped"}])");
  EXPECT_EQ(*match_id(list, "sb-abc"), "sb-abc");
  EXPECT_EQ(*match_id(list, "abd"), "sb-abd");
  EXPECT_EQ(*match_id(list, "sb-x"), "sb-xyz");
  EXPECT_EQ(match_id(list, "ab").error().code(), Code::kInvalidArgument);
  EXPECT_EQ(match_id(list, "q").error().code(), Code::kNotFound);
  EXPECT_EQ(match_id(list, "").error().code(), Code::kNotFound);
}

TEST(MatchId, LiveOnesWinOverEndedOnes) {
  const auto list = list_of(R"([{"id":"sb-aa1","status":"stopped"},{"id":"sb-aa2","status":"running"},
                                {"id":"sb-aa3","status":"error"}])");
  EXPECT_EQ(*match_id(list, "aa"), "sb-aa2");
}

TEST(MatchId, OnlyIdsNeedNoLookUp) {
  EXPECT_TRUE(is_full_id("sb-abcdefghijklmnopqrstuvwxyz"));
  EXPECT_FALSE(is_full_id("sb-abc"));
  EXPECT_FALSE(is_full_id("sb-../../../../v1/api-keys/xx"));
}

}  // namespace
}  // namespace wrenn::cli
