// Who may use a WebSocket route.
#include "base/bytes.h"
#include "control/api_error.h"
#include "control/http_api.h"
#include "control/json_socket.h"
#include "control/limits.h"

namespace wrenn::control {
namespace {

constexpr std::size_t kMaxTokenBytes = 256;

// A browser tells where its page came from. Pages of other places may not use the socket, unless they know
// the key: then it is in the header.
bool same_origin(const net::Headers& headers) {
  const std::string_view origin = headers.get("Origin");
  if (origin.empty()) return true;
  const std::size_t scheme = origin.find("://");
  return scheme != std::string_view::npos && ascii_iequal(origin.substr(scheme + 3), headers.get("Host"));
}

}  // namespace

Task<JsonSocket> HttpApi::open_socket(CallPtr call) {
  const net::Headers& headers = call->exchange->request().headers;
  if (headers.has("X-API-Key")) {
    call->principal = CO_TRY(co_await auth_->check(std::string(headers.get("X-API-Key")), call->address));
    CO_TRY(co_await service_->require_running(call->principal.team_id, call->sandbox_id));
  } else if (!same_origin(headers)) {
    co_return fail(Code::kPermissionDenied, "pages of another origin must authenticate with X-API-Key");
  }
  if (!ascii_iequal(headers.get("Upgrade"), "websocket"))
    co_return bad_request("", "this route is a WebSocket");
  auto socket = CO_TRY(co_await call->exchange->accept_websocket());
  call->upgraded = true;
  co_return JsonSocket(std::move(socket));
}

Task<> HttpApi::authenticate(CallPtr call, JsonSocket* socket) {
  if (call->principal.team_id.empty()) {
    const JsonInput frame = CO_TRY(co_await socket->receive_within(kSocketAuthDeadline, "authentication"));
    const std::string type = CO_TRY(frame.text("type", kMaxFrameTypeBytes));
    if (type != "auth") {
      co_return fail(Code::kUnauthenticated, "send X-API-Key, or {\"type\":\"auth\",\"token\":KEY} first");
    }
    std::string token = CO_TRY(frame.text("token", kMaxTokenBytes));
    call->principal = CO_TRY(co_await auth_->check(std::move(token), call->address));
  }
  CO_TRY(co_await service_->require_running(call->principal.team_id, call->sandbox_id));
  co_return Result<>{};
}

Task<JsonInput> HttpApi::first_frame(CallPtr call, JsonSocket* socket) {
  CO_TRY(co_await authenticate(call, socket));
  while (true) {
    JsonInput frame = CO_TRY(co_await socket->receive_within(kSocketStartDeadline, "the first frame"));
    // A client that sent its key as a header may send the auth frame as well.
    if (CO_TRY(frame.text("type", kMaxFrameTypeBytes)) == "auth") continue;
    CO_TRY(co_await service_->require_running(call->principal.team_id, call->sandbox_id));
    co_return frame;
  }
}

Task<> HttpApi::end_socket(CallPtr call, JsonSocket* socket, Result<> ran) {
  if (ran || ran.error().code() == Code::kCanceled) co_return Result<>{};
  const PublicError told(ran.error());
  log_failure(*call, told, ran.error());
  // A client that has left hears nothing any more.
  static_cast<void>(co_await socket->refuse(told));
  co_return Result<>{};
}

}  // namespace wrenn::control
