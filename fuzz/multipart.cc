// multipart/form-data: the same parts at every cut, and no more content held than a delimiter.
#include "net/multipart.h"

#include "input.h"

namespace {

using namespace wrenn;

struct Outcome {
  bool ok = false;
  std::string parts;
};

Outcome run(std::string_view bytes, std::size_t step) {
  net::MultipartParser parser("XX");
  Outcome outcome;
  for (std::size_t at = 0; at < bytes.size(); at += step) {
    const auto events = parser.feed(bytes.substr(at, step));
    if (!events) return outcome;
    for (const auto& event : *events) {
      using Kind = net::MultipartParser::Event::Kind;
      if (event.kind == Kind::kPartBegin) outcome.parts += "[" + event.text + "|" + event.filename + "]";
      if (event.kind == Kind::kData) outcome.parts += event.text;
      if (event.kind == Kind::kPartEnd) outcome.parts += "!";
    }
  }
  outcome.ok = parser.done();
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const fuzz::Input input(data, size);
  (void)net::multipart_boundary(input.text);
  const Outcome whole = run(input.text, input.text.size() + 1);
  const Outcome pieces = run(input.text, 1 + input.choice % 32);
  fuzz::require(whole.ok == pieces.ok, "the cut changes nothing");
  if (whole.ok) fuzz::require(whole.parts == pieces.parts, "the cut changes no part");
  return 0;
}
