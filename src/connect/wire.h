#pragma once

#include <google/protobuf/message.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "net/http.h"

// What both sides of the protocol share: codecs, error bodies, envelopes, header names.
namespace wrenn::connect {

using google::protobuf::Message;

enum class Codec { kProto, kJson };

// How the bytes of one direction are written.
struct Encoding {
  Codec codec = Codec::kProto;
  bool gzip = false;
};

Result<std::string> serialize(const Message& message, Codec codec);
// kInvalidArgument for bytes that are not the message. Unknown fields are ignored.
Result<> parse(std::string_view bytes, Codec codec, Message* out);

// "application/proto", "application/connect+json", ...; nullopt for anything else.
std::optional<Codec> unary_codec(std::string_view content_type);
std::optional<Codec> stream_codec(std::string_view content_type);
std::string unary_content_type(Codec codec);
std::string stream_content_type(Codec codec);

int http_status_of(Code code);
// For responses that are no Connect error: what their status means.
Code code_of_http_status(int status);

std::string error_json(const Error& error);
// Nullopt when the text is no Connect error. `fallback` is the code when the text names none.
std::optional<Error> error_from_json(std::string_view text, Code fallback);

// The end-of-stream frame.
struct EndStream {
  std::optional<Error> error;
  net::Headers trailers;
};
std::string end_stream_json(const std::optional<Error>& error, const net::Headers& trailers);
Result<EndStream> end_stream_from_json(std::string_view text);

// "gzip" and "identity" (or empty) are known; others are kUnimplemented.
Result<bool> is_gzip(std::string_view encoding);
bool accepts_gzip(std::string_view accept_encoding);

// Milliseconds of a Connect-Timeout-Ms header; nullopt when absent; kInvalidArgument when malformed.
Result<std::optional<Milliseconds>> parse_timeout(const net::Headers& headers);

// Serializes and compresses one message into an envelope.
Result<std::string> envelope(const Message& message, Encoding encoding);
std::string raw_envelope(std::uint8_t flags, std::string_view payload);

inline constexpr std::uint8_t kFlagCompressed = 0x01;
inline constexpr std::uint8_t kFlagEndStream = 0x02;

struct Frame {
  std::uint8_t flags = 0;
  std::string payload;  // decompressed
};

// Cuts a body into frames.
class FrameReader {
 public:
  FrameReader(net::BodyReader* body, bool gzip, std::size_t max_message_bytes)
      : body_(body), gzip_(gzip), limit_(max_message_bytes) {}
  // Nullopt when the body ended between frames; kInvalidArgument when inside one.
  Task<std::optional<Frame>> next();

 private:
  // Reads until at least `wanted` bytes are buffered; false when the body ended before. The buffer grows with
  // what comes, not with what is announced.
  Task<bool> fill(std::size_t wanted);
  net::BodyReader* body_;
  bool gzip_;
  std::size_t limit_;
  std::string buffer_;  // bytes from start_ to end_ have come and are not taken yet
  std::size_t start_ = 0;
  std::size_t end_ = 0;
};

}  // namespace wrenn::connect
