#include "control/agent_client.h"

#include "control/api_error.h"
#include "control/limits.h"

namespace wrenn::control {
namespace {

namespace rpc = hostagent::v1;

constexpr connect::AnswerLimit kMessage{kMaxAgentMessageBytes};
constexpr connect::AnswerLimit kList{kMaxAgentListBytes};

connect::ClientOptions options_for(const std::string& secret) {
  connect::ClientOptions options;
  if (!secret.empty()) options.headers.set("Authorization", "Bearer " + secret);
  return options;
}

std::string procedure(const std::string& method) { return "/hostagent.v1.HostAgentService/" + method; }

}  // namespace

AgentClient::AgentClient(std::shared_ptr<net::HttpClient> http, net::Endpoint endpoint,
                         const std::string& secret)
    : client_(std::move(http), std::move(endpoint), options_for(secret)) {}

template <class Res, class Req>
Task<Res> AgentClient::call(std::string method, Req request, Milliseconds deadline) {
  connect::CallOptions options;
  options.timeout = deadline;
  auto response =
      co_await client_.unary<Res>(procedure(method), std::move(request), kMessage, std::move(options));
  if (!response) co_return fail(from_agent(std::move(response).error()));
  co_return std::move(*response);
}

Task<rpc::CreateSandboxResponse> AgentClient::create(rpc::CreateSandboxRequest request) {
  return call<rpc::CreateSandboxResponse>("CreateSandbox", std::move(request), kTransitionDeadline);
}

Task<> AgentClient::destroy(std::string sandbox_id) {
  rpc::DestroySandboxRequest request;
  request.set_sandbox_id(std::move(sandbox_id));
  CO_TRY(
      co_await call<rpc::DestroySandboxResponse>("DestroySandbox", std::move(request), kTransitionDeadline));
  co_return Result<>{};
}

Task<> AgentClient::pause(std::string sandbox_id) {
  rpc::PauseSandboxRequest request;
  request.set_sandbox_id(std::move(sandbox_id));
  CO_TRY(co_await call<rpc::PauseSandboxResponse>("PauseSandbox", std::move(request), kTransitionDeadline));
  co_return Result<>{};
}

Task<rpc::ResumeSandboxResponse> AgentClient::resume(std::string sandbox_id, std::int32_t timeout_sec) {
  rpc::ResumeSandboxRequest request;
  request.set_sandbox_id(std::move(sandbox_id));
  request.set_timeout_sec(timeout_sec);
  return call<rpc::ResumeSandboxResponse>("ResumeSandbox", std::move(request), kTransitionDeadline);
}

Task<> AgentClient::ping(std::string sandbox_id) {
  rpc::PingSandboxRequest request;
  request.set_sandbox_id(std::move(sandbox_id));
  CO_TRY(co_await call<rpc::PingSandboxResponse>("PingSandbox", std::move(request), kAgentCallDeadline));
  co_return Result<>{};
}

Task<rpc::ListSandboxesResponse> AgentClient::list() {
  connect::CallOptions options;
  options.timeout = kAgentCallDeadline;
  options.repeatable = true;
  auto response = co_await client_.unary<rpc::ListSandboxesResponse>(
      procedure("ListSandboxes"), rpc::ListSandboxesRequest(), kList, std::move(options));
  if (!response) co_return fail(from_agent(std::move(response).error()));
  co_return std::move(*response);
}

Task<> AgentClient::acknowledge_auto_paused(std::vector<std::string> sandbox_ids) {
  rpc::AcknowledgeAutoPausedRequest request;
  for (std::string& id : sandbox_ids) request.add_sandbox_ids(std::move(id));
  CO_TRY(co_await call<rpc::AcknowledgeAutoPausedResponse>("AcknowledgeAutoPaused", std::move(request),
                                                           kAgentCallDeadline));
  co_return Result<>{};
}

template <class Req>
Task<> AgentClient::read_list(std::string method, Req request, Milliseconds deadline, ListAnswer* into) {
  const auto read = [](connect::Client* client, std::string path, Req asked, Milliseconds limit,
                       ListAnswer* list) -> Task<> {
    connect::CallOptions options;
    options.timeout = limit;
    options.repeatable = true;
    const auto response =
        CO_TRY(co_await client->open_unary(std::move(path), std::move(asked), std::move(options)));
    co_return co_await list->read(response.get());
  };
  auto done = co_await async::with_timeout(
      read(&client_, procedure(method), std::move(request), deadline, into), deadline, "the host agent");
  if (!done) co_return fail(from_agent(std::move(done).error()));
  co_return Result<>{};
}

Task<> AgentClient::list_dir(rpc::ListDirRequest request, ListAnswer* into) {
  return read_list("ListDir", std::move(request), kAgentFilesDeadline, into);
}

Task<rpc::FileEntry> AgentClient::make_dir(std::string sandbox_id, std::string path) {
  rpc::MakeDirRequest request;
  request.set_sandbox_id(std::move(sandbox_id));
  request.set_path(std::move(path));
  auto response =
      CO_TRY(co_await call<rpc::MakeDirResponse>("MakeDir", std::move(request), kAgentCallDeadline));
  co_return std::move(*response.mutable_entry());
}

Task<> AgentClient::remove_path(std::string sandbox_id, std::string path) {
  rpc::RemovePathRequest request;
  request.set_sandbox_id(std::move(sandbox_id));
  request.set_path(std::move(path));
  CO_TRY(co_await call<rpc::RemovePathResponse>("RemovePath", std::move(request), kAgentFilesDeadline));
  co_return Result<>{};
}

Task<rpc::StartBackgroundResponse> AgentClient::start_background(rpc::StartBackgroundRequest request) {
  return call<rpc::StartBackgroundResponse>("StartBackground", std::move(request), kAgentCallDeadline);
}

Task<> AgentClient::list_processes(std::string sandbox_id, ListAnswer* into) {
  rpc::ListProcessesRequest request;
  request.set_sandbox_id(std::move(sandbox_id));
  return read_list("ListProcesses", std::move(request), kAgentCallDeadline, into);
}

Task<> AgentClient::kill_process(rpc::KillProcessRequest request) {
  CO_TRY(co_await call<rpc::KillProcessResponse>("KillProcess", std::move(request), kAgentCallDeadline));
  co_return Result<>{};
}

Task<rpc::GetSandboxMetricsResponse> AgentClient::metrics(std::string sandbox_id, std::string range) {
  rpc::GetSandboxMetricsRequest request;
  request.set_sandbox_id(std::move(sandbox_id));
  request.set_range(std::move(range));
  return call<rpc::GetSandboxMetricsResponse>("GetSandboxMetrics", std::move(request), kAgentCallDeadline);
}

template <class Req>
Task<std::unique_ptr<connect::ClientCall>> AgentClient::open(std::string method, Req request) {
  auto call = co_await client_.stream(procedure(method), kMessage);
  if (!call) co_return fail(from_agent(std::move(call).error()));
  auto sent = co_await (*call)->send(&request);
  if (sent) sent = co_await (*call)->finish_sending();
  if (!sent) co_return fail(from_agent(std::move(sent).error()));
  co_return std::move(*call);
}

Task<std::unique_ptr<connect::ClientCall>> AgentClient::exec_stream(rpc::ExecStreamRequest request) {
  return open("ExecStream", std::move(request));
}

Task<std::unique_ptr<connect::ClientCall>> AgentClient::connect_process(rpc::ConnectProcessRequest request) {
  return open("ConnectProcess", std::move(request));
}

Task<std::unique_ptr<connect::ClientCall>> AgentClient::read_file_stream(rpc::ReadFileStreamRequest request) {
  return open("ReadFileStream", std::move(request));
}

Task<std::unique_ptr<connect::ClientCall>> AgentClient::write_file_stream() {
  auto call = co_await client_.stream(procedure("WriteFileStream"), kMessage);
  if (!call) co_return fail(from_agent(std::move(call).error()));
  co_return std::move(*call);
}

Task<std::unique_ptr<connect::ClientCall>> AgentClient::pty_attach(rpc::PtyAttachRequest request) {
  return open("PtyAttach", std::move(request));
}

Task<> AgentClient::pty_input(std::string sandbox_id, std::string tag, std::string bytes) {
  rpc::PtySendInputRequest request;
  request.set_sandbox_id(std::move(sandbox_id));
  request.set_tag(std::move(tag));
  request.set_data(std::move(bytes));
  CO_TRY(co_await call<rpc::PtySendInputResponse>("PtySendInput", std::move(request), kPtyCallDeadline));
  co_return Result<>{};
}

Task<> AgentClient::pty_resize(std::string sandbox_id, std::string tag, std::uint32_t cols,
                               std::uint32_t rows) {
  rpc::PtyResizeRequest request;
  request.set_sandbox_id(std::move(sandbox_id));
  request.set_tag(std::move(tag));
  request.set_cols(cols);
  request.set_rows(rows);
  CO_TRY(co_await call<rpc::PtyResizeResponse>("PtyResize", std::move(request), kPtyCallDeadline));
  co_return Result<>{};
}

Task<> AgentClient::pty_kill(std::string sandbox_id, std::string tag) {
  rpc::PtyKillRequest request;
  request.set_sandbox_id(std::move(sandbox_id));
  request.set_tag(std::move(tag));
  CO_TRY(co_await call<rpc::PtyKillResponse>("PtyKill", std::move(request), kPtyCallDeadline));
  co_return Result<>{};
}

}  // namespace wrenn::control
