#include <gtest/gtest.h>

#include <random>

#include "base/bytes.h"
#include "control/api_error.h"
#include "control/api_key.h"
#include "control/clock.h"
#include "control/exec_request.h"
#include "control/json_input.h"
#include "control/limits.h"
#include "control/text_stream.h"

namespace wrenn::control {
namespace {

TEST(JsonInput, AbsentNullAndUnknownFieldsAreFine) {
  const auto input = JsonInput::parse(R"({"vcpus":null,"other":[1]})");
  ASSERT_TRUE(input);
  EXPECT_EQ(input->integer("vcpus", 1, 32, 1), 1);
  EXPECT_EQ(input->text("template", 64, "minimal"), "minimal");
  EXPECT_TRUE(JsonInput::parse(""));
  EXPECT_TRUE(JsonInput::parse(" \n"));
}

TEST(JsonInput, WrongValuesNameFieldAndRange) {
  for (const char* text :
       {R"({"vcpus":0})", R"({"vcpus":33})", R"({"vcpus":-1})", R"({"vcpus":"2"})", R"({"vcpus":1.5})",
        R"({"vcpus":true})", R"({"vcpus":[]})", R"({"vcpus":18446744073709551615})", R"({"vcpus":1e400})"}) {
    const auto input = JsonInput::parse(text);
    if (!input) continue;  // not JSON at all is refused as well
    const auto value = input->integer("vcpus", 1, 32, 1);
    ASSERT_FALSE(value) << text;
    EXPECT_EQ(value.error().field(), "vcpus");
    EXPECT_NE(value.error().message().find("between 1 and 32"), std::string::npos) << value.error().message();
  }
}

TEST(JsonInput, RefusesWhatIsNoSmallObject) {
  for (const char* text : {"[]", "1", "{", "{}x", "\"a\"", "{\"a\":\"\xff\"}"}) {
    const auto input = JsonInput::parse(text);
    ASSERT_FALSE(input) << text;
    EXPECT_EQ(input.error().code(), Code::kInvalidArgument);
  }
  const std::string deep = "{\"a\":" + std::string(100, '[') + std::string(100, ']') + "}";
  const auto input = JsonInput::parse(deep);
  ASSERT_FALSE(input);
  EXPECT_NE(input.error().message().find("32 levels"), std::string::npos) << input.error().message();
}

TEST(ExecRequest, TakesCommandArgumentsAndTimeout) {
  const auto input = JsonInput::parse(R"({"cmd":"ls","args":["-l","a b"]})");
  const auto request = parse_exec(*input, "sb-1", 30);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->args_size(), 2);
  EXPECT_EQ(request->timeout_sec(), 30);
  EXPECT_EQ(parse_exec(*JsonInput::parse("{}"), "sb-1", 30).error().field(), "cmd");
  EXPECT_EQ(parse_exec(*JsonInput::parse(R"({"cmd":""})"), "sb-1", 30).error().field(), "cmd");
  EXPECT_EQ(parse_exec(*JsonInput::parse(R"({"cmd":"a","args":"b"})"), "sb-1", 30).error().field(), "args");
  EXPECT_EQ(parse_exec(*JsonInput::parse(R"({"cmd":"a","args":[1]})"), "sb-1", 30).error().field(), "args");
}

TEST(TextStream, KeepsCharactersWholeAtAnySplit) {
  const std::string text = "a\u00fc\u20ac\U0001f600z";
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    TextStream stream;
    std::string joined;
    for (const std::string& chunk : {text.substr(0, cut), text.substr(cut)}) {
      if (const auto piece = stream.push(chunk)) {
        EXPECT_FALSE(piece->base64);
        EXPECT_TRUE(is_utf8(piece->data));
        joined += piece->data;
      }
    }
    EXPECT_FALSE(stream.finish());
    EXPECT_EQ(joined, text);
  }
}

TEST(TextStream, BinaryIsLossless) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    std::string all;
    std::string joined;
    TextStream stream;
    const auto take = [&](const std::optional<TextStream::Piece>& piece) {
      if (piece) joined += piece->base64 ? from_base64(piece->data).value() : piece->data;
    };
    for (int chunk = 0; chunk < 8; ++chunk) {
      std::string bytes;
      for (unsigned i = random() % 6; i > 0; --i)
        bytes += static_cast<char>(random() % 2 ? random() % 256 : 'a');
      all += bytes;
      take(stream.push(bytes));
    }
    take(stream.finish());
    EXPECT_EQ(joined, all);
  }
}

TEST(ApiKey, HasItsFormAndHash) {
  const std::string key = new_api_key();
  EXPECT_TRUE(looks_like_api_key(key)) << key;
  EXPECT_EQ(key.size(), 44U);
  EXPECT_NE(key, new_api_key());
  EXPECT_FALSE(looks_like_api_key("wrn_" + std::string(40, 'g')));
  EXPECT_EQ(hash_api_key("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(PublicError, HidesInnerFailuresAndSaysWhenToRetry) {
  const PublicError down(Error(Code::kUnavailable, "x").with_reason("db_unavailable"));
  EXPECT_EQ(down.status(), 503);
  EXPECT_GT(down.retry_after_sec(), 0);
  EXPECT_EQ(PublicError(from_agent(Error(Code::kInternal, "x"))).status(), 502);
  EXPECT_EQ(PublicError(from_agent(Error(Code::kInternal, "x"))).code(), "agent_error");
  EXPECT_EQ(PublicError(from_agent(Error(Code::kUnauthenticated, "x"))).status(), 502);
  EXPECT_EQ(PublicError(from_agent(Error(Code::kNotFound, "x"))).status(), 404);
  const PublicError full(from_agent(Error(Code::kResourceExhausted, "x").with_reason("disk_full")));
  EXPECT_EQ(full.status(), 507);
  EXPECT_EQ(full.code(), "insufficient_storage");
  EXPECT_EQ(PublicError(Error(Code::kInvalidArgument, "a \"b\"")).body(),
            R"({"error":{"code":"invalid_request","message":"a \"b\""}})");
}

TEST(PublicError, NoFailureOfOursTellsItsDetails) {
  const std::string secret = "cannot connect to http://10.0.0.7:50051/var/lib: Connection refused";
  for (int code = 1; code <= 16; ++code) {
    for (const char* reason :
         {"", "db_error", "db_unavailable", "connect_failed", "agent_error", "disk_full", "host_busy",
          "snapshot_corrupt", "unheard_of", "not_reachable", "output_limit"}) {
      const Error error = Error(static_cast<Code>(code), secret).with_reason(reason);
      for (const PublicError& told : {PublicError(error), PublicError(from_agent(error))}) {
        if (told.status() < 500) continue;
        EXPECT_EQ(told.body().find("10.0.0.7"), std::string::npos) << told.body();
        EXPECT_FALSE(told.message().empty()) << code << " " << reason;
      }
    }
  }
}

TEST(Clock, WritesRfc3339) {
  EXPECT_EQ(rfc3339(model::Time(std::chrono::milliseconds(1'700'000'000'007))), "2023-11-14T22:13:20.007Z");
}

}  // namespace
}  // namespace wrenn::control
