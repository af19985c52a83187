#include "net/connection.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace wrenn::net {
namespace {

bool is_token_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool is_value_char(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte == '\t' || (byte >= 0x20 && byte != 0x7f);
}

}  // namespace

void InputBuffer::consume(std::size_t count) {
  begin_ += count;
  if (begin_ == end_) begin_ = end_ = 0;
}

std::span<char> InputBuffer::prepare() {
  if (data_.empty()) data_.resize(kReadBufferBytes);
  if (data_.size() - end_ < kReadBufferBytes / 2 && begin_ > 0) {
    std::memmove(data_.data(), data_.data() + begin_, size());
    end_ -= begin_;
    begin_ = 0;
  }
  if (data_.size() - end_ < kReadBufferBytes / 2) data_.resize(data_.size() * 2);
  return {data_.data() + end_, data_.size() - end_};
}

void InputBuffer::commit(std::size_t count) {
  const bool filled = count == data_.size() - end_;
  end_ += count;
  if (filled && data_.size() < kMaxReadBufferBytes) data_.resize(data_.size() * 2);
}

void InputBuffer::shrink() {
  if (!empty() || data_.size() <= kReadBufferBytes) return;
  data_ = std::vector<char>();
}

bool is_token(std::string_view text) { return !text.empty() && std::ranges::all_of(text, is_token_char); }

bool headers_are_safe(const Headers& headers) {
  return std::ranges::all_of(headers.all(), [](const auto& field) {
    return is_token(field.first) && std::ranges::all_of(field.second, is_value_char);
  });
}

void append_headers(std::string* out, const Headers& headers) {
  for (const auto& [name, value] : headers.all()) {
    out->append(name).append(": ").append(value).append("\r\n");
  }
}

Task<bool> Connection::fill() {
  const std::size_t count = CO_TRY(co_await stream.read_some(input.prepare()));
  input.commit(count);
  co_return count > 0;
}

BodySource::BodySource(Connection* connection, std::unique_ptr<Parser> parser, BodyKind kind,
                       std::uint64_t length)
    : connection_(connection),
      parser_(std::move(parser)),
      kind_(kind),
      left_(length),
      done_(kind == BodyKind::kNone) {}

std::optional<std::uint64_t> BodySource::known_rest() const {
  if (done_) return 0;
  if (kind_ == BodyKind::kLength) return left_;
  return std::nullopt;
}

void BodySource::skip_buffered() {
  if (done_) return;
  auto& input = connection_->input;
  if (kind_ == BodyKind::kLength) {
    const auto count = std::min<std::uint64_t>(left_, input.size());
    input.consume(count);
    left_ -= count;
    done_ = left_ == 0;
  }
  std::array<char, kReadBufferBytes> scrap;
  while (kind_ == BodyKind::kChunked && !done_ && !input.empty()) {
    const auto step = parser_->decode(input.view(), scrap);
    if (!step || (step->consumed == 0 && !step->done)) return;
    input.consume(step->consumed);
    done_ = step->done;
  }
}

Task<std::size_t> BodySource::read(std::span<char> buffer) {
  if (done_ || buffer.empty()) co_return std::size_t{0};
  switch (kind_) {
    case BodyKind::kLength:
      co_return co_await read_length(buffer);
    case BodyKind::kChunked:
      co_return co_await read_chunked(buffer);
    default:
      break;
  }
  const std::size_t count = CO_TRY(co_await read_raw(buffer));
  done_ = count == 0;
  co_return count;
}

Task<std::size_t> BodySource::read_raw(std::span<char> buffer) {
  auto& input = connection_->input;
  if (input.empty()) co_return co_await connection_->stream.read_some(buffer);
  const std::size_t count = std::min(buffer.size(), input.size());
  std::memcpy(buffer.data(), input.view().data(), count);
  input.consume(count);
  co_return count;
}

Task<std::size_t> BodySource::read_length(std::span<char> buffer) {
  const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), left_));
  const std::size_t count = CO_TRY(co_await read_raw(buffer.first(want)));
  if (count == 0) co_return fail(Code::kUnavailable, "connection lost in the middle of a body");
  left_ -= count;
  done_ = left_ == 0;
  co_return count;
}

Task<std::size_t> BodySource::read_chunked(std::span<char> buffer) {
  auto& input = connection_->input;
  while (true) {
    const Parser::Decoded step = CO_TRY(parser_->decode(input.view(), buffer));
    input.consume(step.consumed);
    done_ = step.done;
    if (step.produced > 0 || done_) co_return step.produced;
    // What stays undecoded is chunk framing or trailers; those are short.
    if (input.size() >= kMaxReadBufferBytes)
      co_return fail(Code::kInvalidArgument, "chunk framing too large");
    if (!CO_TRY(co_await connection_->fill())) {
      co_return fail(Code::kUnavailable, "connection lost in the middle of a body");
    }
  }
}

Task<> linger(Connection* connection) {
  while (true) {
    connection->input.consume(connection->input.size());
    if (!CO_TRY(co_await connection->fill())) co_return Result<>{};
  }
}

Task<> write_chunk(Connection* connection, std::string bytes) {
  const std::string frame = fmt::format("{:x}\r\n", bytes.size());
  co_return co_await connection->stream.write(
      {asio::buffer(frame), asio::buffer(bytes), asio::const_buffer("\r\n", 2)});
}

}  // namespace wrenn::net
