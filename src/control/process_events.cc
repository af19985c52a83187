#include "control/process_events.h"

#include "control/api_error.h"

namespace wrenn::control {

namespace rpc = hostagent::v1;

Task<> ProcessEventSender::run(connect::ClientCall* events) {
  rpc::ExecStreamResponse event;
  while (true) {
    auto more = co_await events->receive(&event);
    if (!more) co_return fail(from_agent(std::move(more).error()));
    if (!*more) break;
    if (event.has_start()) {
      CO_TRY(co_await socket_->send({{"type", "start"}, {"pid", event.start().pid()}}));
    } else if (event.has_data()) {
      const bool err = event.data().has_stderr();
      TextStream& text = err ? stderr_ : stdout_;
      CO_TRY(co_await send_output(err, text.push(err ? event.data().stderr() : event.data().stdout())));
    } else if (event.has_end()) {
      co_return co_await send_exit(event.end());
    }
  }
  co_return fail(from_agent(Error(Code::kInternal, "the command's stream ended without its exit code")));
}

Task<> ProcessEventSender::send_exit(rpc::ExecStreamEnd end) {
  CO_TRY(co_await send_output(false, stdout_.finish()));
  CO_TRY(co_await send_output(true, stderr_.finish()));
  boost::json::object frame{{"type", "exit"}, {"exit_code", end.exit_code()}};
  if (!end.error().empty()) frame["reason"] = end.error();
  CO_TRY(co_await socket_->send(std::move(frame)));
  co_return co_await socket_->close();
}

Task<> ProcessEventSender::send_output(bool err, std::optional<TextStream::Piece> piece) {
  if (!piece) co_return Result<>{};
  boost::json::object frame{{"type", err ? "stderr" : "stdout"}, {"data", std::move(piece->data)}};
  if (piece->base64) frame["encoding"] = "base64";
  co_return co_await socket_->send(std::move(frame));
}

}  // namespace wrenn::control
