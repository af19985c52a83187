#include "cli/exec.h"

#include <unistd.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "base/bytes.h"
#include "cli/limits.h"
#include "sys/file.h"

namespace wrenn::cli {
namespace {

constexpr std::uint16_t kNormalClosure = 1000;

std::string_view string_at(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  if (value == nullptr || !value->is_string()) return {};
  return {value->get_string().data(), value->get_string().size()};
}

// Waits for the reader of our standard streams without blocking the loop: that is the back-pressure.
Task<> write_to(asio::thread_pool* pool, int fd, std::string data) {
  co_return co_await async::offload(*pool,
                                    [fd, data = std::move(data)](async::Blocking blocking) -> Result<> {
                                      return sys::write_all(blocking, fd, data);
                                    });
}

Error error_of_frame(const ExecFrame& frame) {
  Code code = Code::kInternal;
  if (frame.code == "invalid_request") code = Code::kInvalidArgument;
  if (frame.code == "unauthorized") code = Code::kUnauthenticated;
  if (frame.code == "not_found") code = Code::kNotFound;
  if (frame.code == "invalid_state" || frame.code == "conflict") code = Code::kFailedPrecondition;
  if (frame.code == "timeout") code = Code::kDeadlineExceeded;
  return Error(code, frame.data.empty() ? "the command failed to run" : frame.data).with_reason(frame.code);
}

// What the command printed, for --json.
struct Collected {
  std::string out;
  std::string err;
};

Task<int> follow(Context* context, net::WebSocket* socket, Collected* collected) {
  while (true) {
    auto message = CO_TRY(co_await socket->receive());
    if (!message)
      co_return fail(Code::kUnavailable, "the service closed the stream before the command ended");
    ExecFrame frame = CO_TRY(parse_exec_frame(message->data));
    switch (frame.kind) {
      case ExecFrame::Kind::kStdout:
      case ExecFrame::Kind::kStderr: {
        const bool out = frame.kind == ExecFrame::Kind::kStdout;
        if (collected != nullptr) {
          (out ? collected->out : collected->err) += frame.data;
          if (collected->out.size() + collected->err.size() > kMaxResponseBytes) {
            co_return fail(Code::kResourceExhausted, "more output than --json can hold; run it without");
          }
        } else {
          CO_TRY(co_await write_to(&context->loop->pool(), out ? STDOUT_FILENO : STDERR_FILENO,
                                   std::move(frame.data)));
        }
        break;
      }
      case ExecFrame::Kind::kExit:
        co_return frame.exit_code;
      case ExecFrame::Kind::kError:
        co_return fail(error_of_frame(frame));
      default:
        break;
    }
  }
}

// The service ends a late command itself; ours is the second line.
constexpr std::chrono::seconds kTimeoutGrace{5};

json::value printable(const std::string& bytes, bool base64) {
  return json::value(base64 ? to_base64(bytes) : bytes);
}

}  // namespace

Result<ExecFrame> parse_exec_frame(std::string_view text) {
  boost::system::error_code ec;
  const json::value parsed = json::parse(text, ec);
  if (ec || !parsed.is_object()) return fail(Code::kInternal, "a frame of the stream is not JSON");
  const json::object& object = parsed.get_object();
  const std::string_view type = string_at(object, "type");
  ExecFrame frame;
  frame.data = string_at(object, "data");
  frame.code = string_at(object, "code");
  if (string_at(object, "encoding") == "base64") frame.data = TRY(from_base64(frame.data));
  if (type == "start") frame.kind = ExecFrame::Kind::kStart;
  if (type == "stdout") frame.kind = ExecFrame::Kind::kStdout;
  if (type == "stderr") frame.kind = ExecFrame::Kind::kStderr;
  if (type == "error") frame.kind = ExecFrame::Kind::kError;
  if (type == "exit") {
    frame.kind = ExecFrame::Kind::kExit;
    const json::value* code = object.if_contains("exit_code");
    if (code != nullptr && code->is_int64()) frame.exit_code = static_cast<int>(code->get_int64());
  }
  return frame;
}

Task<int> exec_command(Context* context) {
  const Args& args = context->args;
  const std::string id = CO_TRY(co_await context->api->resolve(args.ids.front()));
  auto socket = CO_TRY(co_await context->api->socket(id, "/exec/stream"));
  json::object start{{"type", "start"}, {"cmd", args.command_line.front()}};
  start["args"] = json::array(args.command_line.begin() + 1, args.command_line.end());
  if (args.exec_timeout_sec > 0) start["timeout_sec"] = args.exec_timeout_sec;
  CO_TRY(co_await socket->send({.data = json::serialize(start), .text = true}));

  Collected collected;
  const auto began = std::chrono::steady_clock::now();
  Task<int> following = follow(context, socket.get(), args.json ? &collected : nullptr);
  Result<int> code =
      args.exec_timeout_sec > 0
          ? co_await async::with_timeout(std::move(following),
                                         std::chrono::seconds(args.exec_timeout_sec) + kTimeoutGrace,
                                         std::string("the command"))
          : co_await std::move(following);
  // A closing handshake that fails takes nothing from the answer.
  static_cast<void>(co_await async::shielded(async::with_timeout(
      socket->close(kNormalClosure, "done"), Milliseconds(1'000), std::string("closing the stream"))));
  if (!code) co_return fail(std::move(code).error());
  const auto elapsed = std::chrono::steady_clock::now() - began;
  if (*code < 0 && args.exec_timeout_sec > 0 && elapsed >= std::chrono::seconds(args.exec_timeout_sec)) {
    co_return fail(Code::kDeadlineExceeded,
                   "the command was ended after " + std::to_string(args.exec_timeout_sec) + " s");
  }
  if (args.json) {
    const bool base64 = !is_utf8(collected.out) || !is_utf8(collected.err);
    const auto took = std::chrono::duration_cast<Milliseconds>(elapsed).count();
    CO_TRY(print_json({{"sandbox_id", id},
                       {"cmd", args.command_line.front()},
                       {"stdout", printable(collected.out, base64)},
                       {"stderr", printable(collected.err, base64)},
                       {"exit_code", *code},
                       {"duration_ms", took},
                       {"encoding", base64 ? "base64" : "utf-8"}}));
  }
  // A command ended by a signal is -1; shells show what no command can answer.
  co_return *code < 0 ? 255 : *code & 0xff;
}

}  // namespace wrenn::cli
