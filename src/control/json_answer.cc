#include "control/json_answer.h"

#include <fmt/format.h>

#include "async/async.h"
#include "control/limits.h"

namespace wrenn::control {
namespace {

constexpr char kWhat[] = "sending to the client";

bool stands_for_itself(char c) { return static_cast<unsigned char>(c) >= 0x20 && c != '"' && c != '\\'; }

void append_escape(std::string* out, char c) {
  switch (c) {
    case '"':
    case '\\':
      *out += '\\';
      *out += c;
      return;
    case '\n':
      *out += "\\n";
      return;
    case '\r':
      *out += "\\r";
      return;
    case '\t':
      *out += "\\t";
      return;
    default:
      *out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
  }
}

}  // namespace

void append_json_text(std::string* out, std::string_view text) {
  while (!text.empty()) {
    std::size_t plain = 0;
    while (plain < text.size() && stands_for_itself(text[plain])) ++plain;
    *out += text.substr(0, plain);
    if (plain == text.size()) return;
    append_escape(out, text[plain]);
    text.remove_prefix(plain + 1);
  }
}

JsonAnswer::JsonAnswer(std::shared_ptr<net::Exchange> exchange, int status, net::Headers headers)
    : exchange_(std::move(exchange)), status_(status), headers_(std::move(headers)) {
  headers_.set("Content-Type", "application/json");
}

bool JsonAnswer::full() const { return piece_.size() >= kAnswerPieceBytes; }

Task<> JsonAnswer::send() {
  if (!exchange_->started()) {
    CO_TRY(co_await async::with_timeout(exchange_->start(status_, headers_), kBodyWriteDeadline, kWhat));
  }
  co_return co_await async::with_timeout(exchange_->write(std::exchange(piece_, {})), kBodyWriteDeadline,
                                         kWhat);
}

Task<> JsonAnswer::finish() {
  if (!exchange_->started()) {
    co_return co_await async::with_timeout(
        exchange_->respond(status_, std::move(headers_), std::move(piece_)), kBodyWriteDeadline, kWhat);
  }
  CO_TRY(co_await send());
  co_return co_await exchange_->finish();
}

}  // namespace wrenn::control
