#pragma once

#include <fmt/format.h>

#include "agent/limits.h"
#include "hostagent/v1/hostagent.pb.h"
#include "model/sandbox.h"
#include "sandbox/guest_client.h"

// What the calls that run processes have in common.
namespace wrenn::agent {

namespace pb = hostagent::v1;

// Sends what a process of the guest does until it has ended.
Task<> relay_events(sandbox::GuestProcess* process, connect::Writer<pb::ExecStreamResponse> out);

// cmd, args, envs and cwd within their limits.
Result<> check_command(const sandbox::ExecSpec& spec);

template <class Request>
Result<sandbox::ExecSpec> command_spec(const Request& request) {
  sandbox::ExecSpec spec;
  spec.cmd = request.cmd();
  spec.args.assign(request.args().begin(), request.args().end());
  for (const auto& [name, value] : request.envs()) spec.envs.emplace_back(name, value);
  spec.cwd = request.cwd();
  TRY(check_command(spec));
  return spec;
}

}  // namespace wrenn::agent
