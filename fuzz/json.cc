// Bodies and frames of REST clients.
#include "base/bytes.h"
#include "control/json_input.h"
#include "control/text_stream.h"
#include "input.h"

using namespace wrenn;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const fuzz::Input input(data, size);
  if (const auto parsed = control::JsonInput::parse(input.text)) {
    for (const char* field : {"a", "cmd", ""}) {
      if (const auto number = parsed->integer(field, -5, 5, 0))
        fuzz::require(*number >= -5 && *number <= 5, "range");
      if (const auto text = parsed->text(field, 8, ""))
        fuzz::require(text->size() <= 8 && is_utf8(*text), "text");
      (void)parsed->boolean(field, true);
      if (const auto texts = parsed->texts(field, 2, 8)) fuzz::require(texts->size() <= 2, "count");
      (void)parsed->text_map(field, 2, 8);
    }
  }
  control::TextStream stream;
  const std::size_t step = 1 + input.choice % 7;
  std::string joined;
  const auto take = [&joined](std::optional<control::TextStream::Piece> piece) {
    if (!piece) return;
    if (!piece->base64) fuzz::require(is_utf8(piece->data), "pieces are UTF-8");
    joined += piece->base64 ? from_base64(piece->data).value() : piece->data;
  };
  for (std::size_t at = 0; at < input.text.size(); at += step) take(stream.push(input.text.substr(at, step)));
  take(stream.finish());
  fuzz::require(joined == input.text, "no byte of output is lost");
  return 0;
}
