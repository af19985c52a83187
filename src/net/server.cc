#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <chrono>
#include <list>

#include "base/log.h"
#include "net/exchange.h"
#include "net/http.h"
#include "net/limits.h"

namespace wrenn::net {
namespace {

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
using asio::ip::tcp;
using Local = asio::local::stream_protocol;
using boost::system::error_code;

Error bind_error(const Endpoint& endpoint, const error_code& ec) {
  const Code code = ec == asio::error::address_in_use ? Code::kAlreadyExists : Code::kUnavailable;
  return Error(code, "cannot listen on " + endpoint.to_string() + ": " + ec.message());
}

template <class Acceptor, class Address>
error_code open_acceptor(Acceptor* acceptor, const Address& address) {
  error_code ec;
  acceptor->open(address.protocol(), ec);
  if (!ec) acceptor->set_option(asio::socket_base::reuse_address(true), ec);
  if (!ec) acceptor->bind(address, ec);
  if (!ec) acceptor->listen(kListenBacklog, ec);
  return ec;
}

// A connection the server still serves. Between requests it is idle: closed at once when the server stops, or
// when it is full and somebody else wants the place.
struct Session {
  std::shared_ptr<Connection> connection;
  bool idle = false;
  bool spoke = false;  // has sent a whole request
  bool shed = false;   // gave its place away, and is about to end
  std::list<Session*>::iterator place;
};

// How many sessions there are, and the idle ones in the order in which they may be closed: first who has
// never said anything, then who has been idle longest.
class Sessions {
 public:
  explicit Sessions(std::size_t places) : places_(places) {}

  std::size_t size() const { return size_; }

  // False when no place is free and none can be made.
  bool make_room() { return size_ - shed_ < places_ || shed_one(); }

  void add(Session* session) {
    ++size_;
    set_idle(session, true);
  }

  void remove(Session* session) {
    set_idle(session, false);
    --size_;
    if (session->shed) --shed_;
  }

  void set_idle(Session* session, bool idle) {
    if (session->shed || session->idle == idle) return;
    auto& list = session->spoke ? resting_ : silent_;
    session->idle = idle;
    if (idle) {
      session->place = list.insert(list.end(), session);
    } else {
      list.erase(session->place);
    }
  }

  bool shed_one() {
    auto& list = silent_.empty() ? resting_ : silent_;
    if (list.empty()) return false;
    Session* session = list.front();
    set_idle(session, false);
    session->shed = true;
    ++shed_;
    session->connection->stream.close();
    return true;
  }

 private:
  std::size_t places_;
  std::size_t size_ = 0;
  std::size_t shed_ = 0;  // of them, those that gave their place away
  std::list<Session*> silent_;
  std::list<Session*> resting_;
};

// What to do about it: the backlog waits until there are descriptors or memory again.
bool is_shortage(const error_code& ec) {
  return ec == asio::error::no_descriptors || ec == asio::error::no_buffer_space ||
         ec == asio::error::no_memory || ec == error_code(ENFILE, boost::system::system_category());
}

}  // namespace

struct HttpServer::State {
  State(asio::any_io_executor ex, Handler h, ServerOptions o)
      : executor(std::move(ex)),
        handler(std::move(h)),
        options(std::move(o)),
        sessions(options.max_connections),
        changed(executor) {}

  asio::any_io_executor executor;
  Handler handler;
  ServerOptions options;
  std::vector<tcp::acceptor> tcp_acceptors;
  std::vector<Local::acceptor> local_acceptors;
  std::vector<std::string> socket_paths;
  Sessions sessions;
  async::Condition changed;
  bool draining = false;
  std::chrono::steady_clock::time_point accept_told;

  Result<Endpoint> listen_tcp(const Endpoint& endpoint);
  Result<Endpoint> listen_unix(const Endpoint& endpoint);
  template <class Acceptor>
  Task<> accept_loop(Acceptor* acceptor, async::Nursery* connections);
  void tell_accept(const error_code& ec);
  Task<> refuse(std::shared_ptr<Connection> connection);
  Task<> serve_connection(std::shared_ptr<Connection> connection);
  Task<> serve_session(Session* session);
  Task<> serve_requests(Session* session);
  Task<std::shared_ptr<ServerExchange>> next_request(Session* session);
  Task<> drain(Milliseconds grace);
};

HttpServer::HttpServer(asio::any_io_executor executor, Handler handler, ServerOptions options)
    : state_(std::make_unique<State>(std::move(executor), std::move(handler), std::move(options))) {}

HttpServer::~HttpServer() {
  for (const std::string& path : state_->socket_paths) ::unlink(path.c_str());
}

Result<Endpoint> HttpServer::listen(const Endpoint& endpoint) {
  return endpoint.unix_path.empty() ? state_->listen_tcp(endpoint) : state_->listen_unix(endpoint);
}

Result<Endpoint> HttpServer::State::listen_tcp(const Endpoint& endpoint) {
  error_code ec;
  asio::ip::address address = asio::ip::address_v4::any();
  if (endpoint.host == "localhost") {
    address = asio::ip::address_v4::loopback();
  } else if (!endpoint.host.empty()) {
    address = asio::ip::make_address(endpoint.host, ec);
    if (ec)
      return fail(Code::kInvalidArgument, "listen address must be an IP address: " + endpoint.to_string());
  }
  tcp::acceptor acceptor(executor);
  ec = open_acceptor(&acceptor, tcp::endpoint(address, endpoint.port));
  if (ec) return fail(bind_error(endpoint, ec));
  Endpoint bound = endpoint;
  bound.port = acceptor.local_endpoint(ec).port();
  bound.tls = options.tls != nullptr;
  tcp_acceptors.push_back(std::move(acceptor));
  return bound;
}

Result<Endpoint> HttpServer::State::listen_unix(const Endpoint& endpoint) {
  if (endpoint.unix_path.size() >= sizeof(sockaddr_un::sun_path)) {
    return fail(Code::kInvalidArgument, "unix socket path is too long: " + endpoint.unix_path);
  }
  Local::acceptor acceptor(executor);
  ::unlink(endpoint.unix_path.c_str());
  const mode_t old_mask = ::umask(0177);
  const error_code ec = open_acceptor(&acceptor, Local::endpoint(endpoint.unix_path));
  ::umask(old_mask);
  if (ec) return fail(bind_error(endpoint, ec));
  local_acceptors.push_back(std::move(acceptor));
  socket_paths.push_back(endpoint.unix_path);
  return endpoint;
}

template <class Acceptor>
Task<> HttpServer::State::accept_loop(Acceptor* acceptor, async::Nursery* connections) {
  while (!co_await async::is_cancelled()) {
    auto [ec, socket] = co_await acceptor->async_accept(kTuple);
    if (ec == asio::error::operation_aborted) break;
    if (ec) {
      tell_accept(ec);
      if (is_shortage(ec)) sessions.shed_one();
      CO_TRY(co_await async::sleep_for(kAcceptPause));
      continue;
    }
    Socket peer(std::move(socket));
    if constexpr (std::is_same_v<Acceptor, tcp::acceptor>) {
      error_code ignored;
      peer.set_option(tcp::no_delay(true), ignored);
      watch_peer(&peer);
    }
    auto connection = std::make_shared<Connection>(Stream(std::move(peer)));
    connection->stream.set_stall_limit(options.write_stall_limit);
    connections->spawn("connection", serve_connection(std::move(connection)));
  }
  co_return Result<>{};
}

void HttpServer::State::tell_accept(const error_code& ec) {
  const auto now = std::chrono::steady_clock::now();
  if (accept_told.time_since_epoch().count() != 0 && now - accept_told < kAcceptLogPeriod) return;
  accept_told = now;
  log::warn("accept: {}; {} connections are open", ec.message(), sessions.size());
}

Task<> HttpServer::State::refuse(std::shared_ptr<Connection> connection) {
  net::Headers headers;
  headers.set("Retry-After", "1");
  headers.set("Connection", "close");
  headers.set("Content-Length", "0");
  const std::string text = response_head(503, headers, false);
  const auto send = [](std::shared_ptr<Connection> to, std::string answer) -> Task<> {
    CO_TRY(co_await to->stream.write({asio::buffer(answer)}));
    to->stream.shutdown_send();
    co_return co_await linger(to.get());
  };
  // Whether the answer arrives is no event of ours.
  static_cast<void>(co_await async::with_timeout(send(std::move(connection), text), kLingerTime, "503"));
  co_return Result<>{};
}

Task<> HttpServer::State::serve_connection(std::shared_ptr<Connection> connection) {
  if (!sessions.make_room()) co_return co_await refuse(std::move(connection));
  Session session;
  session.connection = std::move(connection);
  sessions.add(&session);
  const Result<> served = co_await serve_session(&session);
  sessions.remove(&session);
  changed.notify_all();
  if (!served && served.error().code() != Code::kUnavailable) co_return served;
  co_return Result<>{};
}

Task<> HttpServer::State::serve_session(Session* session) {
  if (options.tls) {
    auto& stream = session->connection->stream;
    const Result<> shaken = co_await async::with_timeout(stream.handshake_server(options.tls),
                                                         options.header_timeout, "TLS handshake");
    // The peer's matter; no event of ours.
    if (!shaken) co_return Result<>{};
  }
  co_return co_await serve_requests(session);
}

Task<> HttpServer::State::serve_requests(Session* session) {
  while (!draining) {
    sessions.set_idle(session, true);
    auto exchange = CO_TRY(co_await next_request(session));
    if (!exchange || session->shed) co_return Result<>{};
    sessions.set_idle(session, false);
    session->spoke = true;
    Result<> handled = co_await handler(exchange);
    if (!handled && handled.error().code() == Code::kInternal) log::error("{}", handled.error().to_string());
    if (!CO_TRY(co_await exchange->settle(std::move(handled)))) co_return Result<>{};
    session->connection->input.shrink();
  }
  co_return Result<>{};
}

namespace {

Task<bool> fill_head(Connection* connection, Parser* parser) {
  while (true) {
    const std::size_t used = CO_TRY(parser->parse_head(connection->input.view()));
    connection->input.consume(used);
    if (parser->head_complete()) co_return true;
    if (!CO_TRY(co_await connection->fill())) co_return false;
  }
}

// Of a request whose head cannot be served.
int status_of_refusal(Code code) {
  switch (code) {
    case Code::kResourceExhausted:
      return 431;
    case Code::kDeadlineExceeded:
      return 408;
    case Code::kUnimplemented:
      return 501;
    default:
      return 400;
  }
}

}  // namespace

// Null when the connection ended between requests or after a refusal.
Task<std::shared_ptr<ServerExchange>> HttpServer::State::next_request(Session* session) {
  const auto& connection = session->connection;
  const auto nothing = std::shared_ptr<ServerExchange>();
  if (connection->input.empty()) {
    const Milliseconds limit = session->spoke ? options.idle_timeout : options.header_timeout;
    const auto more = co_await async::with_timeout(connection->fill(), limit, "idle connection");
    if (!more || !*more) co_return nothing;
  }
  auto parser = std::make_unique<Parser>(Parser::Role::kRequest, options.max_header_bytes);
  const auto complete = co_await async::with_timeout(fill_head(connection.get(), parser.get()),
                                                     options.header_timeout, "request head");
  if (complete && !*complete) co_return nothing;
  auto head = complete ? parser->take_head() : fail(complete.error());
  if (head) co_return std::make_shared<ServerExchange>(connection, *std::move(head), std::move(parser));
  const Code code = head.error().code();
  if (code == Code::kUnavailable || code == Code::kCanceled) co_return nothing;
  const int status = status_of_refusal(code);
  net::Headers headers;
  headers.set("Connection", "close");
  auto refusal = std::make_shared<ServerExchange>(connection, ParsedHead{}, nullptr);
  CO_TRY(co_await refusal->respond(status, std::move(headers), ""));
  CO_TRY(co_await refusal->settle(Result<>{}));
  co_return nothing;
}

Task<> HttpServer::State::drain(Milliseconds grace) {
  draining = true;
  while (sessions.shed_one()) {
  }
  const auto until = std::chrono::steady_clock::now() + grace;
  while (sessions.size() > 0) {
    const auto left = std::chrono::ceil<Milliseconds>(until - std::chrono::steady_clock::now());
    if (left.count() <= 0 || !co_await changed.wait_for(left)) break;
  }
  co_return Result<>{};
}

Task<> HttpServer::serve(Milliseconds grace) {
  State& state = *state_;
  async::Nursery accepts(state.executor);
  async::Nursery connections(state.executor);
  for (auto& acceptor : state.tcp_acceptors)
    accepts.spawn("accept", state.accept_loop(&acceptor, &connections));
  for (auto& acceptor : state.local_acceptors) {
    accepts.spawn("accept", state.accept_loop(&acceptor, &connections));
  }
  async::Condition until_cancelled(state.executor);
  while (co_await until_cancelled.wait()) {
  }
  co_await accepts.cancel_and_join();
  error_code ignored;
  for (auto& acceptor : state.tcp_acceptors) acceptor.close(ignored);
  for (auto& acceptor : state.local_acceptors) acceptor.close(ignored);
  const Result<> drained = co_await async::shielded(state.drain(grace));
  co_await connections.cancel_and_join();
  co_return drained;
}

}  // namespace wrenn::net
