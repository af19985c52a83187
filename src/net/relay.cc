#include "net/relay.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>

#include "net/byte_stream.h"
#include "net/limits.h"

namespace wrenn::net {

using asio::ip::tcp;

struct Relay::State {
  State(asio::any_io_executor executor, Endpoint to)
      : acceptor(executor), target(std::move(to)), open(executor) {}
  tcp::acceptor acceptor;
  Endpoint target;
  async::Nursery open;

  Task<> serve(std::shared_ptr<Connection> client) {
    const auto guest = std::make_shared<Connection>(CO_TRY(co_await connect_stream(target)));
    ConnectionStream here(std::move(client));
    ConnectionStream there(guest);
    const Result<> done = co_await tunnel(&here, &there);
    // A reset connection is nobody's error here.
    if (!done && done.error().code() == Code::kCanceled) co_return done;
    co_return Result<>{};
  }
};

Relay::Relay(std::unique_ptr<State> state) : state_(std::move(state)) {}
Relay::~Relay() = default;

Result<std::unique_ptr<Relay>> Relay::listen(asio::any_io_executor executor, const Endpoint& at,
                                             Endpoint target) {
  boost::system::error_code ec;
  const auto address = asio::ip::make_address(at.host, ec);
  if (ec) return fail(Code::kInvalidArgument, at.host + " is no address");
  auto state = std::make_unique<State>(std::move(executor), std::move(target));
  const tcp::endpoint endpoint(address, at.port);
  state->acceptor.open(endpoint.protocol(), ec);
  if (!ec) state->acceptor.set_option(tcp::acceptor::reuse_address(true), ec);
  if (!ec) state->acceptor.bind(endpoint, ec);
  if (!ec) state->acceptor.listen(kListenBacklog, ec);
  if (ec == asio::error::address_in_use) return fail(Code::kAlreadyExists, at.to_string() + " is taken");
  if (ec) return fail(Code::kUnavailable, "listen on " + at.to_string() + ": " + ec.message());
  return std::unique_ptr<Relay>(new Relay(std::move(state)));
}

Task<> Relay::run() {
  State& state = *state_;
  Result<> ended;
  while (ended) {
    if (state.open.size() >= kMaxRelayConnections) {
      ended = co_await async::sleep_for(kRelayPause);
      continue;
    }
    auto [ec, socket] = co_await state.acceptor.async_accept(asio::as_tuple(asio::use_awaitable));
    if (ec && co_await async::is_cancelled()) ended = fail(async::canceled_error());
    if (ec && ended) ended = co_await async::sleep_for(kRelayPause);  // no descriptors left, say
    if (ec) continue;
    state.open.spawn("relay", state.serve(std::make_shared<Connection>(Stream(Socket(std::move(socket))))));
  }
  co_await state.open.cancel_and_join();
  co_return ended;
}

}  // namespace wrenn::net
