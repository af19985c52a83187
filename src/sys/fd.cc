#include "sys/fd.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>

#include "async/async.h"

namespace wrenn::sys {

void Fd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Result<Pipe> make_pipe() {
  int fds[2] = {-1, -1};
  if (::pipe2(fds, O_CLOEXEC) != 0) return fail_errno("pipe2");
  return Pipe{.read = Fd(fds[0]), .write = Fd(fds[1])};
}

Result<Fd> duplicate(int fd) {
  const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (copy < 0) return fail_errno("dup");
  return Fd(copy);
}

Result<> set_nonblocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) return fail_errno("fcntl O_NONBLOCK");
  return {};
}

namespace {

// Waits on a duplicate: Asio keeps per-descriptor state and two waits may be on one descriptor.
Task<> wait_for_event(int fd, asio::posix::descriptor_base::wait_type type) {
  if (co_await async::is_cancelled()) co_return fail(async::canceled_error());
  Fd copy = CO_TRY(duplicate(fd));
  boost::system::error_code assign_error;
  asio::posix::stream_descriptor descriptor(co_await asio::this_coro::executor);
  descriptor.assign(copy.get(), assign_error);
  if (assign_error) co_return fail(Error::from_errno(assign_error.value(), "epoll"));
  copy.release();
  const bool reading = type == asio::posix::descriptor_base::wait_read;
  pollfd ready{.fd = fd, .events = static_cast<short>(reading ? POLLIN : POLLOUT), .revents = 0};
  do {
    const auto [ec] = co_await descriptor.async_wait(type, asio::as_tuple(asio::use_awaitable));
    if (ec == asio::error::operation_aborted) co_return fail(async::canceled_error());
    if (ec) co_return fail(Error::from_errno(ec.value(), "epoll"));
    // Asio may hand on an event of the descriptor whose state had this one's place before; the kernel knows.
  } while (::poll(&ready, 1, 0) == 0);
  co_return Result<>{};
}

}  // namespace

Task<> wait_readable(int fd) { return wait_for_event(fd, asio::posix::descriptor_base::wait_read); }

Task<> wait_writable(int fd) { return wait_for_event(fd, asio::posix::descriptor_base::wait_write); }

}  // namespace wrenn::sys
