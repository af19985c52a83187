#include "net/framing.h"

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "net/connection.h"

namespace wrenn::net {
namespace {

std::unexpected<Error> refused(std::string why) { return fail(Code::kInvalidArgument, std::move(why)); }

// Calls `take` with each element of a comma-separated list, without the space around it.
template <class Take>
void for_each_element(std::string_view list, Take take) {
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    if (const std::string_view element = trim(list.substr(0, comma)); !element.empty()) take(element);
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
}

std::vector<std::string> elements_of(const Headers& headers, std::string_view name) {
  std::vector<std::string> elements;
  for (const auto& [field, value] : headers.all()) {
    if (!ascii_iequal(field, name)) continue;
    for_each_element(value, [&](std::string_view element) { elements.push_back(ascii_lower(element)); });
  }
  return elements;
}

std::size_t count_of(const Headers& headers, std::string_view name) {
  return static_cast<std::size_t>(std::ranges::count_if(
      headers.all(), [&](const auto& field) { return ascii_iequal(field.first, name); }));
}

bool is_alphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// A host and perhaps a port, by their letters only; no user name.
bool is_authority(std::string_view text) {
  return std::ranges::all_of(text, [](char c) {
    return is_alphanumeric(c) || std::string_view("-._~%!$&'()*+;=:[]").find(c) != std::string_view::npos;
  });
}

bool is_number(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

Result<> judge_codings(const Headers& headers) {
  const auto codings = elements_of(headers, "transfer-encoding");
  if (codings == std::vector<std::string>{"chunked"}) return {};
  // Without "chunked" at the end nothing tells where a body ends.
  const bool delimited = !codings.empty() && codings.back() == "chunked" &&
                         std::ranges::count(codings, std::string("chunked")) == 1;
  if (!delimited) return refused("Transfer-Encoding must be chunked");
  return fail(Code::kUnimplemented, "no transfer coding but chunked is known");
}

Result<> judge_host(const Headers& headers, bool http10) {
  const std::size_t hosts = count_of(headers, "host");
  if (hosts > 1 || (hosts == 0 && !http10)) return refused("a request has one Host");
  if (!is_authority(headers.get("host"))) return refused("Host is malformed");
  return {};
}

// How long "http://" or "https://" is at the beginning; 0 if there is neither.
std::size_t scheme_size(std::string_view target) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (ascii_iequal(target.substr(0, scheme.size()), scheme)) return scheme.size();
  }
  return 0;
}

Result<> make_origin_form(RequestHead* head) {
  if (head->target.starts_with('/')) return {};
  const std::size_t scheme = scheme_size(head->target);
  if (scheme == 0) return refused("the target must be a path or an http URL");
  const std::size_t end = std::min(head->target.find_first_of("/?", scheme), head->target.size());
  std::string authority = head->target.substr(scheme, end - scheme);
  if (authority.empty() || !is_authority(authority)) return refused("the target's host is malformed");
  std::string path = head->target.substr(end);
  if (!path.starts_with('/')) path.insert(0, "/");
  head->headers.set("Host", std::move(authority));
  head->target = std::move(path);
  return {};
}

// Methods whose requests have no body unless they announce one.
bool rarely_has_body(std::string_view method) {
  return method == "GET" || method == "HEAD" || method == "OPTIONS" || method == "TRACE";
}

bool is_safe(const RequestHead& head) {
  const auto visible = [](char c) { return static_cast<unsigned char>(c) > ' ' && c != '\x7f'; };
  return is_token(head.method) && head.target.starts_with('/') && std::ranges::all_of(head.target, visible) &&
         headers_are_safe(head.headers) && count_of(head.headers, "host") == 1;
}

}  // namespace

Result<> judge_framing(const Headers& headers, bool http10) {
  const std::size_t lengths = count_of(headers, "content-length");
  if (lengths > 1 || (lengths == 1 && !is_number(headers.get("content-length")))) {
    return refused("Content-Length must be one number");
  }
  if (!headers.has("transfer-encoding")) return {};
  if (http10) return refused("HTTP/1.0 has no Transfer-Encoding");
  if (lengths > 0) return refused("Content-Length and Transfer-Encoding exclude each other");
  return judge_codings(headers);
}

Result<> judge_request(RequestHead* head, bool http10) {
  TRY(judge_framing(head->headers, http10));
  if (head->method == "CONNECT") return fail(Code::kUnimplemented, "CONNECT is not served");
  TRY(judge_host(head->headers, http10));
  return make_origin_form(head);
}

void drop_framing(Headers* headers) {
  headers->remove("content-length");
  headers->remove("transfer-encoding");
}

std::string host_of(const Endpoint& endpoint) {
  if (!endpoint.unix_path.empty()) return "localhost";
  const bool bare = endpoint.host.find(':') == std::string::npos;
  const std::string name = bare ? endpoint.host : "[" + endpoint.host + "]";
  const bool standard = endpoint.port == (endpoint.tls ? 443 : 80);
  return standard ? name : name + ":" + std::to_string(endpoint.port);
}

Result<std::string> request_text(const Endpoint& endpoint, RequestHead head, BodyLength length,
                                 const std::string& protocol) {
  drop_framing(&head.headers);
  head.headers.remove("connection");
  head.headers.remove("upgrade");
  if (!head.headers.has("host")) head.headers.set("Host", host_of(endpoint));
  if (!protocol.empty()) {
    head.headers.set("Connection", "Upgrade");
    head.headers.set("Upgrade", protocol);
  }
  if (!length) {
    head.headers.set("Transfer-Encoding", "chunked");
  } else if (*length > 0 || !rarely_has_body(head.method)) {
    head.headers.set("Content-Length", std::to_string(*length));
  }
  if (!is_safe(head)) return refused("the request head holds what HTTP forbids");
  std::string text = head.method + " " + head.target + " HTTP/1.1\r\n";
  append_headers(&text, head.headers);
  return text + "\r\n";
}

bool is_idempotent(std::string_view method) {
  constexpr std::array<std::string_view, 6> kMethods = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"};
  return std::ranges::find(kMethods, method) != kMethods.end();
}

ConnectionOptions::ConnectionOptions(const Headers& headers) : names_(elements_of(headers, "connection")) {
  std::ranges::sort(names_);
}

bool ConnectionOptions::has(std::string_view name) const {
  return std::ranges::binary_search(names_, ascii_lower(name));
}

}  // namespace wrenn::net
