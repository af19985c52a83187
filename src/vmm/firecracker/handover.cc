#include "vmm/firecracker/handover.h"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
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

}  // namespace

Task<Handover> receive_handover(int socket) {
  CO_TRY(co_await sys::wait_readable(socket));
  const sys::Fd peer(::accept4(socket, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!peer) co_return fail_errno("accept Firecracker");
  CO_TRY(co_await sys::wait_readable(peer.get()));
  Message message = CO_TRY(receive_message(peer.get()));
  co_return Handover{.fault_fd = std::move(message.fd), .mappings = std::move(message.text)};
}

}  // namespace wrenn::vmm::firecracker
