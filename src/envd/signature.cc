#include "envd/signature.h"

#include <fmt/format.h>

#include <charconv>

#include "base/bytes.h"
#include "net/digest.h"

namespace wrenn::envd {

std::string file_signature(std::string_view path, std::string_view operation, std::string_view user,
                           std::string_view token, std::string_view expiry) {
  std::string text = fmt::format("{}:{}:{}:{}", path, operation, user, token);
  if (!expiry.empty()) text += fmt::format(":{}", expiry);
  const auto digest = net::sha256(text);
  std::string encoded = to_base64({reinterpret_cast<const char*>(digest.data()), digest.size()});
  while (encoded.ends_with('=')) encoded.pop_back();
  return "v1_" + encoded;
}

Result<> authorize_file(const net::RequestHead& head, const Settings& settings, std::int64_t now_unix) {
  if (settings.access_token.empty()) return {};
  const auto refuse = [](std::string why) { return fail(Code::kUnauthenticated, std::move(why)); };
  if (head.headers.has("x-access-token")) {
    if (equal_constant_time(head.headers.get("x-access-token"), settings.access_token)) return {};
    return refuse("X-Access-Token is wrong");
  }
  const auto given = head.query("signature");
  if (!given) return refuse("X-Access-Token or a signature is needed");
  const std::string expiry = head.query("signature_expiration").value_or("");
  const std::string wanted =
      file_signature(head.query("path").value_or(""), head.method == "GET" ? "read" : "write",
                     head.query("username").value_or(""), settings.access_token, expiry);
  if (!equal_constant_time(*given, wanted)) return refuse("the signature is wrong");
  if (expiry.empty()) return {};
  std::int64_t until = 0;
  const auto [end, ec] = std::from_chars(expiry.data(), expiry.data() + expiry.size(), until);
  if (ec != std::errc() || end != expiry.data() + expiry.size() || until < now_unix) {
    return refuse("the signature has expired");
  }
  return {};
}

}  // namespace wrenn::envd
