#include "net/chunked.h"

#include <gtest/gtest.h>

#include "net/limits.h"

namespace wrenn::net {
namespace {

struct Outcome {
  std::string body;
  std::string rest;
};

Result<Outcome> decode(const std::string& bytes, std::size_t step, std::size_t room) {
  ChunkDecoder decoder;
  Outcome outcome;
  std::string waiting;
  std::string out(room, '\0');
  for (std::size_t at = 0; at < bytes.size(); at += step) {
    waiting += bytes.substr(at, step);
    while (!waiting.empty()) {
      const auto got = TRY(decoder.decode(waiting, out));
      outcome.body += out.substr(0, got.produced);
      waiting.erase(0, got.consumed);
      if (got.done) {
        outcome.rest = waiting + (at + step < bytes.size() ? bytes.substr(at + step) : "");
        return outcome;
      }
      if (got.consumed == 0) return fail(Code::kInternal, "no progress");
    }
  }
  return fail(Code::kUnavailable, "cut off");
}

TEST(Chunked, TheSameAtEveryCut) {
  const std::string bytes = "5\r\nhello\r\n00A;name=\"x\"\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\nGET /";
  for (std::size_t step = 1; step <= bytes.size(); ++step) {
    for (const std::size_t room : {1UL, 3UL, 100UL}) {
      const auto outcome = decode(bytes, step, room);
      ASSERT_TRUE(outcome) << step << outcome.error().message();
      EXPECT_EQ(outcome->body, "hello0123456789");
      EXPECT_EQ(outcome->rest, "GET /");
    }
  }
}

TEST(Chunked, AnEmptyBodyInAnyPieces) {
  for (std::size_t step = 1; step <= 5; ++step) EXPECT_EQ(decode("0\r\n\r\n", step, 8)->body, "");
}

TEST(Chunked, RefusesWhatIsMalformedOrEndless) {
  for (const char* bad : {"\r\n", "g\r\n", "-1\r\n", "5\nhello", "5\r\nhelloX", "5\r\nhello\rX", "5\rX",
                          "0\r\n\n", "0\r\nA: b\n\r\n", "1234567890123456\r\n", "0x5\r\nhello\r\n"}) {
    EXPECT_EQ(decode(bad, 1, 8).error().code(), Code::kInvalidArgument) << bad;
    EXPECT_EQ(decode(bad, 100, 8).error().code(), Code::kInvalidArgument) << bad;
  }
  const std::string endless(kMaxChunkSkippedBytes + 1, 'x');
  EXPECT_EQ(decode("5;" + endless, 4096, 8).error().code(), Code::kInvalidArgument);
  EXPECT_EQ(decode("0\r\n" + endless, 4096, 8).error().code(), Code::kInvalidArgument);
  EXPECT_EQ(decode("0\r\n", 1, 8).error().code(), Code::kUnavailable);
}

}  // namespace
}  // namespace wrenn::net
