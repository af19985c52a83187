#pragma once

#include <boost/asio/ip/network_v4.hpp>
#include <boost/asio/ip/network_v6.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "net/http.h"

// Who sent a request. A proxy in front of us says so in headers that anybody can write, so they count only
// when they come from a proxy that is known.
namespace wrenn::control {

struct Caller {
  std::string address;        // "192.0.2.1", "2001:db8::1", or "unix"
  std::string forwarded_for;  // for whom comes behind us, as X-Forwarded-For has it
  std::string host;           // as the client asked
  std::string proto;          // "http" or "https", as the client asked
  bool through_proxy = false;
};

class TrustedProxies {
 public:
  // Addresses and networks ("10.0.0.0/8, 2001:db8::/32") and the word "unix", separated by commas.
  // kInvalidArgument names what is none of these.
  static Result<TrustedProxies> parse(std::string_view text);

  bool covers(std::string_view address) const;
  // `peer` as net::Exchange::peer() tells it.
  Caller caller_of(const net::RequestHead& head, std::string_view peer) const;

 private:
  std::vector<asio::ip::network_v4> v4_;
  std::vector<asio::ip::network_v6> v6_;
  bool unix_ = false;
};

// What counts as one origin where requests are counted: an IPv4 address, an IPv6 /64.
std::string network_of(const std::string& address);

}  // namespace wrenn::control
