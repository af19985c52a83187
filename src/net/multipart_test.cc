#include "net/multipart.h"

#include <gtest/gtest.h>

#include "net/limits.h"

namespace wrenn::net {
namespace {

struct Part {
  std::string name;
  std::string filename;
  std::string content;
  bool operator==(const Part&) const = default;
};

Result<std::vector<Part>> parse(const std::string& body, const std::vector<std::size_t>& cuts) {
  MultipartParser parser("XX");
  std::vector<Part> parts;
  std::size_t from = 0;
  for (std::size_t to : cuts) {
    for (const auto& event : TRY(parser.feed(std::string_view(body).substr(from, to - from)))) {
      if (event.kind == MultipartParser::Event::Kind::kPartBegin)
        parts.push_back({event.text, event.filename, ""});
      if (event.kind == MultipartParser::Event::Kind::kData) parts.back().content += event.text;
    }
    from = to;
  }
  if (!parser.done()) return fail(Code::kInvalidArgument, "not done");
  return parts;
}

const std::string kBody =
    "preamble\r\n--XX\r\nContent-Disposition: form-data; name=\"path\"\r\n\r\n/tmp/a\r\n"
    "--XX \r\ncontent-disposition: form-data; filename=\"a;b\\\"c\"; name=file\r\nContent-Type: x/y\r\n\r\n"
    "one\r\n--X\r\n--XYtwo\r\n\r\n--XX\r\nContent-Disposition: form-data; "
    "name=\"empty\"\r\n\r\n\r\n--XX--\r\nbye";

TEST(Multipart, TheSameAtEverySplit) {
  const std::vector<Part> wanted{
      {"path", "", "/tmp/a"}, {"file", "a;b\"c", "one\r\n--X\r\n--XYtwo\r\n"}, {"empty", "", ""}};
  for (std::size_t cut = 0; cut <= kBody.size(); ++cut) {
    const auto parts = parse(kBody, {cut, kBody.size()});
    ASSERT_TRUE(parts) << cut << parts.error().message();
    EXPECT_EQ(*parts, wanted) << cut;
  }
  std::vector<std::size_t> single;
  for (std::size_t i = 1; i <= kBody.size(); ++i) single.push_back(i);
  EXPECT_EQ(parse(kBody, single).value(), wanted);
}

TEST(Multipart, RefusesWhatIsCutOrEndless) {
  EXPECT_FALSE(parse(kBody, {kBody.size() - 10}));
  EXPECT_FALSE(parse("--XX\r\n" + std::string(kMaxPartHeaderBytes + 10, 'h'), {kMaxPartHeaderBytes + 16}));
  EXPECT_FALSE(parse("--XXjunk", {8}));
  std::string many;
  for (std::size_t i = 0; i <= kMaxParts; ++i) many += "--XX\r\n\r\nx\r\n";
  EXPECT_FALSE(parse(many, {many.size()}));
}

TEST(Multipart, FindsTheBoundary) {
  EXPECT_EQ(multipart_boundary("multipart/form-data; boundary=abc"), "abc");
  EXPECT_EQ(multipart_boundary("Multipart/Form-Data; charset=x; boundary=\"a b\""), "a b");
  EXPECT_FALSE(multipart_boundary("application/json"));
  EXPECT_FALSE(multipart_boundary("multipart/form-data"));
  EXPECT_FALSE(multipart_boundary("multipart/form-data; boundary=" + std::string(71, 'a')));
}

}  // namespace
}  // namespace wrenn::net
