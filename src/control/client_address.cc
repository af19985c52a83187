#include "control/client_address.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <optional>

#include "base/bytes.h"

namespace wrenn::control {
namespace {

using asio::ip::address;

constexpr std::string_view kUnixPeer = "unix";
constexpr unsigned short kNetworkBitsV6 = 64;

std::optional<address> parse_address(std::string_view text) {
  boost::system::error_code ec;
  address parsed = asio::ip::make_address(std::string(text), ec);
  if (ec) return std::nullopt;
  if (parsed.is_v6() && parsed.to_v6().is_v4_mapped()) {
    return asio::ip::make_address_v4(asio::ip::v4_mapped, parsed.to_v6());
  }
  return parsed;
}

// An address with or without a port: "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]:80".
std::optional<address> without_port(std::string_view text) {
  if (text.starts_with('[')) {
    const std::size_t end = text.find(']');
    return end == std::string_view::npos ? std::nullopt : parse_address(text.substr(1, end - 1));
  }
  if (std::ranges::count(text, ':') == 1) text = text.substr(0, text.find(':'));
  return parse_address(text);
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t end = text.find(separator);
    parts.push_back(trim(text.substr(0, end)));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

// All values of a header, in order.
std::string joined(const net::Headers& headers, std::string_view wanted) {
  std::string all;
  for (const auto& [name, value] : headers.all()) {
    if (ascii_iequal(name, wanted)) all += (all.empty() ? "" : ", ") + value;
  }
  return all;
}

// A parameter of an element of Forwarded (RFC 7239): for="[2001:db8::1]:80";proto=https.
std::string_view parameter(std::string_view element, std::string_view wanted) {
  for (std::string_view pair : split(element, ';')) {
    const std::size_t equals = pair.find('=');
    if (equals == std::string_view::npos || !ascii_iequal(trim(pair.substr(0, equals)), wanted)) continue;
    std::string_view value = trim(pair.substr(equals + 1));
    if (value.size() >= 2 && value.front() == '"' && value.back() == '"')
      value = value.substr(1, value.size() - 2);
    return value;
  }
  return {};
}

bool is_proto(std::string_view text) { return text == "http" || text == "https"; }

}  // namespace

Result<TrustedProxies> TrustedProxies::parse(std::string_view text) {
  TrustedProxies out;
  for (const std::string_view part : split(text, ',')) {
    if (part.empty()) continue;
    if (part == kUnixPeer) {
      out.unix_ = true;
      continue;
    }
    std::string network(part);
    const bool v6 = network.find(':') != std::string::npos;
    if (network.find('/') == std::string::npos) network += v6 ? "/128" : "/32";
    boost::system::error_code ec;
    if (v6) {
      out.v6_.push_back(asio::ip::make_network_v6(network, ec));
    } else {
      out.v4_.push_back(asio::ip::make_network_v4(network, ec));
    }
    if (ec) return fail(Code::kInvalidArgument, fmt::format("{} is no address, network or \"unix\"", part));
  }
  return out;
}

bool TrustedProxies::covers(std::string_view text) const {
  if (text == kUnixPeer) return unix_;
  const auto parsed = parse_address(text);
  if (!parsed) return false;
  if (parsed->is_v4()) {
    return std::ranges::any_of(v4_, [host = parsed->to_v4()](const asio::ip::network_v4& each) {
      return each.network() == asio::ip::network_v4(host, each.prefix_length()).network();
    });
  }
  return std::ranges::any_of(v6_, [host = parsed->to_v6()](const asio::ip::network_v6& each) {
    return each.network() == asio::ip::network_v6(host, each.prefix_length()).network();
  });
}

Caller TrustedProxies::caller_of(const net::RequestHead& head, std::string_view peer) const {
  const auto peer_address = without_port(peer);
  const std::string near = peer_address ? peer_address->to_string() : std::string(peer);
  Caller caller{near, near, std::string(head.headers.get("host")), "http", covers(near)};
  if (!caller.through_proxy) return caller;

  const std::string list = joined(head.headers, "x-forwarded-for");
  const std::string forwarded = joined(head.headers, "forwarded");
  const bool by_list = !list.empty() || forwarded.empty();
  auto hops = split(by_list ? list : forwarded, ',');
  // The nearest hop is the last. Whom no known proxy has seen, nobody vouches for.
  std::ranges::reverse(hops);
  for (const std::string_view hop : hops) {
    const auto parsed = without_port(by_list ? hop : parameter(hop, "for"));
    if (!parsed) break;
    caller.address = parsed->to_string();
    if (!covers(caller.address)) break;
  }
  const std::string before = by_list ? list : caller.address;
  if (!before.empty()) caller.forwarded_for = before + ", " + near;
  if (head.headers.has("x-forwarded-host")) caller.host = head.headers.get("x-forwarded-host");
  std::string proto(head.headers.get("x-forwarded-proto"));
  if (proto.empty() && !by_list) proto = parameter(split(forwarded, ',').front(), "proto");
  proto = ascii_lower(proto);
  if (is_proto(proto)) caller.proto = proto;
  return caller;
}

std::string network_of(const std::string& text) {
  const auto parsed = parse_address(text);
  if (!parsed || parsed->is_v4()) return text;
  return asio::ip::network_v6(parsed->to_v6(), kNetworkBitsV6).canonical().to_string();
}

}  // namespace wrenn::control
