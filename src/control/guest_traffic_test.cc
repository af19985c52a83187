#include "control/guest_traffic.h"

#include <gtest/gtest.h>

namespace wrenn::control {
namespace {

net::RequestHead request(std::initializer_list<std::pair<std::string, std::string>> fields) {
  net::RequestHead head{"GET", "/", {}};
  for (const auto& [name, value] : fields) head.headers.add(name, value);
  return head;
}

TrustedProxies proxies(std::string_view text) { return *TrustedProxies::parse(text); }

TEST(TrustedProxies, NobodyIsBelievedUnlessNamed) {
  const auto head = request({{"Host", "a.test"},
                             {"X-Forwarded-For", "203.0.113.9"},
                             {"X-Forwarded-Host", "evil.test"},
                             {"X-Forwarded-Proto", "https"}});
  const Caller direct = proxies("").caller_of(head, "192.0.2.1:4711");
  EXPECT_EQ(direct.address, "192.0.2.1");
  EXPECT_EQ(direct.forwarded_for, "192.0.2.1");
  EXPECT_EQ(direct.host, "a.test");
  EXPECT_EQ(direct.proto, "http");
  const Caller behind = proxies("192.0.2.0/24").caller_of(head, "192.0.2.1:4711");
  EXPECT_EQ(behind.address, "203.0.113.9");
  EXPECT_EQ(behind.forwarded_for, "203.0.113.9, 192.0.2.1");
  EXPECT_EQ(behind.host, "evil.test") << "this proxy's word counts";
  EXPECT_EQ(behind.proto, "https");
}

TEST(TrustedProxies, TheNearestUnknownHopIsTheClient) {
  const TrustedProxies trusted = proxies("10.0.0.0/8, 2001:db8:1::/48, unix");
  const auto address = [&](std::string list, std::string_view peer) {
    return trusted.caller_of(request({{"X-Forwarded-For", std::move(list)}}), peer).address;
  };
  EXPECT_EQ(address("1.1.1.1, 203.0.113.9, 10.2.2.2", "10.1.1.1:80"), "203.0.113.9") << "1.1.1.1 is a claim";
  EXPECT_EQ(address("10.3.3.3, 10.2.2.2", "10.1.1.1:80"), "10.3.3.3");
  EXPECT_EQ(address("203.0.113.9:5555", "[::ffff:10.1.1.1]:80"), "203.0.113.9");
  EXPECT_EQ(address("[2001:db8:2::7]:5555", "[2001:db8:1::1]:80"), "2001:db8:2::7");
  EXPECT_EQ(address("203.0.113.9, junk", "10.1.1.1:80"), "10.1.1.1");
  EXPECT_EQ(address("203.0.113.9", "unix"), "203.0.113.9");
  EXPECT_EQ(address("", "10.1.1.1:80"), "10.1.1.1");
  const auto two = request({{"X-Forwarded-For", "203.0.113.8"}, {"X-Forwarded-For", "203.0.113.9"}});
  EXPECT_EQ(trusted.caller_of(two, "10.1.1.1:80").address, "203.0.113.9");
  const auto standard = request({{"Forwarded", R"(for=1.1.1.1, For="[2001:db8:2::7]:80";proto=https)"}});
  EXPECT_EQ(trusted.caller_of(standard, "10.1.1.1:80").address, "2001:db8:2::7");
  EXPECT_EQ(trusted.caller_of(standard, "10.1.1.1:80").forwarded_for, "2001:db8:2::7, 10.1.1.1");
}

TEST(TrustedProxies, WhatIsNoNetworkIsNamed) {
  for (const char* text : {"10.0.0.0/33", "proxy.test", "10.0.0.0/8 10.1.0.0/16", "::/129"}) {
    const auto parsed = TrustedProxies::parse(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().code(), Code::kInvalidArgument);
  }
  EXPECT_TRUE(TrustedProxies::parse(" 127.0.0.1 ,::1,unix"));
}

TEST(TrustedProxies, AnIpv6NetworkIsOneOrigin) {
  EXPECT_EQ(network_of("2001:db8::1"), network_of("2001:db8::ffff:1"));
  EXPECT_NE(network_of("2001:db8::1"), network_of("2001:db8:0:1::1"));
  EXPECT_NE(network_of("192.0.2.1"), network_of("192.0.2.2"));
  EXPECT_EQ(network_of("unix"), "unix");
}

TEST(HeadersForGuest, NothingThatOpensSomethingOfOursTravels) {
  const auto head = request({{"x-api-KEY", "wrn_key"},
                             {"X-Access-Token", "envd's"},
                             {"E2B-Traffic-Access-Token", "traffic"},
                             {"Proxy-Authorization", "Bearer x"},
                             {"Authorization", "Bearer the program's own"},
                             {"X-Real-Ip", "1.1.1.1"},
                             {"Forwarded", "for=1.1.1.1"},
                             {"X-Forwarded-Prefix", "/x"},
                             {"Host", "a.test"}});
  const Caller caller = proxies("").caller_of(head, "[2001:db8::1]:4711");
  for (const std::uint16_t port : {std::uint16_t{8080}, kEnvdPort}) {
    const net::Headers seen = headers_for_guest(head.headers, port, caller);
    EXPECT_FALSE(seen.has("X-API-Key"));
    EXPECT_EQ(seen.has("X-Access-Token"), port == kEnvdPort);
    for (const char* name : {"E2B-Traffic-Access-Token", "Proxy-Authorization", "X-Real-Ip", "Forwarded",
                             "X-Forwarded-Prefix"}) {
      EXPECT_FALSE(seen.has(name)) << name;
    }
    EXPECT_EQ(seen.get("Authorization"), "Bearer the program's own");
    EXPECT_EQ(seen.get("X-Forwarded-For"), "2001:db8::1") << "no brackets";
    EXPECT_EQ(seen.get("X-Forwarded-Host"), "a.test");
    EXPECT_EQ(seen.get("X-Forwarded-Proto"), "http");
  }
}

TEST(Access, APrivatePortTakesTheTrafficTokenOnly) {
  store::Sandbox sandbox;
  sandbox.access_token = std::string(64, 'a');
  sandbox.public_traffic = false;
  const std::string token = traffic_token(sandbox);
  EXPECT_EQ(token.size(), 64);
  EXPECT_NE(token, sandbox.access_token);
  EXPECT_TRUE(check_access(request({{"e2b-traffic-access-token", token}}), 8080, sandbox));
  EXPECT_FALSE(check_access(request({{"x-access-token", sandbox.access_token}}), 8080, sandbox));
  EXPECT_FALSE(check_access(request({{"e2b-traffic-access-token", sandbox.access_token}}), 8080, sandbox));
  EXPECT_FALSE(check_access(request({}), 8080, sandbox));
  sandbox.access_token.clear();
  EXPECT_FALSE(check_access(request({{"e2b-traffic-access-token", ""}}), 8080, sandbox))
      << "no token, no way in";
  sandbox.public_traffic = true;
  EXPECT_TRUE(check_access(request({}), 8080, sandbox));
}

TEST(Access, WhomTheGuestAgentWouldRefuseWakesNobody) {
  store::Sandbox sandbox;
  sandbox.access_token = std::string(64, 'a');
  const auto may = [&](std::string target, std::string token) {
    net::RequestHead head = request({{"X-Access-Token", std::move(token)}});
    head.target = std::move(target);
    return check_may_wake(head, kEnvdPort, sandbox).has_value();
  };
  EXPECT_TRUE(may("/process.Process/List", sandbox.access_token));
  EXPECT_FALSE(may("/process.Process/List", "wrong"));
  EXPECT_FALSE(may("/files?path=/a", ""));
  EXPECT_TRUE(may("/files?path=/a&signature=v1_x", "")) << "the guest agent checks it";
  EXPECT_TRUE(may("/health", ""));
}

}  // namespace
}  // namespace wrenn::control
