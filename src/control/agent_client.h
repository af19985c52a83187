#pragma once

#include <memory>
#include <string>

#include "connect/connect.h"
#include "control/list_answer.h"
#include "hostagent/v1/hostagent.pb.h"

namespace wrenn::control {

// Typed calls to a host agent with their deadlines. Errors tell an agent's own failure (reason "agent_error")
// and an agent that cannot be reached ("host_unavailable") from wrong requests.
class AgentClient {
 public:
  // `secret` empty: none is sent (mutual TLS).
  AgentClient(std::shared_ptr<net::HttpClient> http, net::Endpoint endpoint, const std::string& secret);

  Task<hostagent::v1::CreateSandboxResponse> create(hostagent::v1::CreateSandboxRequest request);
  Task<> destroy(std::string sandbox_id);
  Task<> pause(std::string sandbox_id);
  Task<hostagent::v1::ResumeSandboxResponse> resume(std::string sandbox_id, std::int32_t timeout_sec);
  Task<> ping(std::string sandbox_id);
  Task<hostagent::v1::ListSandboxesResponse> list();
  Task<> acknowledge_auto_paused(std::vector<std::string> sandbox_ids);

  // Lists that a guest has a hand in stay as they come.
  Task<> list_dir(hostagent::v1::ListDirRequest request, ListAnswer* into);
  Task<> list_processes(std::string sandbox_id, ListAnswer* into);
  Task<hostagent::v1::FileEntry> make_dir(std::string sandbox_id, std::string path);
  Task<> remove_path(std::string sandbox_id, std::string path);
  Task<hostagent::v1::StartBackgroundResponse> start_background(
      hostagent::v1::StartBackgroundRequest request);
  Task<> kill_process(hostagent::v1::KillProcessRequest request);
  Task<hostagent::v1::GetSandboxMetricsResponse> metrics(std::string sandbox_id, std::string range);

  // Streams; dropping one ends it on the agent too.
  Task<std::unique_ptr<connect::ClientCall>> exec_stream(hostagent::v1::ExecStreamRequest request);
  Task<std::unique_ptr<connect::ClientCall>> connect_process(hostagent::v1::ConnectProcessRequest request);
  Task<std::unique_ptr<connect::ClientCall>> read_file_stream(hostagent::v1::ReadFileStreamRequest request);
  Task<std::unique_ptr<connect::ClientCall>> write_file_stream();
  Task<std::unique_ptr<connect::ClientCall>> pty_attach(hostagent::v1::PtyAttachRequest request);
  // `bytes`: at most 64 KiB.
  Task<> pty_input(std::string sandbox_id, std::string tag, std::string bytes);
  Task<> pty_resize(std::string sandbox_id, std::string tag, std::uint32_t cols, std::uint32_t rows);
  Task<> pty_kill(std::string sandbox_id, std::string tag);

 private:
  template <class Res, class Req>
  Task<Res> call(std::string method, Req request, Milliseconds deadline);
  template <class Req>
  Task<> read_list(std::string method, Req request, Milliseconds deadline, ListAnswer* into);
  template <class Req>
  Task<std::unique_ptr<connect::ClientCall>> open(std::string method, Req request);

  connect::Client client_;
};

}  // namespace wrenn::control
