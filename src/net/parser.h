#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "net/chunked.h"
#include "net/http.h"

// Inside src/net: reading HTTP/1.1 messages out of bytes, without I/O.
namespace wrenn::net {

enum class BodyKind { kNone, kLength, kChunked, kUntilEof };

struct ParsedHead {
  RequestHead request;  // of a request
  int status = 0;       // of a response
  Headers headers;      // of a response
  bool keep_alive = false;
  bool http10 = false;
  BodyKind body = BodyKind::kNone;
  std::uint64_t length = 0;  // kLength
  BodyLength announced;      // Content-Length, also of a response without a body
};

// One message: its head, then, for a chunked body, the framing.
class Parser {
 public:
  enum class Role { kRequest, kResponse };
  // `no_body`: a response to HEAD.
  Parser(Role role, std::size_t max_header_bytes, bool no_body = false);
  ~Parser();

  // Takes what it can use from `input` and answers how much. kInvalidArgument if malformed,
  // kResourceExhausted if the head is too large.
  Result<std::size_t> parse_head(std::string_view input);
  bool head_complete() const;
  // kInvalidArgument, kUnimplemented or kResourceExhausted when the head is well written but RFC 9112 tells
  // to refuse it; for a server 400, 501 and 431.
  Result<ParsedHead> take_head();

  using Decoded = ChunkDecoder::Decoded;
  // Chunked bodies only. Nothing consumed and produced: more input is needed.
  Result<Decoded> decode(std::string_view input, std::span<char> out);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace wrenn::net
