// Frames of a WebSocket client against our server's end.
#include <sys/socket.h>
#include <unistd.h>

#include "input.h"
#include "net/websocket_stream.h"

namespace {

using namespace wrenn;

net::RequestHead handshake() {
  net::RequestHead head{.method = "GET", .target = "/", .headers = {}};
  for (const auto& [name, value] : {std::pair{"Host", "h"},
                                    {"Connection", "Upgrade"},
                                    {"Upgrade", "websocket"},
                                    {"Sec-WebSocket-Version", "13"},
                                    {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}}) {
    head.headers.add(name, value);
  }
  return head;
}

Task<> serve(int fd) {
  const auto executor = co_await asio::this_coro::executor;
  net::Socket socket(executor, asio::generic::stream_protocol(AF_UNIX, 0), fd);
  net::Connection connection{net::Stream(std::move(socket))};
  const auto server = CO_TRY(co_await net::accept_websocket_stream(&connection, handshake()));
  std::size_t messages = 0;
  while (auto message = CO_TRY(co_await server->receive())) {
    fuzz::require(message->data.size() <= std::size_t{1} << 20U, "the limit of a message");
    if (++messages > 64) break;
  }
  co_return Result<>{};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 32 * 1024) return 0;
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) return 0;
  (void)!::write(ends[1], data, size);
  ::shutdown(ends[1], SHUT_WR);
  (void)fuzz::loop()->run_plain(async::with_timeout(serve(ends[0]), Milliseconds(2'000), "serving"));
  ::close(ends[1]);
  return 0;
}
