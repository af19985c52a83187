#include "net/byte_stream.h"

#include <algorithm>

namespace wrenn::net {

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

}  // namespace wrenn::net
