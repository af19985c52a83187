#include "cli/shell.h"

#include <unistd.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <csignal>
#include <cstdlib>

#include "base/bytes.h"
#include "cli/limits.h"
#include "cli/terminal.h"
#include "sys/fd.h"
#include "sys/file.h"

namespace wrenn::cli {
namespace {

constexpr std::uint16_t kNormalClosure = 1000;
constexpr std::size_t kInputBytes = 4096;

Task<> send_json(net::WebSocket* socket, json::value value) {
  co_return co_await socket->send({.data = json::serialize(value), .text = true});
}

Task<> forward_input(net::WebSocket* socket) {
  std::array<char, kInputBytes> buffer{};
  while (true) {
    CO_TRY(co_await sys::wait_readable(STDIN_FILENO));
    const ssize_t got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) co_return fail_errno("read standard input");
    // The end of a pipe is Ctrl-D for a terminal.
    const std::string_view bytes =
        got == 0 ? std::string_view("\x04") : std::string_view(buffer.data(), static_cast<std::size_t>(got));
    CO_TRY(co_await send_json(socket, {{"type", "input"}, {"data", to_base64(bytes)}}));
    if (got == 0) co_return Result<>{};
  }
}

Task<> forward_resizes(net::WebSocket* socket) {
  asio::signal_set changed(co_await asio::this_coro::executor, SIGWINCH);
  while (!co_await async::is_cancelled()) {
    const auto [ec, signal] = co_await changed.async_wait(asio::as_tuple(asio::use_awaitable));
    if (ec) co_return fail(async::canceled_error());
    const TerminalSize size = terminal_size(STDOUT_FILENO);
    CO_TRY(co_await send_json(socket, {{"type", "resize"}, {"cols", size.cols}, {"rows", size.rows}}));
  }
  co_return fail(async::canceled_error());
}

std::string field(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

Task<int> follow(Context* context, net::WebSocket* socket) {
  while (true) {
    auto message = CO_TRY(co_await socket->receive());
    if (!message) co_return fail(Code::kUnavailable, "the service closed the terminal");
    boost::system::error_code ec;
    const json::value parsed = json::parse(message->data, ec);
    if (ec || !parsed.is_object()) co_return fail(Code::kInternal, "a frame of the terminal is not JSON");
    const json::object& frame = parsed.get_object();
    const std::string type = field(frame, "type");
    if (type == "output") {
      std::string bytes = CO_TRY(from_base64(field(frame, "data")));
      CO_TRY(co_await async::offload(context->loop->pool(),
                                     [bytes = std::move(bytes)](async::Blocking blocking) -> Result<> {
                                       return sys::write_all(blocking, STDOUT_FILENO, bytes);
                                     }));
    } else if (type == "exit") {
      const json::value* code = frame.if_contains("exit_code");
      co_return code != nullptr && code->is_int64() ? static_cast<int>(code->get_int64()) : 0;
    } else if (type == "error") {
      const json::value* fatal = frame.if_contains("fatal");
      if (fatal == nullptr || !fatal->is_bool() || fatal->get_bool()) {
        co_return fail(Code::kInternal, field(frame, "data"));
      }
    }
  }
}

json::value start_frame(const Args& args) {
  const TerminalSize size = terminal_size(STDOUT_FILENO);
  json::object start{{"type", "start"}, {"cols", size.cols}, {"rows", size.rows}};
  start["cmd"] = args.command_line.empty() ? "/bin/bash" : args.command_line.front();
  if (args.command_line.size() > 1) {
    start["args"] = json::array(args.command_line.begin() + 1, args.command_line.end());
  }
  const char* term = std::getenv("TERM");
  start["envs"] = json::object{{"TERM", term != nullptr && *term != '\0' ? term : "xterm-256color"}};
  return start;
}

}  // namespace

Task<int> shell_command(Context* context) {
  const std::string id = CO_TRY(co_await context->api->resolve(context->args.ids.front()));
  auto socket = CO_TRY(co_await context->api->socket(id, "/pty"));
  CO_TRY(co_await send_json(socket.get(), start_frame(context->args)));

  Result<int> code = 0;
  {
    std::optional<RawTerminal> raw;
    if (is_terminal(STDIN_FILENO)) raw.emplace(CO_TRY(RawTerminal::enter(STDIN_FILENO)));
    async::Nursery nursery(co_await asio::this_coro::executor);
    nursery.spawn("terminal input", forward_input(socket.get()));
    nursery.spawn("terminal size", forward_resizes(socket.get()));
    code = co_await follow(context, socket.get());
    co_await nursery.cancel_and_join();
  }
  // A terminal nobody looks at any more ends with its viewer.
  if (!code) {
    static_cast<void>(co_await async::shielded(async::with_timeout(
        send_json(socket.get(), {{"type", "kill"}}), Milliseconds(1'000), std::string("ending the shell"))));
  }
  static_cast<void>(co_await async::shielded(async::with_timeout(
      socket->close(kNormalClosure, "done"), Milliseconds(1'000), std::string("closing the terminal"))));
  if (!code) co_return fail(std::move(code).error());
  co_return *code < 0 ? 255 : *code & 0xff;
}

}  // namespace wrenn::cli
