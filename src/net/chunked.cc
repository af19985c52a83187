#include "net/chunked.h"

#include <algorithm>

#include "net/limits.h"

namespace wrenn::net {
namespace {

// 16^15 is more than any body.
constexpr std::size_t kMaxSizeDigits = 15;

std::unexpected<Error> malformed(const char* what) {
  return fail(Code::kInvalidArgument, std::string("bad chunked body: ") + what);
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

Result<ChunkDecoder::Decoded> ChunkDecoder::decode(std::string_view input, std::span<char> out) {
  Decoded result;
  while (result.consumed < input.size() && state_ != State::kDone) {
    if (state_ != State::kData) {
      if (auto taken = take(input[result.consumed]); !taken) {
        state_ = State::kFailed;
        return fail(std::move(taken).error());
      }
      ++result.consumed;
      continue;
    }
    const std::size_t count = static_cast<std::size_t>(
        std::min<std::uint64_t>({left_, input.size() - result.consumed, out.size() - result.produced}));
    if (count == 0) break;
    std::copy_n(input.data() + result.consumed, count, out.data() + result.produced);
    result.consumed += count;
    result.produced += count;
    left_ -= count;
    if (left_ == 0) state_ = State::kDataCr;
  }
  result.done = state_ == State::kDone;
  return result;
}

Result<> ChunkDecoder::take(char c) {
  switch (state_) {
    case State::kSize:
      return take_size(c);
    case State::kExtension:
      if (c == '\n') return malformed("a line ends without CR");
      if (c == '\r') state_ = State::kSizeEnd;
      if (++skipped_ > kMaxChunkSkippedBytes) return malformed("too long extensions");
      return {};
    case State::kSizeEnd:
      if (c != '\n') return malformed("CR without LF");
      state_ = left_ > 0 ? State::kData : State::kTrailer;
      digits_ = 0;
      return {};
    case State::kDataCr:
      if (c != '\r') return malformed("a chunk is longer than its size");
      state_ = State::kDataLf;
      return {};
    case State::kDataLf:
      if (c != '\n') return malformed("CR without LF");
      state_ = State::kSize;
      return {};
    case State::kTrailer:
    case State::kTrailerLf:
      return take_trailer(c);
    case State::kFailed:
      return malformed("it already was");
    case State::kData:
    case State::kDone:
      break;
  }
  return {};
}

Result<> ChunkDecoder::take_size(char c) {
  if (const int digit = hex_digit(c); digit >= 0) {
    if (++digits_ > kMaxSizeDigits) return malformed("a chunk's size is too large");
    left_ = left_ * 16 + static_cast<std::uint64_t>(digit);
    return {};
  }
  if (digits_ == 0) return malformed("a chunk has no size");
  if (c == '\r') {
    state_ = State::kSizeEnd;
  } else if (c == ';' || c == ' ' || c == '\t') {
    state_ = State::kExtension;
  } else {
    return malformed("a chunk's size is no number");
  }
  return {};
}

Result<> ChunkDecoder::take_trailer(char c) {
  if (++skipped_ > kMaxChunkSkippedBytes) return malformed("too long trailers");
  if (state_ == State::kTrailerLf) {
    if (c != '\n') return malformed("CR without LF");
    state_ = trailer_line_ == 0 ? State::kDone : State::kTrailer;
    trailer_line_ = 0;
    return {};
  }
  if (c == '\n') return malformed("a line ends without CR");
  if (c == '\r') {
    state_ = State::kTrailerLf;
  } else {
    ++trailer_line_;
  }
  return {};
}

}  // namespace wrenn::net
