#include "net/byte_stream.h"

#include <algorithm>

namespace wrenn::net {
namespace {

Task<> pump(BodyReader* from, ByteStream* to) {
  std::string buffer(kMaxReadBufferBytes, '\0');
  while (const std::size_t got = CO_TRY(co_await from->read(buffer))) {
    CO_TRY(co_await to->write(buffer.substr(0, got)));
  }
  to->shutdown_send();
  co_return Result<>{};
}

}  // namespace

Task<std::size_t> ConnectionStream::read(std::span<char> buffer) {
  InputBuffer& early = connection_->input;
  if (!early.empty()) {
    const std::size_t count = std::min(buffer.size(), early.size());
    std::ranges::copy(early.view().substr(0, count), buffer.begin());
    early.consume(count);
    co_return count;
  }
  co_return co_await connection_->stream.read_some(buffer);
}

Task<> ConnectionStream::write(std::string bytes) {
  co_return co_await connection_->stream.write({asio::buffer(bytes)});
}

Task<> tunnel(ByteStream* a, ByteStream* b) {
  const auto executor = co_await asio::this_coro::executor;
  async::Nursery other(executor);
  other.spawn("tunnel", pump(b, a));
  Result<> done = co_await pump(a, b);
  // After an error nothing more can get through.
  if (!done) co_await other.cancel_and_join();
  co_await other.join();
  co_return done;
}

}  // namespace wrenn::net
