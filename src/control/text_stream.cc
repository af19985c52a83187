#include "control/text_stream.h"

#include <utility>

#include "base/bytes.h"

namespace wrenn::control {

std::optional<TextStream::Piece> TextStream::push(std::string_view bytes) {
  std::string data = std::exchange(carry_, {});
  data += bytes;
  const std::size_t whole = utf8_complete_prefix(data);
  if (!is_utf8(std::string_view(data).substr(0, whole))) return Piece{to_base64(data), true};
  carry_ = data.substr(whole);
  data.resize(whole);
  if (data.empty()) return std::nullopt;
  return Piece{std::move(data), false};
}

std::optional<TextStream::Piece> TextStream::finish() {
  if (carry_.empty()) return std::nullopt;
  return Piece{to_base64(std::exchange(carry_, {})), true};
}

}  // namespace wrenn::control
