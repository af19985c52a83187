#include "host/slot_setup.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <net/if.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "base/log.h"
#include "host/conntrack.h"
#include "host/limits.h"
#include "sys/file.h"
#include "sys/process.h"

namespace wrenn::host {
namespace {

constexpr const char* kNetnsDir = "/run/netns";
constexpr std::string_view kNetnsPrefix = "wrenn-";
constexpr const char* kIpForward = "/proc/sys/net/ipv4/ip_forward";
// nft keeps the rate and burst in 32 bits in places.
constexpr std::uint64_t kMaxNftRate = 0xffff'ffff;
constexpr const char* kTapMac = "02:FC:00:00:00:06";

// Whether a process lives in the network namespace that is mounted at `path`.
Result<bool> occupied(async::Blocking blocking, const std::string& path) {
  struct stat wanted{};
  if (::stat(path.c_str(), &wanted) != 0) {
    if (errno == ENOENT) return false;
    return fail_errno("stat " + path);
  }
  for (const std::string& name : TRY(sys::list_dir(blocking, "/proc"))) {
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    struct stat its{};
    // One that cannot be asked has just ended.
    if (::stat(("/proc/" + name + "/ns/net").c_str(), &its) != 0) continue;
    if (its.st_dev == wanted.st_dev && its.st_ino == wanted.st_ino) return true;
  }
  return false;
}

Result<> run_with_input(async::Blocking blocking, std::vector<std::string> argv, const std::string& input) {
  sys::SpawnSpec spec;
  spec.argv = std::move(argv);
  TRY(sys::run_checked(blocking, std::move(spec), kCommandLimit, input));
  return {};
}

// Where a guest may never go: what IANA's registry of special-purpose IPv4 addresses calls not globally
// reachable, multicast, and addresses of clouds that answer for the machine they are asked from. Of the
// registry the networks for documentation (RFC 5737) are left out: nobody has them, and tests use them as the
// internet.
constexpr std::string_view kForbidden =
    "0.0.0.0/8, "       // this network (RFC 791)
    "10.0.0.0/8, "      // private (RFC 1918), slots among them
    "100.64.0.0/10, "   // shared by providers (RFC 6598); 100.100.100.200 is Alibaba's metadata
    "127.0.0.0/8, "     // loopback (RFC 1122)
    "168.63.129.16, "   // Azure's host: goal state and settings of the machine, a public address
    "169.254.0.0/16, "  // link-local (RFC 3927); 169.254.169.254 is most clouds' metadata
    "172.16.0.0/12, "   // private (RFC 1918)
    "192.0.0.0/24, "    // for protocols (RFC 6890); 192.0.0.192 is Oracle's metadata
    "192.88.99.0/24, "  // relays to IPv6 (RFC 7526)
    "192.168.0.0/16, "  // private (RFC 1918)
    "198.18.0.0/15, "   // benchmarks (RFC 2544)
    "224.0.0.0/4, "     // multicast (RFC 5771)
    "240.0.0.0/4";      // reserved (RFC 1112), and broadcast

struct Addresses {
  std::string host_end;  // of the veth pair
  std::string guest_end;
  std::string host_ip;
};

Addresses addresses_of(int index) {
  const int offset = 2 * index;
  return {.host_end = fmt::format("10.12.{}.{}", offset / 256, offset % 256),
          .guest_end = fmt::format("10.12.{}.{}", (offset + 1) / 256, (offset + 1) % 256),
          .host_ip = fmt::format("10.11.{}.{}", index / 256, index % 256)};
}

// `match`'s packets beyond the limit are dropped.
std::string limit_rule(const char* match, std::uint64_t bytes_per_sec) {
  if (bytes_per_sec == 0) return "";
  return fmt::format("{0} limit rate over {1} bytes/second burst {1} bytes drop", match,
                     std::min(bytes_per_sec, kMaxNftRate));
}

// The first packet of a connection beyond the limits is dropped, so it never gets into the table of the
// namespace nor the host's; those that follow in one without answers are not counted again.
std::string connection_rules(const NetworkOptions& options) {
  constexpr std::string_view kFirst = "iifname \"tap0\" ct state new ct status & confirmed == 0";
  std::string rules;
  if (options.connections_per_sec > 0) {
    rules += fmt::format("{0} limit rate over {1}/second burst {1} packets drop\n    ", kFirst,
                         options.connections_per_sec);
  }
  if (options.connections > 0) rules += fmt::format("{} ct count over {} drop", kFirst, options.connections);
  return rules;
}

std::string slot_rules(const Addresses& a, const NetworkOptions& options) {
  // Connections into the guest come from the agent only; the guest's own go out through eth0 after the ban
  // list. Replies pass by connection tracking.
  return fmt::format(R"(
table netdev wrenn {{
  chain ingress {{
    type filter hook ingress device tap0 priority 0; policy accept;
    ether saddr != 02:fc:00:00:00:05 drop
    ether type arp arp saddr ip != 169.254.0.21 drop
    ether type ip ip saddr != 169.254.0.21 drop
    ether type != {{ ip, arp }} drop
    {limit_sent}
  }}
}}
table ip wrenn {{
  chain input {{ type filter hook input priority 0; policy drop; }}
  chain output {{ type filter hook output priority 0; policy drop; }}
  chain forward {{
    type filter hook forward priority 0; policy drop;
    {limit_received}
    ct state established,related accept
    ct state invalid drop
    iifname "eth0" oifname "tap0" ip daddr 169.254.0.21 ct status dnat accept
    iifname "tap0" ip daddr {{ {forbidden} }} drop
    {limit_connections}
    iifname "tap0" oifname "eth0" accept
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    iifname "eth0" ip daddr {host_ip} dnat to 169.254.0.21
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    oifname "tap0" snat to 169.254.0.22
    oifname "eth0" snat to {guest_end}
  }}
}}
table ip6 wrenn {{
  chain forward {{ type filter hook forward priority 0; policy drop; }}
  chain input {{ type filter hook input priority 0; policy drop; }}
  chain output {{ type filter hook output priority 0; policy drop; }}
}}
)",
                     fmt::arg("forbidden", kForbidden), fmt::arg("host_ip", a.host_ip),
                     fmt::arg("guest_end", a.guest_end),
                     fmt::arg("limit_sent", limit_rule("", options.bytes_per_sec)),
                     fmt::arg("limit_received", limit_rule("oifname \"tap0\"", options.bytes_per_sec)),
                     fmt::arg("limit_connections", connection_rules(options)));
}

}  // namespace

Result<> enable_ip_forward(async::Blocking /*blocking*/) {
  const std::string now = TRY(sys::read_file(kIpForward));
  if (now.starts_with("1")) return {};
  const Result<> set = sys::write_existing(kIpForward, "1");
  if (set) return {};
  return fail(Error(Code::kFailedPrecondition,
                    "IP forwarding is off and cannot be switched on; run: sysctl -w net.ipv4.ip_forward=1")
                  .with_reason("ip_forward_off"));
}

Result<> install_host_rules(async::Blocking blocking, bool internet) {
  // `add` first, so that the following `delete` never fails; all in one transaction.
  const std::string rules = fmt::format(R"(
add table ip wrenn_agent
delete table ip wrenn_agent
add table ip6 wrenn_agent
delete table ip6 wrenn_agent
table ip6 wrenn_agent {{
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname "wrenn-v*" drop
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname "wrenn-v*" drop
    oifname "wrenn-v*" drop
  }}
}}
table ip wrenn_agent {{
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname "wrenn-v*" ct state established,related accept
    iifname "wrenn-v*" drop
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname "wrenn-v*" oifname "wrenn-v*" drop
    iifname "wrenn-v*" ip daddr {{ {forbidden} }} drop
    {policy}
    oifname "wrenn-v*" ct state established,related accept
    oifname "wrenn-v*" drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    ip saddr 10.12.0.0/16 oifname != "wrenn-v*" masquerade
  }}
}}
)",
                                        fmt::arg("forbidden", kForbidden),
                                        fmt::arg("policy", internet ? "" : "iifname \"wrenn-v*\" drop"));
  return run_with_input(blocking, {"nft", "-f", "-"}, rules);
}

Result<> remove_host_rules(async::Blocking blocking) {
  return run_with_input(blocking, {"nft", "-f", "-"},
                        "delete table ip wrenn_agent\ndelete table ip6 wrenn_agent\n");
}

Result<> create_slot(async::Blocking blocking, int index, const NetworkOptions& options) {
  const Addresses a = addresses_of(index);
  const Slot slot = SlotPool::describe(index);
  const std::string& ns = slot.netns;
  const std::string veth = fmt::format("wrenn-v{}", index);
  TRY(run_with_input(blocking, {"ip", "netns", "add", ns}, ""));
  const std::string outside = fmt::format(
      "link add {veth} type veth peer name eth0 netns {ns}\n"
      "addr add {host_end}/31 dev {veth}\n"
      "link set {veth} up\n"
      "route add {host_ip}/32 via {guest_end}\n",
      fmt::arg("veth", veth), fmt::arg("ns", ns), fmt::arg("host_end", a.host_end),
      fmt::arg("host_ip", a.host_ip), fmt::arg("guest_end", a.guest_end));
  const std::string inside = fmt::format(
      "link set lo up\n"
      "addr add {guest_end}/31 dev eth0\n"
      "link set eth0 up\n"
      "tuntap add tap0 mode tap user {uid}\n"
      "link set tap0 address {mac}\n"
      "addr add 169.254.0.22/30 dev tap0\n"
      "link set tap0 up\n"
      "route add default via {host_end}\n",
      fmt::arg("guest_end", a.guest_end), fmt::arg("host_end", a.host_end), fmt::arg("mac", kTapMac),
      fmt::arg("uid", slot.uid));
  TRY(run_with_input(blocking, {"ip", "-batch", "-"}, outside));
  TRY(run_with_input(blocking, {"ip", "-n", ns, "-batch", "-"}, inside));
  TRY(run_with_input(blocking, {"ip", "netns", "exec", ns, "nft", "-f", "-"}, slot_rules(a, options)));
  // /proc/sys/net shows the namespace of the process that opens it.
  return run_with_input(
      blocking, {"ip", "netns", "exec", ns, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"}, "");
}

Result<> remove_slot(async::Blocking blocking, int index) {
  const std::string ns = SlotPool::describe(index).netns;
  if (TRY(occupied(blocking, std::string(kNetnsDir) + "/" + ns))) {
    return fail(Error(Code::kFailedPrecondition, "a process still lives in it").with_reason("slot_occupied"));
  }
  const std::string veth = fmt::format("wrenn-v{}", index);
  if (::if_nametoindex(veth.c_str()) != 0) TRY(run_with_input(blocking, {"ip", "link", "del", veth}, ""));
  if (sys::exists(std::string(kNetnsDir) + "/" + ns))
    TRY(run_with_input(blocking, {"ip", "netns", "del", ns}, ""));
  // Or the next guests on this slot could fill the host's table one after the other.
  const Result<> forgotten =
      forget_connections_from(blocking, ::inet_addr(addresses_of(index).guest_end.c_str()));
  if (!forgotten) log::warn("network slot {}: {}", index, forgotten.error().message());
  return {};
}

Result<std::vector<int>> existing_slots(async::Blocking blocking) {
  std::vector<int> found;
  if (!sys::is_directory(kNetnsDir)) return found;
  for (const std::string& name : TRY(sys::list_dir(blocking, kNetnsDir))) {
    if (!name.starts_with(kNetnsPrefix)) continue;
    const std::string_view digits = std::string_view(name).substr(kNetnsPrefix.size());
    int index = 0;
    const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (ec == std::errc() && end == digits.data() + digits.size()) found.push_back(index);
  }
  return found;
}

}  // namespace wrenn::host
