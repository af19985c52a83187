#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.h"

namespace wrenn::net {

// The framing of a chunked body (RFC 9112, section 7.1), in pieces of any size. Extensions and trailers are
// skipped. Beast's own ends the program when an empty body comes in pieces of certain sizes.
class ChunkDecoder {
 public:
  struct Decoded {
    std::size_t consumed = 0;
    std::size_t produced = 0;
    bool done = false;
  };
  // Takes from `input` until it is used up, `out` is full or the body has ended. kInvalidArgument if
  // malformed, and from then on; what follows the body is left.
  Result<Decoded> decode(std::string_view input, std::span<char> out);

 private:
  enum class State {
    kSize,
    kExtension,
    kSizeEnd,
    kData,
    kDataCr,
    kDataLf,
    kTrailer,
    kTrailerLf,
    kDone,
    kFailed
  };
  Result<> take(char c);
  Result<> take_size(char c);
  Result<> take_trailer(char c);

  State state_ = State::kSize;
  std::uint64_t left_ = 0;        // of the chunk
  std::size_t digits_ = 0;        // of its size
  std::size_t skipped_ = 0;       // bytes of extensions and trailers
  std::size_t trailer_line_ = 0;  // bytes of the trailer's line so far
};

}  // namespace wrenn::net
