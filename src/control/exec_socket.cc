#include <boost/json/serialize.hpp>

#include "base/bytes.h"
#include "base/log.h"
#include "control/api_error.h"
#include "control/exec_request.h"
#include "control/http_api.h"
#include "control/limits.h"
#include "control/text_stream.h"
#include "net/websocket.h"

namespace wrenn::control {
namespace {

namespace rpc = hostagent::v1;

constexpr std::uint16_t kNormalClose = 1000;
constexpr std::uint16_t kPolicyClose = 1008;
constexpr std::int32_t kStoppedExitCode = -1;

// A browser tells where its page came from. Pages of other places may not use the socket, unless they know
// the key: then it is in the header.
bool same_origin(const net::Headers& headers) {
  const std::string_view origin = headers.get("Origin");
  if (origin.empty()) return true;
  const std::size_t scheme = origin.find("://");
  return scheme != std::string_view::npos && ascii_iequal(origin.substr(scheme + 3), headers.get("Host"));
}

}  // namespace

// One exec/stream connection: authenticate, start, stream until the end, a stop, or a disconnect.
class HttpApi::ExecSocket {
 public:
  ExecSocket(HttpApi* api, CallPtr call, std::unique_ptr<net::WebSocket> socket)
      : api_(api), call_(std::move(call)), socket_(std::move(socket)) {}

  Task<> run() {
    auto ran = co_await session();
    if (ran || ran.error().code() == Code::kCanceled) co_return Result<>{};
    const ApiError api = to_api_error(ran.error());
    boost::json::object frame{{"type", "error"}, {"data", api.message}, {"code", api.code}};
    auto told = co_await send(std::move(frame));
    if (told) told = co_await socket_->close(kPolicyClose, api.code);
    co_return Result<>{};
  }

 private:
  Task<> session() {
    if (call_->principal.team_id.empty()) CO_TRY(co_await authenticate());
    auto request = CO_TRY(co_await receive_start());
    CO_TRY(co_await api_->service_->require_running(call_->principal.team_id, call_->sandbox_id));
    api_->service_->note_activity(call_->sandbox_id);
    auto ran = co_await async::run_until(pump(std::move(request)), listen());
    api_->service_->note_activity(call_->sandbox_id);
    if (!stopped_) co_return ran;
    boost::json::object frame{{"type", "exit"}, {"exit_code", kStoppedExitCode}, {"reason", "stopped"}};
    CO_TRY(co_await send(std::move(frame)));
    co_return co_await socket_->close(kNormalClose, "");
  }

  Task<JsonInput> receive_frame(Milliseconds limit, std::string what) {
    auto message = CO_TRY(co_await async::with_timeout(socket_->receive(), limit, std::move(what)));
    if (!message) co_return fail(async::canceled_error());
    co_return JsonInput::parse(message->data);
  }

  Task<> authenticate() {
    const JsonInput frame = CO_TRY(co_await receive_frame(kSocketAuthDeadline, "authentication"));
    const std::string type = CO_TRY(frame.text("type", 64));
    if (type != "auth") {
      co_return fail(Code::kUnauthenticated, "send X-API-Key, or {\"type\":\"auth\",\"token\":KEY} first");
    }
    std::string token = CO_TRY(frame.text("token", 256));
    call_->principal = CO_TRY(co_await api_->auth_->check(std::move(token), call_->peer));
    co_return Result<>{};
  }

  Task<rpc::ExecStreamRequest> receive_start() {
    while (true) {
      const JsonInput frame = CO_TRY(co_await receive_frame(kSocketStartDeadline, "the start frame"));
      const std::string type = CO_TRY(frame.text("type", 64));
      // A client that sent its key as a header may send the auth frame as well.
      if (type == "auth") continue;
      if (type != "start") co_return bad_request("type", "the first frame must be of type start");
      co_return parse_exec(frame, call_->sandbox_id, 0);
    }
  }

  // Returns when the command must end: on a stop frame, and when the client is gone.
  Task<> listen() {
    while (true) {
      auto message = co_await socket_->receive();
      if (!message && message.error().code() == Code::kCanceled) co_return fail(std::move(message).error());
      if (!message || !*message) co_return Result<>{};
      auto frame = JsonInput::parse((*message)->data);
      if (!frame) continue;
      auto type = frame->text("type", 64, "");
      if (type && *type == "stop") {
        stopped_ = true;
        co_return Result<>{};
      }
    }
  }

  Task<> pump(rpc::ExecStreamRequest request) {
    auto stream = CO_TRY(co_await api_->agent_->exec_stream(std::move(request)));
    rpc::ExecStreamResponse event;
    while (true) {
      auto more = co_await stream->receive(&event);
      if (!more) co_return fail(from_agent(std::move(more).error()));
      if (!*more) break;
      if (event.has_start()) {
        boost::json::object frame{{"type", "start"}, {"pid", event.start().pid()}};
        CO_TRY(co_await send(std::move(frame)));
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

  // Closes here, while the listener still reads the client's answer to the close.
  Task<> send_exit(rpc::ExecStreamEnd end) {
    CO_TRY(co_await send_output(false, stdout_.finish()));
    CO_TRY(co_await send_output(true, stderr_.finish()));
    boost::json::object frame{{"type", "exit"}, {"exit_code", end.exit_code()}};
    if (!end.error().empty()) frame["reason"] = end.error();
    CO_TRY(co_await send(std::move(frame)));
    co_return co_await socket_->close(kNormalClose, "");
  }

  Task<> send_output(bool err, std::optional<TextStream::Piece> piece) {
    if (!piece) co_return Result<>{};
    boost::json::object frame{{"type", err ? "stderr" : "stdout"}, {"data", std::move(piece->data)}};
    if (piece->base64) frame["encoding"] = "base64";
    co_return co_await send(std::move(frame));
  }

  Task<> send(boost::json::object frame) {
    return async::with_timeout(socket_->send({boost::json::serialize(frame), true}), kBodyWriteDeadline,
                               "sending to the client");
  }

  HttpApi* api_;
  CallPtr call_;
  std::unique_ptr<net::WebSocket> socket_;
  TextStream stdout_;
  TextStream stderr_;
  bool stopped_ = false;
};

Task<> HttpApi::exec_stream(CallPtr call) {
  const net::Headers& headers = call->exchange->request().headers;
  if (headers.has("X-API-Key")) {
    call->principal = CO_TRY(co_await auth_->check(std::string(headers.get("X-API-Key")), call->peer));
    CO_TRY(co_await service_->require_running(call->principal.team_id, call->sandbox_id));
  } else if (!same_origin(headers)) {
    co_return fail(Code::kPermissionDenied, "pages of another origin must authenticate with X-API-Key");
  }
  if (!ascii_iequal(headers.get("Upgrade"), "websocket"))
    co_return bad_request("", "this route is a WebSocket");
  auto socket = CO_TRY(co_await call->exchange->accept_websocket());
  call->upgraded = true;
  ExecSocket session(this, call, std::move(socket));
  co_return co_await session.run();
}

}  // namespace wrenn::control
