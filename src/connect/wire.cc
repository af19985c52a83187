#include "connect/wire.h"

#include <fmt/format.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <exception>

#include "base/bytes.h"
#include "connect/limits.h"
#include "net/gzip.h"

namespace wrenn::connect {
namespace {

constexpr std::size_t kReadBytes = 16 * 1024;

std::string_view media_type(std::string_view content_type) {
  return trim(content_type.substr(0, content_type.find(';')));
}

}  // namespace

Result<std::string> serialize(const Message& message, Codec codec) {
  std::string out;
  if (codec == Codec::kProto) {
    if (!message.SerializeToString(&out)) return fail(Code::kInternal, "cannot serialize the message");
    return out;
  }
  const auto status = google::protobuf::util::MessageToJsonString(message, &out);
  if (!status.ok()) return fail(Code::kInternal, fmt::format("cannot write JSON: {}", status.ToString()));
  return out;
}

Result<> parse(std::string_view bytes, Codec codec, Message* out) {
  if (codec == Codec::kProto) {
    if (!out->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
      return fail(Code::kInvalidArgument, "the message is not valid protobuf");
    }
    return {};
  }
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  try {
    const auto status =
        google::protobuf::util::JsonStringToMessage({bytes.data(), bytes.size()}, out, options);
    if (!status.ok()) {
      return fail(Code::kInvalidArgument,
                  fmt::format("the message is not valid JSON: {}", status.ToString()));
    }
  } catch (const std::exception& e) {
    return fail(Code::kInvalidArgument, fmt::format("the message is not valid JSON: {}", e.what()));
  }
  return {};
}

std::optional<Codec> unary_codec(std::string_view content_type) {
  const std::string_view type = media_type(content_type);
  if (type == "application/proto") return Codec::kProto;
  if (type == "application/json") return Codec::kJson;
  return std::nullopt;
}

std::optional<Codec> stream_codec(std::string_view content_type) {
  const std::string_view type = media_type(content_type);
  if (type == "application/connect+proto") return Codec::kProto;
  if (type == "application/connect+json") return Codec::kJson;
  return std::nullopt;
}

std::string unary_content_type(Codec codec) {
  return codec == Codec::kProto ? "application/proto" : "application/json";
}

std::string stream_content_type(Codec codec) {
  return codec == Codec::kProto ? "application/connect+proto" : "application/connect+json";
}

int http_status_of(Code code) {
  constexpr std::array<int, 17> kStatus = {200, 499, 500, 400, 504, 404, 409, 403, 429,
                                           400, 409, 400, 501, 500, 503, 500, 401};
  return kStatus.at(static_cast<std::size_t>(code));
}

Code code_of_http_status(int status) {
  switch (status) {
    case 400:
      return Code::kInternal;
    case 401:
      return Code::kUnauthenticated;
    case 403:
      return Code::kPermissionDenied;
    case 404:
      return Code::kUnimplemented;
    case 429:
    case 502:
    case 503:
    case 504:
      return Code::kUnavailable;
    default:
      return Code::kUnknown;
  }
}

Result<bool> is_gzip(std::string_view encoding) {
  if (encoding.empty() || encoding == "identity") return false;
  if (encoding == "gzip") return true;
  return fail(Code::kUnimplemented,
              fmt::format("unknown compression \"{}\": supported encodings are gzip, identity", encoding));
}

bool accepts_gzip(std::string_view accept_encoding) {
  while (!accept_encoding.empty()) {
    const std::size_t comma = accept_encoding.find(',');
    const std::string_view entry = trim(accept_encoding.substr(0, comma));
    if (trim(entry.substr(0, entry.find(';'))) == "gzip") return true;
    if (comma == std::string_view::npos) break;
    accept_encoding.remove_prefix(comma + 1);
  }
  return false;
}

Result<std::optional<Milliseconds>> parse_timeout(const net::Headers& headers) {
  const std::string_view text = headers.get("connect-timeout-ms");
  if (text.empty()) return std::optional<Milliseconds>{};
  std::int64_t value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc() || end != text.data() + text.size() || value < 0 || text.size() > kMaxTimeoutDigits) {
    return fail(Code::kInvalidArgument, "Connect-Timeout-Ms is not a number of at most ten digits");
  }
  return std::optional<Milliseconds>(Milliseconds(value));
}

std::string raw_envelope(std::uint8_t flags, std::string_view payload) {
  const auto size = static_cast<std::uint32_t>(payload.size());
  std::string out;
  out.reserve(kEnvelopeHeaderBytes + payload.size());
  out += static_cast<char>(flags);
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>((size >> shift) & 0xFF);
  out += payload;
  return out;
}

Result<std::string> envelope(const Message& message, Encoding encoding) {
  std::string bytes = TRY(serialize(message, encoding.codec));
  if (!encoding.gzip || bytes.empty()) return raw_envelope(0, bytes);
  return raw_envelope(kFlagCompressed, TRY(net::gzip_compress(bytes)));
}

Task<bool> FrameReader::fill(std::size_t wanted) {
  if (start_ > 0 && end_ - start_ < wanted) {
    std::copy(buffer_.data() + start_, buffer_.data() + end_, buffer_.data());
    end_ -= start_;
    start_ = 0;
  }
  while (end_ - start_ < wanted) {
    if (end_ == buffer_.size()) buffer_.resize(std::max(kReadBytes, std::min(2 * end_, wanted)));
    const std::size_t got = CO_TRY(co_await body_->read(std::span(buffer_).subspan(end_)));
    if (got == 0) co_return false;
    end_ += got;
  }
  co_return true;
}

Task<std::optional<Frame>> FrameReader::next() {
  if (!CO_TRY(co_await fill(kEnvelopeHeaderBytes))) {
    if (end_ == start_) co_return std::optional<Frame>{};
    co_return fail(Code::kInvalidArgument, "the stream ended inside a message");
  }
  Frame frame{.flags = static_cast<std::uint8_t>(buffer_[start_]), .payload = {}};
  std::uint32_t size = 0;
  for (std::size_t i = 1; i < kEnvelopeHeaderBytes; ++i) {
    size = (size << 8) | static_cast<std::uint8_t>(buffer_[start_ + i]);
  }
  const bool end = (frame.flags & kFlagEndStream) != 0;
  const std::size_t limit = end ? std::min(limit_, kMaxEndStreamBytes) : limit_;
  if (size > limit) {
    co_return fail(Error(Code::kResourceExhausted, fmt::format("message is larger than {} bytes", limit))
                       .with_reason("too_large"));
  }
  if (!CO_TRY(co_await fill(kEnvelopeHeaderBytes + size))) {
    co_return fail(Code::kInvalidArgument, "the stream ended inside a message");
  }
  frame.payload = buffer_.substr(start_ + kEnvelopeHeaderBytes, size);
  start_ += kEnvelopeHeaderBytes + size;
  if ((frame.flags & kFlagCompressed) != 0) {
    if (!gzip_) co_return fail(Code::kInternal, "a compressed message, but no compression was agreed");
    if (!frame.payload.empty()) frame.payload = CO_TRY(net::gzip_decompress(frame.payload, limit));
  }
  co_return std::optional<Frame>(std::move(frame));
}

}  // namespace wrenn::connect
