#pragma once

#include <chrono>
#include <optional>
#include <vector>

#include "net/limits.h"
#include "net/parser.h"
#include "net/stream.h"

// Inside src/net: a stream with buffered input that speaks HTTP/1.1 messages, for both sides.
namespace wrenn::net {

class InputBuffer {
 public:
  std::string_view view() const { return {data_.data() + begin_, end_ - begin_}; }
  bool empty() const { return begin_ == end_; }
  std::size_t size() const { return end_ - begin_; }
  void consume(std::size_t count);
  // Free room of at least kReadBufferBytes / 2.
  std::span<char> prepare();
  void commit(std::size_t count);
  // Gives a grown, empty buffer back.
  void shrink();

 private:
  std::vector<char> data_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

bool is_token(std::string_view text);
// True if names are tokens and no value can break out of its line.
bool headers_are_safe(const Headers& headers);
void append_headers(std::string* out, const Headers& headers);

struct Connection {
  explicit Connection(Stream s) : stream(std::move(s)) {}
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Reads more input; false at the end of the stream.
  Task<bool> fill();

  Stream stream;
  InputBuffer input;
};

// The body of one message being received on a connection.
class BodySource {
 public:
  BodySource() = default;
  BodySource(Connection* connection, std::unique_ptr<Parser> parser, BodyKind kind, std::uint64_t length);

  // As BodyReader::read.
  Task<std::size_t> read(std::span<char> buffer);
  bool done() const { return done_; }
  // Bytes still to come; nullopt if only the end of the body will tell.
  std::optional<std::uint64_t> known_rest() const;
  // Drops what has been received of the body but not read.
  void skip_buffered();

 private:
  Task<std::size_t> read_length(std::span<char> buffer);
  Task<std::size_t> read_chunked(std::span<char> buffer);
  Task<std::size_t> read_raw(std::span<char> buffer);

  Connection* connection_ = nullptr;
  std::unique_ptr<Parser> parser_;
  BodyKind kind_ = BodyKind::kNone;
  std::uint64_t left_ = 0;
  bool done_ = true;
};

// Reads and drops what still comes, to its end: an answer sent before it would be lost with a reset.
Task<> linger(Connection* connection);

// "1a\r\n" and "\r\n" around a chunk are written with it in one call.
Task<> write_chunk(Connection* connection, std::string bytes);

}  // namespace wrenn::net
