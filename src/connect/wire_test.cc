#include "connect/wire.h"

#include <gtest/gtest.h>

#include "net/gzip.h"
#include "process/process.pb.h"

namespace wrenn::connect {
namespace {

// Hands out a fixed body a few bytes at a time.
class SlicedBody : public net::BodyReader {
 public:
  SlicedBody(std::string bytes, std::size_t slice) : bytes_(std::move(bytes)), slice_(slice) {}
  Task<std::size_t> read(std::span<char> buffer) override {
    const std::size_t n = std::min({slice_, buffer.size(), bytes_.size() - at_});
    std::copy_n(bytes_.data() + at_, n, buffer.data());
    at_ += n;
    co_return n;
  }

 private:
  std::string bytes_;
  std::size_t slice_;
  std::size_t at_ = 0;
};

Result<std::vector<std::string>> frames_of(std::string bytes, std::size_t slice, bool gzip = false) {
  std::vector<std::string> payloads;
  auto body = [](std::string in, std::size_t step, bool packed, std::vector<std::string>* out) -> Task<> {
    SlicedBody source(std::move(in), step);
    FrameReader reader(&source, packed, 1000);
    while (auto frame = CO_TRY(co_await reader.next())) out->push_back(frame->payload);
    co_return Result<>{};
  };
  async::Loop loop(1);
  TRY(loop.run_plain(body(std::move(bytes), slice, gzip, &payloads)));
  return payloads;
}

TEST(Wire, FramesAreCutAlikeForEverySliceSize) {
  const std::string bytes =
      raw_envelope(0, "first") + raw_envelope(0, "") + raw_envelope(0, std::string(900, 'x'));
  for (std::size_t slice = 1; slice < 40; ++slice) {
    const auto frames = frames_of(bytes, slice);
    ASSERT_TRUE(frames) << frames.error().to_string();
    EXPECT_EQ(*frames, (std::vector<std::string>{"first", "", std::string(900, 'x')}));
  }
}

// Notes the most room that a reader made for one read.
class MeasuringBody : public net::BodyReader {
 public:
  MeasuringBody(std::string bytes, std::size_t slice) : inner_(std::move(bytes), slice) {}
  Task<std::size_t> read(std::span<char> buffer) override {
    most_ = std::max(most_, buffer.size());
    return inner_.read(buffer);
  }
  std::size_t most() const { return most_; }

 private:
  SlicedBody inner_;
  std::size_t most_ = 0;
};

TEST(Wire, AnAnnouncedSizeCostsNothingBeforeItComes) {
  const auto most_room = [](std::string bytes) -> std::size_t {
    MeasuringBody source(std::move(bytes), 1'000);
    const auto body = [](MeasuringBody* from) -> Task<> {
      FrameReader reader(from, false, 32U << 20U);
      while (CO_TRY(co_await reader.next())) continue;
      co_return Result<>{};
    };
    async::Loop loop(1);
    (void)loop.run_plain(body(&source));
    return source.most();
  };
  EXPECT_LE(most_room(std::string("\0\2\0\0\0", 5)), 16U * 1024) << "32 MiB were announced";
  EXPECT_LE(most_room(std::string("\0\2\0\0\0", 5) + std::string(100'000, 'x')), 128U * 1024);
  EXPECT_LE(most_room(raw_envelope(0, std::string(5'000'000, 'x'))), 5'000'000U + 5);
}

TEST(Wire, EndFramesHaveALimitOfTheirOwn) {
  const std::string end = raw_envelope(kFlagEndStream, std::string(64 * 1024 + 1, ' '));
  const auto read = [](std::string bytes) -> Result<> {
    const auto body = [](std::string in) -> Task<> {
      SlicedBody source(std::move(in), 1'000);
      FrameReader reader(&source, true, 32U << 20U);
      CO_TRY(co_await reader.next());
      co_return Result<>{};
    };
    async::Loop loop(1);
    return loop.run_plain(body(std::move(bytes)));
  };
  EXPECT_EQ(read(end).error().reason(), "too_large");
  const std::string packed = net::gzip_compress(std::string(1'000'000, ' ')).value();
  EXPECT_EQ(read(raw_envelope(kFlagEndStream | kFlagCompressed, packed)).error().reason(), "too_large");
  EXPECT_TRUE(read(raw_envelope(0, std::string(64 * 1024 + 1, ' '))));
}

TEST(Wire, BrokenFramesAreTypedErrors) {
  EXPECT_EQ(frames_of(raw_envelope(0, "cut").substr(0, 6), 3).error().code(), Code::kInvalidArgument);
  EXPECT_EQ(frames_of(std::string("\0\0", 2), 3).error().code(), Code::kInvalidArgument);
  EXPECT_EQ(frames_of(raw_envelope(0, std::string(1001, 'x')), 64).error().reason(), "too_large");
  EXPECT_EQ(frames_of(std::string("\0\xff\xff\xff\xff", 5), 64).error().reason(), "too_large");
  EXPECT_EQ(frames_of(raw_envelope(kFlagCompressed, "x"), 64).error().code(), Code::kInternal);
  EXPECT_EQ(frames_of(raw_envelope(kFlagCompressed, "not gzip"), 64, true).error().code(),
            Code::kInvalidArgument);
}

TEST(Wire, GzipBombsStopAtTheLimit) {
  const std::string packed = net::gzip_compress(std::string(50'000'000, 'a')).value();
  EXPECT_LT(packed.size(), 1'000'000U);
  EXPECT_EQ(net::gzip_decompress(packed, 1000).error().reason(), "too_large");
  EXPECT_EQ(net::gzip_decompress(packed, 50'000'000).value().size(), 50'000'000U);
  EXPECT_FALSE(net::gzip_decompress(packed.substr(0, packed.size() / 2), 50'000'000));
}

TEST(Wire, ErrorsKeepReasonFieldAndDetails) {
  const Error error = Error(Code::kInvalidArgument, "vcpus is out of range")
                          .with_reason("out_of_range")
                          .with_field("vcpus")
                          .with_detail({"example.Detail", std::string("\0\1\2", 3)});
  const auto back = error_from_json(error_json(error), Code::kUnknown);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->code(), Code::kInvalidArgument);
  EXPECT_EQ(back->reason(), "out_of_range");
  EXPECT_EQ(back->field(), "vcpus");
  ASSERT_EQ(back->details().size(), 1U);
  EXPECT_EQ(back->details()[0].value, std::string("\0\1\2", 3));
  EXPECT_FALSE(error_from_json("<html>", Code::kUnknown));
  EXPECT_EQ(error_from_json(R"({"message":"m"})", Code::kUnavailable)->code(), Code::kUnavailable);
}

TEST(Wire, EndOfStreamCarriesTrailers) {
  net::Headers trailers;
  trailers.add("X-Count", "1");
  trailers.add("x-count", "2");
  const auto end = end_stream_from_json(end_stream_json(std::nullopt, trailers)).value();
  EXPECT_FALSE(end.error);
  EXPECT_EQ(end.trailers.all().size(), 2U);
  EXPECT_FALSE(end_stream_from_json("[1]"));
}

TEST(Wire, JsonIgnoresUnknownFieldsAndRejectsNonsense) {
  process::SendSignalRequest request;
  ASSERT_TRUE(parse(R"({"process":{"pid":7},"signal":"SIGNAL_SIGKILL","new":1})", Codec::kJson, &request));
  EXPECT_EQ(request.process().pid(), 7U);
  EXPECT_EQ(request.signal(), process::SIGNAL_SIGKILL);
  EXPECT_FALSE(parse("{", Codec::kJson, &request));
  EXPECT_FALSE(parse(R"({"process":"no"})", Codec::kJson, &request));
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += '[';
  EXPECT_FALSE(parse(deep, Codec::kJson, &request)) << "depth is bounded";
}

TEST(Wire, TimeoutsAreChecked) {
  net::Headers headers;
  EXPECT_FALSE(parse_timeout(headers).value());
  headers.set("Connect-Timeout-Ms", "1500");
  EXPECT_EQ(parse_timeout(headers).value(), Milliseconds(1500));
  for (const char* bad : {"-1", "1s", "99999999999", " 5"}) {
    headers.set("Connect-Timeout-Ms", bad);
    EXPECT_FALSE(parse_timeout(headers)) << bad;
  }
}

}  // namespace
}  // namespace wrenn::connect
