#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "control/agent_client.h"
#include "control/auth.h"
#include "control/json_input.h"
#include "control/json_socket.h"
#include "control/sandbox_service.h"
#include "net/http.h"

namespace wrenn::control {

// The REST and WebSocket routes of proto/openapi.yaml. /v1/capsules is /v1/sandboxes under its other name.
class HttpApi {
 public:
  HttpApi(store::Store* store, SandboxService* service, Authenticator* auth, AgentClient* agent)
      : store_(store), service_(service), auth_(auth), agent_(agent) {}

  Task<> handle(std::shared_ptr<net::Exchange> exchange);

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
    std::string peer;
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
  Task<> end_socket(JsonSocket* socket, Result<> ran);
  static net::Headers headers_for(const Call& call);

  Task<> health(CallPtr call);
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
  std::size_t buffered_output_ = 0;  // of all execs that run
};

}  // namespace wrenn::control
