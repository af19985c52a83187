#include "net/byte_stream.h"

#include <algorithm>

namespace wrenn::net {
namespace {

class Tunnel {
 public:
  Tunnel(asio::any_io_executor executor, Milliseconds quiet) : tasks_(std::move(executor)), quiet_(quiet) {}

  // One direction may end long before the other; after an error nothing more can get through either.
  Task<> run(ByteStream* a, ByteStream* b) {
    tasks_.spawn("tunnel", direction(a, b));
    tasks_.spawn("tunnel", direction(b, a));
    CO_TRY(co_await tasks_.wait());
    co_return failure_;
  }

 private:
  Task<> pump(BodyReader* from, ByteStream* to) {
    std::string buffer(kMaxReadBufferBytes, '\0');
    while (const std::size_t got = CO_TRY(co_await from->read(buffer))) {
      ++pieces_;
      CO_TRY(co_await to->write(buffer.substr(0, got)));
    }
    to->shutdown_send();
    co_return Result<>{};
  }

  Task<> direction(BodyReader* from, ByteStream* to) {
    const Result<> done = co_await pump(from, to);
    if (!done && failure_ && !silent_) failure_ = done;
    if (!done || ++ended_ == 2) {
      tasks_.cancel();
    } else {
      tasks_.spawn("half tunnel", watch_quiet());
    }
    co_return Result<>{};
  }

  Task<> watch_quiet() {
    while (true) {
      const std::uint64_t before = pieces_;
      CO_TRY(co_await async::sleep_for(quiet_));
      silent_ = pieces_ == before;
      if (silent_) tasks_.cancel();
    }
  }

  async::Nursery tasks_;
  Milliseconds quiet_;
  std::uint64_t pieces_ = 0;
  int ended_ = 0;
  bool silent_ = false;  // nothing came of the half that was left: the regular end of such a tunnel
  Result<> failure_;
};

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

Task<> tunnel(ByteStream* a, ByteStream* b, Milliseconds quiet) {
  Tunnel both(co_await asio::this_coro::executor, quiet);
  co_return co_await both.run(a, b);
}

}  // namespace wrenn::net
