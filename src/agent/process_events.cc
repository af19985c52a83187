#include "agent/process_events.h"

namespace wrenn::agent {
namespace {

pb::ExecStreamResponse to_stream_event(const process::ProcessEvent& event) {
  pb::ExecStreamResponse out;
  if (event.has_start()) out.mutable_start()->set_pid(event.start().pid());
  if (event.has_data() && event.data().has_stdout()) out.mutable_data()->set_stdout(event.data().stdout());
  if (event.has_data() && event.data().has_stderr()) out.mutable_data()->set_stderr(event.data().stderr());
  // A terminal has one output.
  if (event.has_data() && event.data().has_pty()) out.mutable_data()->set_stdout(event.data().pty());
  if (event.has_end()) {
    out.mutable_end()->set_exit_code(event.end().exit_code());
    out.mutable_end()->set_error(event.end().error());
  }
  return out;
}

}  // namespace

Task<> relay_events(sandbox::GuestProcess* process, connect::Writer<pb::ExecStreamResponse> out) {
  while (true) {
    const auto event = CO_TRY(co_await process->next());
    if (!event) co_return Result<>{};
    pb::ExecStreamResponse response = to_stream_event(*event);
    if (response.event_case() != pb::ExecStreamResponse::EVENT_NOT_SET)
      CO_TRY(co_await out.send(std::move(response)));
  }
}

Result<> check_command(const sandbox::ExecSpec& spec) {
  if (spec.cmd.empty()) return fail(Error(Code::kInvalidArgument, "cmd is required").with_field("cmd"));
  if (spec.args.size() > model::kMaxArgs) {
    return fail(
        Error(Code::kInvalidArgument, fmt::format("args must have at most {} entries", model::kMaxArgs))
            .with_field("args"));
  }
  if (spec.envs.size() > kMaxEnvs) {
    return fail(Error(Code::kInvalidArgument, fmt::format("envs must have at most {} entries", kMaxEnvs))
                    .with_field("envs"));
  }
  std::size_t bytes = spec.cmd.size();
  for (const auto& arg : spec.args) bytes += arg.size();
  for (const auto& [name, value] : spec.envs) bytes += name.size() + value.size();
  if (bytes > model::kMaxCommandBytes) {
    return fail(Error(Code::kInvalidArgument,
                      fmt::format("cmd, args and envs must have at most {} bytes", model::kMaxCommandBytes))
                    .with_field("cmd"));
  }
  if (!spec.cwd.empty()) TRY(model::check_path("cwd", spec.cwd));
  return {};
}

}  // namespace wrenn::agent
