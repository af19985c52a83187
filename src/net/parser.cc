#include "net/parser.h"

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <iterator>

#include "net/framing.h"
#include "net/limits.h"

namespace wrenn::net {
namespace {

namespace http = boost::beast::http;
using boost::system::error_code;

Error parse_error(const error_code& ec) {
  if (ec == http::error::header_limit || ec == http::error::buffer_overflow) {
    return Error(Code::kResourceExhausted, "header fields too large").with_reason("header_too_large");
  }
  return Error(Code::kInvalidArgument, "malformed HTTP message: " + ec.message());
}

template <class Fields>
Headers copy_fields(const Fields& fields) {
  Headers headers;
  for (const auto& field : fields) {
    const auto name = field.name_string();
    const auto value = field.value();
    headers.add({name.data(), name.size()}, {value.data(), value.size()});
  }
  return headers;
}

class AnyParser {
 public:
  virtual ~AnyParser() = default;
  virtual std::size_t put(std::string_view input, error_code& ec) = 0;
  virtual bool head_done() const = 0;
  virtual std::size_t field_count() const = 0;
  virtual ParsedHead head() = 0;
};

template <bool is_request>
class TypedParser final : public AnyParser {
 public:
  TypedParser(std::size_t max_header_bytes, bool no_body) {
    parser_.header_limit(static_cast<std::uint32_t>(max_header_bytes));
    parser_.body_limit(boost::none);
    if constexpr (!is_request) parser_.skip(no_body);
  }
  std::size_t put(std::string_view input, error_code& ec) override {
    return parser_.put(asio::const_buffer(input.data(), input.size()), ec);
  }
  bool head_done() const override { return parser_.is_header_done(); }
  std::size_t field_count() const override {
    return static_cast<std::size_t>(std::distance(parser_.get().begin(), parser_.get().end()));
  }
  ParsedHead head() override {
    auto& message = parser_.get();
    ParsedHead head;
    if constexpr (is_request) {
      head.request.method = std::string(message.method_string());
      head.request.target = std::string(message.target());
      head.request.headers = copy_fields(message);
    } else {
      head.status = static_cast<int>(message.result_int());
      head.headers = copy_fields(message);
    }
    head.keep_alive = parser_.keep_alive();
    head.http10 = message.version() < 11;
    if (const auto length = parser_.content_length()) head.announced = *length;
    if (parser_.is_done()) {
      head.body = BodyKind::kNone;
    } else if (parser_.chunked()) {
      head.body = BodyKind::kChunked;
    } else if (head.announced) {
      head.body = *head.announced == 0 ? BodyKind::kNone : BodyKind::kLength;
      head.length = *head.announced;
    } else {
      head.body = is_request ? BodyKind::kNone : BodyKind::kUntilEof;
    }
    return head;
  }

 private:
  http::parser<is_request, http::buffer_body> parser_;
};

}  // namespace

struct Parser::Impl {
  Role role;
  std::unique_ptr<AnyParser> parser;
  ChunkDecoder chunks;
};

Parser::Parser(Role role, std::size_t max_header_bytes, bool no_body) : impl_(std::make_unique<Impl>()) {
  impl_->role = role;
  if (role == Role::kRequest) {
    impl_->parser = std::make_unique<TypedParser<true>>(max_header_bytes, no_body);
  } else {
    impl_->parser = std::make_unique<TypedParser<false>>(max_header_bytes, no_body);
  }
}

Parser::~Parser() = default;

Result<std::size_t> Parser::parse_head(std::string_view input) {
  error_code ec;
  const std::size_t used = impl_->parser->put(input, ec);
  if (ec && ec != http::error::need_more) return fail(parse_error(ec));
  return used;
}

bool Parser::head_complete() const { return impl_->parser->head_done(); }

Result<ParsedHead> Parser::take_head() {
  if (impl_->parser->field_count() > kMaxHeaderFields) {
    return fail(Error(Code::kResourceExhausted, "too many header fields").with_reason("header_too_large"));
  }
  ParsedHead head = impl_->parser->head();
  const bool request = impl_->role == Role::kRequest;
  TRY(request ? judge_request(&head.request, head.http10) : judge_framing(head.headers, head.http10));
  return head;
}

Result<Parser::Decoded> Parser::decode(std::string_view input, std::span<char> out) {
  return impl_->chunks.decode(input, out);
}

}  // namespace wrenn::net
