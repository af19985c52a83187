#pragma once

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
  bool authorized(const net::RequestHead& head) const;

  Task<pb::CreateSandboxResponse> create(pb::CreateSandboxRequest request);
  Task<pb::ResumeSandboxResponse> resume(pb::ResumeSandboxRequest request);
  pb::ListSandboxesResponse list() const;
  Task<pb::CreateSnapshotResponse> create_snapshot(pb::CreateSnapshotRequest request);
  Task<pb::ExecResponse> exec(pb::ExecRequest request);
  Task<> exec_stream(pb::ExecStreamRequest request, connect::Writer<pb::ExecStreamResponse> out);
  Task<> write_file(pb::WriteFileRequest request);
  Task<pb::ReadFileResponse> read_file(pb::ReadFileRequest request);
  Task<> write_stream(connect::Reader<pb::WriteFileStreamRequest> in);
  Task<> read_stream(pb::ReadFileStreamRequest request, connect::Writer<pb::ReadFileStreamResponse> out);

  sandbox::Manager* manager_;
  std::string secret_;
  connect::Router router_;
  connect::Router bulk_;  // the two calls that carry a whole file in one message
};

}  // namespace wrenn::agent
