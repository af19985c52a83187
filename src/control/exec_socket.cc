#include "control/api_error.h"
#include "control/exec_request.h"
#include "control/http_api.h"
#include "control/json_socket.h"
#include "control/limits.h"
#include "control/process_events.h"

namespace wrenn::control {
namespace {

namespace rpc = hostagent::v1;

constexpr std::int32_t kStoppedExitCode = -1;

}  // namespace

// One exec/stream connection: start, stream until the end, a stop, or a disconnect.
class HttpApi::ExecSocket {
 public:
  ExecSocket(HttpApi* api, CallPtr call, JsonSocket* socket)
      : api_(api), call_(std::move(call)), socket_(socket), sender_(socket) {}

  Task<> run() {
    const JsonInput frame = CO_TRY(co_await api_->first_frame(call_, socket_));
    if (CO_TRY(frame.text("type", kMaxFrameTypeBytes)) != "start") {
      co_return bad_request("type", "the first frame must be of type start");
    }
    auto request = CO_TRY(parse_exec(frame, call_->sandbox_id, 0));
    api_->service_->note_activity(call_->sandbox_id);
    auto ran = co_await async::run_until(stream(std::move(request)), listen());
    api_->service_->note_activity(call_->sandbox_id);
    if (!stopped_) co_return ran;
    CO_TRY(
        co_await socket_->send({{"type", "exit"}, {"exit_code", kStoppedExitCode}, {"reason", "stopped"}}));
    co_return co_await socket_->close();
  }

 private:
  // Returns when the command must end: on a stop frame, and when the client is gone.
  Task<> listen() {
    while (true) {
      const auto frame = co_await socket_->receive();
      if (!frame && frame.error().code() == Code::kCanceled) co_return fail(frame.error());
      if (!frame) continue;
      if (!*frame) co_return Result<>{};
      const auto type = (*frame)->text("type", kMaxFrameTypeBytes, "");
      if (type && *type == "stop") {
        stopped_ = true;
        co_return Result<>{};
      }
    }
  }

  // A failure is told here, while the listener still reads the client's answer to the close.
  Task<> stream(rpc::ExecStreamRequest request) {
    co_return co_await api_->end_socket(call_, socket_, co_await pump(std::move(request)));
  }

  Task<> pump(rpc::ExecStreamRequest request) {
    const auto events = CO_TRY(co_await api_->agent_->exec_stream(std::move(request)));
    co_return co_await sender_.run(events.get());
  }

  HttpApi* api_;
  CallPtr call_;
  JsonSocket* socket_;
  ProcessEventSender sender_;
  bool stopped_ = false;
};

Task<> HttpApi::exec_stream(CallPtr call) {
  JsonSocket socket = CO_TRY(co_await open_socket(call));
  ExecSocket session(this, call, &socket);
  co_return co_await end_socket(call, &socket, co_await session.run());
}

}  // namespace wrenn::control
