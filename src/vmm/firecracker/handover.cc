#include "vmm/firecracker/handover.h"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <string>

namespace wrenn::vmm::firecracker {
namespace {

constexpr std::size_t kMaxMessageBytes = std::size_t{16} * 1024;

struct Message {
  std::string text;
  sys::Fd fd;
};

Result<Message> receive_message(int socket) {
  Message message{.text = std::string(kMaxMessageBytes, '\0'), .fd = {}};
  iovec part{.iov_base = message.text.data(), .iov_len = message.text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const ssize_t got = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (got < 0) return fail_errno("receive Firecracker's memory");
  message.text.resize(static_cast<std::size_t>(got));
  const cmsghdr* extra = CMSG_FIRSTHDR(&header);
  if (extra == nullptr || extra->cmsg_level != SOL_SOCKET || extra->cmsg_type != SCM_RIGHTS ||
      extra->cmsg_len != CMSG_LEN(sizeof(int))) {
    return fail(Code::kInternal, "Firecracker sent no descriptor of its memory");
  }
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(extra), sizeof fd);
  message.fd.reset(fd);
  return message;
}

std::uint64_t number_in(const boost::json::object& object, std::string_view name) {
  const auto* value = object.if_contains(name);
  if (value == nullptr) return 0;
  if (value->is_uint64()) return value->get_uint64();
  return value->is_int64() && value->get_int64() > 0 ? static_cast<std::uint64_t>(value->get_int64()) : 0;
}

}  // namespace

Result<RamRegion> parse_mappings(std::string_view text) {
  boost::system::error_code ec;
  const auto value = boost::json::parse(text, ec);
  if (ec || !value.is_array() || value.get_array().size() != 1 || !value.get_array()[0].is_object()) {
    return fail(Code::kInternal, "Firecracker described its memory in another way than expected");
  }
  const auto& mapping = value.get_array()[0].get_object();
  const RamRegion ram{.address = number_in(mapping, "base_host_virt_addr"),
                      .size = number_in(mapping, "size")};
  if (ram.address == 0 || ram.size == 0 || number_in(mapping, "offset") != 0) {
    return fail(Code::kInternal, "Firecracker's memory lies nowhere");
  }
  return ram;
}

Task<Handover> receive_handover(int socket) {
  CO_TRY(co_await sys::wait_readable(socket));
  const sys::Fd peer(::accept4(socket, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!peer) co_return fail_errno("accept Firecracker");
  CO_TRY(co_await sys::wait_readable(peer.get()));
  Message message = CO_TRY(receive_message(peer.get()));
  const RamRegion ram = CO_TRY(parse_mappings(message.text));
  co_return Handover{.fault_fd = std::move(message.fd), .ram = ram};
}

}  // namespace wrenn::vmm::firecracker
