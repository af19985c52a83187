#pragma once

#include <map>
#include <memory>
#include <string>

#include "connect/connect.h"
#include "hostagent/v1/hostagent.pb.h"
#include "sandbox/manager.h"

// hostagent.v1.HostAgentService over a sandbox::Manager.
namespace wrenn::agent {

namespace pb = hostagent::v1;

class Service {
 public:
  // `secret`: what callers must present as a bearer; empty when mutual TLS vouches for them.
  Service(sandbox::Manager* manager, std::string secret);
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  // An HTTP handler of the whole agent.
  Task<> handle(std::shared_ptr<net::Exchange> exchange);

 private:
  void add_lifecycle();
  void add_exec();
  void add_files();
  void add_pty();
  void add_folders();
  void add_processes();
  // By the header `name`: Authorization, or for proxied requests, whose own one is the guest's, another.
  bool authorized(const net::RequestHead& head, std::string_view name) const;
  // /proxy/{sandbox_id}/{port}/...: the request goes to that port of the guest, with the rest as its target.
  // An answer of the agent's own carries X-Wrenn-Error: its code and reason, and the message as body.
  // kResourceExhausted with reason "too_many_requests" beyond kMaxProxied and kMaxProxiedOfSandbox.
  Task<> proxy(std::shared_ptr<net::Exchange> exchange);
  class ProxyPlace;

  Task<pb::CreateSandboxResponse> create(pb::CreateSandboxRequest request);
  Task<pb::DestroySandboxResponse> destroy(pb::DestroySandboxRequest request);
  Task<pb::PauseSandboxResponse> pause(pb::PauseSandboxRequest request);
  Task<pb::ResumeSandboxResponse> resume(pb::ResumeSandboxRequest request);
  Task<pb::ListSandboxesResponse> list(pb::ListSandboxesRequest request);
  Task<pb::AcknowledgeAutoPausedResponse> acknowledge(pb::AcknowledgeAutoPausedRequest request);
  Task<pb::CreateSnapshotResponse> create_snapshot(pb::CreateSnapshotRequest request);
  Task<pb::DeleteSnapshotResponse> delete_snapshot(pb::DeleteSnapshotRequest request);
  Task<pb::PingSandboxResponse> ping(pb::PingSandboxRequest request);
  Task<pb::ExecResponse> exec(pb::ExecRequest request);
  Task<> exec_stream(pb::ExecStreamRequest request, connect::Writer<pb::ExecStreamResponse> out);
  Task<pb::WriteFileResponse> write_file(pb::WriteFileRequest request);
  Task<pb::ReadFileResponse> read_file(pb::ReadFileRequest request);
  Task<pb::WriteFileStreamResponse> write_stream(connect::Reader<pb::WriteFileStreamRequest> in);
  Task<> read_stream(pb::ReadFileStreamRequest request, connect::Writer<pb::ReadFileStreamResponse> out);

  Task<> pty_attach(pb::PtyAttachRequest request, connect::Writer<pb::PtyAttachResponse> out);
  Task<pb::PtySendInputResponse> pty_input(pb::PtySendInputRequest request);
  Task<pb::PtyResizeResponse> pty_resize(pb::PtyResizeRequest request);
  Task<pb::PtyKillResponse> pty_kill(pb::PtyKillRequest request);

  Task<pb::ListDirResponse> list_dir(pb::ListDirRequest request);
  Task<pb::MakeDirResponse> make_dir(pb::MakeDirRequest request);
  Task<pb::RemovePathResponse> remove_path(pb::RemovePathRequest request);

  Task<pb::StartBackgroundResponse> start_background(pb::StartBackgroundRequest request);
  Task<pb::ListProcessesResponse> list_processes(pb::ListProcessesRequest request);
  Task<pb::KillProcessResponse> kill_process(pb::KillProcessRequest request);
  Task<> connect_process(pb::ConnectProcessRequest request, connect::Writer<pb::ExecStreamResponse> out);

  Task<pb::GetSandboxMetricsResponse> metrics(pb::GetSandboxMetricsRequest request);

  template <class Req, class Res>
  void add(connect::Router* router, std::string method, Task<Res> (Service::*handler)(Req)) {
    router->unary<Req, Res>("/hostagent.v1.HostAgentService/" + method,
                            [this, handler](connect::Context, Req request) {
                              return judged((this->*handler)(std::move(request)));
                            });
  }
  // What this host's kernel refuses is the host's failure, never the caller's mistake; and its words, with
  // paths in them, are not for clients.
  template <class Res>
  static Task<Res> judged(Task<Res> task) {
    Result<Res> result = co_await std::move(task);
    if (result || result.error().sys_errno() == 0 || result.error().reason() == "disk_full") co_return result;
    co_return fail(Error(Code::kInternal, result.error().message()).with_reason(result.error().reason()));
  }

  sandbox::Manager* manager_;
  std::string secret_;
  std::size_t proxied_ = 0;  // requests to guests' ports that are under way
  std::map<std::string, std::size_t> proxied_of_;
  net::HttpClient ports_;  // keeps no connection: a slot's address is another guest's tomorrow
  connect::Router router_;
  connect::Router bulk_;  // the two calls that carry a whole file in one message
};

}  // namespace wrenn::agent
