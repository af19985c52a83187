#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>

#include "base/bytes.h"
#include "net/http.h"
#include "net/limits.h"

namespace wrenn::net {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+' && plus_is_space) {
      out.push_back(' ');
    } else if (text[i] == '%') {
      if (i + 2 >= text.size()) return std::nullopt;
      const int high = hex_digit(text[i + 1]);
      const int low = hex_digit(text[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      out.push_back(static_cast<char>(high * 16 + low));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

Result<std::uint16_t> parse_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (ec != std::errc() || end != text.data() + text.size()) {
    return fail(Code::kInvalidArgument, "bad port \"" + std::string(text) + "\"");
  }
  return port;
}

}  // namespace

void Headers::add(std::string name, std::string value) {
  fields_.emplace_back(std::move(name), std::move(value));
}

void Headers::set(std::string name, std::string value) {
  remove(name);
  add(std::move(name), std::move(value));
}

void Headers::remove(std::string_view name) {
  std::erase_if(fields_, [name](const auto& field) { return ascii_iequal(field.first, name); });
}

std::string_view Headers::get(std::string_view name) const {
  for (const auto& [field, value] : fields_) {
    if (ascii_iequal(field, name)) return value;
  }
  return {};
}

bool Headers::has(std::string_view name) const {
  return std::ranges::any_of(fields_, [name](const auto& field) { return ascii_iequal(field.first, name); });
}

Result<Endpoint> Endpoint::parse(std::string_view text) {
  Endpoint endpoint;
  const std::string whole(text);
  if (text.starts_with("unix:")) {
    endpoint.unix_path = text.substr(5);
    if (endpoint.unix_path.empty())
      return fail(Code::kInvalidArgument, "endpoint \"" + whole + "\" has no path");
    return endpoint;
  }
  bool has_scheme = false;
  if (text.starts_with("http://")) {
    text.remove_prefix(7);
    has_scheme = true;
  } else if (text.starts_with("https://")) {
    text.remove_prefix(8);
    has_scheme = true;
    endpoint.tls = true;
  }
  if (has_scheme && text.ends_with('/')) text.remove_suffix(1);
  if (text.find('/') != std::string_view::npos) {
    return fail(Code::kInvalidArgument, "endpoint \"" + whole + "\" must not have a path");
  }
  std::string_view port;
  if (text.starts_with('[')) {
    const auto close = text.find(']');
    if (close == std::string_view::npos)
      return fail(Code::kInvalidArgument, "bad endpoint \"" + whole + "\"");
    endpoint.host = text.substr(1, close - 1);
    port = text.substr(close + 1);
    if (!port.empty() && port.front() != ':')
      return fail(Code::kInvalidArgument, "bad endpoint \"" + whole + "\"");
  } else {
    const auto colon = text.rfind(':');
    endpoint.host = text.substr(0, colon);
    if (colon != std::string_view::npos) port = text.substr(colon);
    if (endpoint.host.find(':') != std::string::npos) {
      return fail(Code::kInvalidArgument, "write IPv6 addresses in brackets: \"" + whole + "\"");
    }
  }
  if (port.empty()) {
    if (!has_scheme || endpoint.host.empty()) {
      return fail(Code::kInvalidArgument, "endpoint \"" + whole + "\" needs host:port");
    }
    endpoint.port = endpoint.tls ? 443 : 80;
    return endpoint;
  }
  endpoint.port = TRY(parse_port(port.substr(1)));
  return endpoint;
}

Result<Endpoint> Endpoint::parse_remote(std::string_view text) {
  Endpoint endpoint = TRY(parse(text));
  if (endpoint.unix_path.empty() && endpoint.host.empty()) endpoint.host = "localhost";
  return endpoint;
}

std::string Endpoint::to_string() const {
  if (!unix_path.empty()) return "unix:" + unix_path;
  const std::string name = host.find(':') == std::string::npos ? host : "[" + host + "]";
  return (tls ? "https://" : "http://") + name + ":" + std::to_string(port);
}

std::string RequestHead::path() const {
  const std::string_view raw = std::string_view(target).substr(0, target.find('?'));
  return percent_decode(raw, false).value_or(std::string(raw));
}

std::optional<std::string> RequestHead::query(std::string_view name) const {
  const auto mark = target.find('?');
  if (mark == std::string::npos) return std::nullopt;
  std::string_view rest = std::string_view(target).substr(mark + 1);
  while (!rest.empty()) {
    const auto end = std::min(rest.find('&'), rest.size());
    const std::string_view pair = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const auto equals = std::min(pair.find('='), pair.size());
    const auto key = percent_decode(pair.substr(0, equals), true);
    if (!key || *key != name) continue;
    return percent_decode(pair.substr(std::min(equals + 1, pair.size())), true);
  }
  return std::nullopt;
}

Task<std::string> read_all(BodyReader* body, std::size_t limit) {
  std::string out;
  std::size_t used = 0;
  while (true) {
    if (out.size() == used) out.resize(std::min(std::max(kReadBufferBytes, used * 2), limit + 1));
    const std::size_t count = CO_TRY(co_await body->read(std::span(out).subspan(used)));
    if (count == 0) break;
    used += count;
    if (used > limit) {
      co_return fail(Error(Code::kResourceExhausted, fmt::format("body is larger than {} bytes", limit))
                         .with_reason("too_large"));
    }
  }
  out.resize(used);
  co_return out;
}

}  // namespace wrenn::net
