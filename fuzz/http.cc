// HTTP/1.1 heads and chunked bodies: whatever the pieces, the same outcome.
#include "input.h"
#include "net/parser.h"

namespace {

using namespace wrenn;

struct Outcome {
  bool ok = true;
  bool complete = false;
  std::string target;
  std::string body;
  bool operator==(const Outcome&) const = default;
};

constexpr std::size_t kMaxHead = 4096;

// What a server relies on, whatever came.
void check_request(const net::ParsedHead& head) {
  const net::Headers& headers = head.request.headers;
  fuzz::require(head.request.target.starts_with('/'), "targets are paths");
  fuzz::require(head.http10 || headers.has("host"), "a host");
  fuzz::require(!(headers.has("content-length") && headers.has("transfer-encoding")), "one framing");
  const bool chunked = head.body == net::BodyKind::kChunked;
  fuzz::require(chunked == headers.has("transfer-encoding"), "chunks when they are announced");
  const auto length = head.body == net::BodyKind::kLength ? head.length : 0;
  fuzz::require(chunked || length == head.announced.value_or(0), "the length that is announced");
}

Outcome run(net::Parser::Role role, std::string_view bytes, std::size_t step) {
  net::Parser parser(role, kMaxHead);
  std::string buffer;
  Outcome outcome;
  std::optional<net::ParsedHead> head;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t count = std::min(step, bytes.size() - at);
    buffer += bytes.substr(at, count);
    at += count;
    if (!head) {
      const auto used = parser.parse_head(buffer);
      if (!used) return Outcome{.ok = false};
      fuzz::require(*used <= buffer.size(), "no more is used than there is");
      buffer.erase(0, *used);
      if (!parser.head_complete()) {
        if (buffer.size() > kMaxHead) return Outcome{.ok = false};
        continue;
      }
      auto taken = parser.take_head();
      if (!taken) return Outcome{.ok = false};
      head = *std::move(taken);
      if (role == net::Parser::Role::kRequest) check_request(*head);
      outcome.complete = true;
      outcome.target = head->request.path() + head->request.query("path").value_or("");
    }
    if (head->body != net::BodyKind::kChunked) continue;
    for (std::string out(64, '\0'); !buffer.empty();) {
      const auto decoded = parser.decode(buffer, out);
      if (!decoded) return Outcome{.ok = false};
      fuzz::require(decoded->consumed <= buffer.size() && decoded->produced <= out.size(),
                    "bounds of decode");
      outcome.body += out.substr(0, decoded->produced);
      buffer.erase(0, decoded->consumed);
      if (decoded->done) return outcome;
      if (decoded->consumed == 0 && decoded->produced == 0) break;
    }
  }
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const fuzz::Input input(data, size);
  const auto role = (input.choice & 1) == 0 ? net::Parser::Role::kRequest : net::Parser::Role::kResponse;
  const Outcome whole = run(role, input.text, input.text.size() + 1);
  const Outcome pieces = run(role, input.text, 1 + (input.choice >> 1) % 16);
  // Cut differently, a message that is malformed after its end may or may not be looked at.
  if (whole.ok && pieces.ok) fuzz::require(whole.complete == pieces.complete, "the cut changes nothing");
  if (whole.ok && pieces.ok) fuzz::require(whole.target == pieces.target, "the cut changes no target");
  return 0;
}
