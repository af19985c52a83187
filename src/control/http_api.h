#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "control/agent_client.h"
#include "control/answer_budget.h"
#include "control/api_error.h"
#include "control/auth.h"
#include "control/client_address.h"
#include "control/json_input.h"
#include "control/json_socket.h"
#include "control/sandbox_service.h"
#include "control/shared_calls.h"
#include "net/http.h"

namespace wrenn::control {

// The REST and WebSocket routes of proto/openapi.yaml. /v1/capsules is /v1/sandboxes under its other name.
class HttpApi {
 public:
  HttpApi(const asio::any_io_executor& executor, store::Store* store, SandboxService* service,
          Authenticator* auth, AgentClient* agent, TrustedProxies proxies);

  Task<> handle(std::shared_ptr<net::Exchange> exchange);
  // Once no request runs any more.
  asio::awaitable<void> stop() { co_await checks_.stop(); }

  struct RouteName {
    std::string_view method;
    std::string_view pattern;
  };
  // Every route, for the test that compares them with the OpenAPI document.
  static std::vector<RouteName> routes();

 private:
  // One request on its way through.
  struct Call {
    std::shared_ptr<net::Exchange> exchange;
    std::string request_id;
    std::string address;  // the client's
    Principal principal;
    std::string sandbox_id;
    std::string selector;  // a process: its pid, or its tag
    std::string allow;     // for 405
    bool body_read = false;
    bool upgraded = false;
  };
  using CallPtr = std::shared_ptr<Call>;
  using Handler = Task<> (HttpApi::*)(CallPtr);
  enum class Access { kOpen, kKey, kSocket };
  struct Route {
    std::string_view method;
    std::string_view pattern;
    Access access;
    Handler handler;

    // HEAD is answered as GET is; the body stays behind.
    bool answers(std::string_view asked) const {
      return asked == method || (asked == "HEAD" && method == "GET" && access != Access::kSocket);
    }
  };
  class ExecSocket;
  class ProcessSocket;
  class PtySocket;
  class FileUpload;

  static std::span<const Route> table();
  Task<> dispatch(CallPtr call);
  Task<> refuse(CallPtr call, Error error);
  Task<> drain(CallPtr call);
  Task<> reply(CallPtr call, int status, std::string type, std::string body);
  Task<> reply_empty(CallPtr call);
  Task<> reply_sandbox(CallPtr call, int status, store::Sandbox sandbox);
  Task<JsonInput> read_json(CallPtr call);
  // Upgrades, once the key in the header, if there is one, has been checked.
  Task<JsonSocket> open_socket(CallPtr call);
  // By a frame, if the header did not; then checks that the sandbox runs.
  Task<> authenticate(CallPtr call, JsonSocket* socket);
  // The frame after authentication, of a sandbox that runs.
  Task<JsonInput> first_frame(CallPtr call, JsonSocket* socket);
  // Tells the client what went wrong, if something did.
  Task<> end_socket(CallPtr call, JsonSocket* socket, Result<> ran);
  static net::Headers headers_for(const Call& call);
  static void log_failure(const Call& call, const PublicError& told, const Error& error);

  Task<> health(CallPtr call);
  Task<> check_database();
  Task<> openapi(CallPtr call);
  Task<> docs(CallPtr call);
  Task<> create(CallPtr call);
  Task<> list(CallPtr call);
  Task<> get(CallPtr call);
  Task<> destroy(CallPtr call);
  Task<> ping(CallPtr call);
  Task<> pause(CallPtr call);
  Task<> resume(CallPtr call);
  Task<> exec(CallPtr call);
  Task<> exec_foreground(CallPtr call, hostagent::v1::ExecStreamRequest request);
  Task<> exec_background(CallPtr call, hostagent::v1::ExecStreamRequest request, std::string tag);
  Task<> exec_stream(CallPtr call);
  Task<> list_processes(CallPtr call);
  Task<> kill_process(CallPtr call);
  Task<> process_stream(CallPtr call);
  Task<> metrics(CallPtr call);
  Task<> list_files(CallPtr call);
  Task<> make_dir(CallPtr call);
  Task<> remove_path(CallPtr call);
  Task<> pty(CallPtr call);
  Task<> write_file(CallPtr call);
  Task<> write_file_stream(CallPtr call);
  Task<> upload(CallPtr call, std::optional<std::uint64_t> limit);
  Task<> read_file(CallPtr call);

  store::Store* store_;
  SandboxService* service_;
  Authenticator* auth_;
  AgentClient* agent_;
  TrustedProxies proxies_;
  AnswerBudget answers_;
  SharedCalls<void> checks_;
  std::optional<Result<>> database_;  // as it was found last
  std::chrono::steady_clock::time_point database_until_;
};

}  // namespace wrenn::control
