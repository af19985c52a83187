#include "host/conntrack.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "sys/fd.h"

namespace wrenn::host {
namespace {

// Attributes of linux/netfilter/nfnetlink_conntrack.h since 5.8, and the flag that says "by source address".
constexpr std::uint16_t kFilter = 25;
constexpr std::uint16_t kFilterOrigFlags = 1;
constexpr std::uint16_t kFilterReplyFlags = 2;
constexpr std::uint32_t kBySource = 1U << 0U;

constexpr std::uint16_t kNested = NLA_F_NESTED;

// "Delete what this filter fits", as it lies in the message. All attributes are of whole words.
struct Request {
  nlmsghdr header{};
  nfgenmsg family{};
  nlattr tuple{};
  nlattr ip{};
  nlattr source{};
  std::uint32_t address = 0;
  nlattr filter{};
  nlattr orig{};
  std::uint32_t orig_flags = kBySource;
  nlattr reply{};
  std::uint32_t reply_flags = 0;
};

template <class... Inside>
nlattr attribute(std::uint16_t type, const Inside&... inside) {
  const std::size_t size = sizeof(nlattr) + (std::size_t{0} + ... + sizeof inside);
  return {.nla_len = static_cast<std::uint16_t>(size), .nla_type = type};
}

Request deletion(std::uint32_t address) {
  Request r;
  r.header.nlmsg_len = sizeof r;
  r.header.nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE;
  r.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  r.family.nfgen_family = AF_INET;
  r.family.version = NFNETLINK_V0;
  r.address = address;
  r.source = attribute(CTA_IP_V4_SRC, r.address);
  r.ip = attribute(CTA_TUPLE_IP | kNested, r.source, r.address);
  r.tuple = attribute(CTA_TUPLE_ORIG | kNested, r.ip, r.source, r.address);
  r.orig = attribute(kFilterOrigFlags, r.orig_flags);
  r.reply = attribute(kFilterReplyFlags, r.reply_flags);
  r.filter = attribute(kFilter | kNested, r.orig, r.orig_flags, r.reply, r.reply_flags);
  return r;
}

}  // namespace

Result<> forget_connections_from(async::Blocking /*blocking*/, std::uint32_t address) {
  const sys::Fd netlink(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
  if (!netlink) return fail_errno("netlink socket");
  const Request request = deletion(address);
  if (::send(netlink.get(), &request, sizeof request, 0) != sizeof request)
    return fail_errno("send to netlink");
  struct {
    nlmsghdr header;
    nlmsgerr error;
    std::array<char, sizeof(Request)> quoted;
  } answer{};
  // The kernel answers before send returns.
  if (::recv(netlink.get(), &answer, sizeof answer, MSG_DONTWAIT) < 0) return fail_errno("read from netlink");
  if (answer.header.nlmsg_type != NLMSG_ERROR) return fail(Code::kInternal, "netlink sent no answer");
  const int code = -answer.error.error;
  if (code == 0 || code == ENOENT) return {};
  if (code == EINVAL || code == EOPNOTSUPP)
    return fail(Code::kUnimplemented, "this kernel cannot forget connections by address");
  return fail(Error::from_errno(code, "forget connections"));
}

}  // namespace wrenn::host
