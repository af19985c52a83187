#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace wrenn::control {

// Turns a stream of bytes into pieces for JSON: text as it is, other bytes in base64. A character cut between
// two chunks is held back and goes out whole with the next.
class TextStream {
 public:
  struct Piece {
    std::string data;
    bool base64 = false;
  };
  // Nullopt when there is nothing whole to send yet.
  std::optional<Piece> push(std::string_view bytes);
  // What is held back at the end of the stream.
  std::optional<Piece> finish();

 private:
  std::string carry_;
};

}  // namespace wrenn::control
