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

// One direction may end long before the other; after an error nothing more can get through either.
Task<> tunnel(ByteStream* a, ByteStream* b) {
  struct Shared {
    async::Nursery both;
    Result<> failure;
  } shared{async::Nursery(co_await asio::this_coro::executor), {}};
  auto direction = [](BodyReader* from, ByteStream* to, Shared* state) -> Task<> {
    const Result<> done = co_await pump(from, to);
    if (done || !state->failure) co_return Result<>{};
    state->failure = done;
    state->both.cancel();
    co_return Result<>{};
  };
  shared.both.spawn("tunnel", direction(a, b, &shared));
  shared.both.spawn("tunnel", direction(b, a, &shared));
  CO_TRY(co_await shared.both.wait());
  co_return shared.failure;
}

}  // namespace wrenn::net
