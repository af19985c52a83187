// Processes of a guest that go on without their callers.
#include "agent/limits.h"
#include "agent/process_events.h"
#include "agent/service.h"

namespace wrenn::agent {
namespace {

using sandbox::RunningGuest;

template <class Request>
Result<process::ProcessSelector> selector_of(const Request& request) {
  process::ProcessSelector selector;
  if (request.has_pid()) {
    selector.set_pid(request.pid());
  } else if (request.has_tag()) {
    selector.set_tag(request.tag());
  } else {
    return fail(Error(Code::kInvalidArgument, "pid or tag is required").with_field("pid"));
  }
  return selector;
}

Task<pb::StartBackgroundResponse> background_body(RunningGuest guest, sandbox::ExecSpec spec) {
  pb::StartBackgroundResponse response;
  response.set_tag(spec.tag);
  const auto process = CO_TRY(co_await guest.client->start(std::move(spec)));
  const auto event = CO_TRY(co_await process->next());
  if (!event || !event->has_start()) co_return fail(Code::kInternal, "the process did not start");
  response.set_pid(event->start().pid());
  co_return response;
}

Result<pb::ListProcessesResponse> to_response(connect::ElementReader processes) {
  pb::ListProcessesResponse response;
  process::ProcessInfo info;
  std::size_t args = 0;
  while (TRY(processes.next(&info))) {
    args += static_cast<std::size_t>(info.config().args_size());
    if (args > kMaxListedArgs) {
      return fail(Error(Code::kResourceExhausted,
                        fmt::format("the processes have more than {} arguments", kMaxListedArgs))
                      .with_reason("too_many_entries"));
    }
    auto* entry = response.add_processes();
    entry->set_pid(info.pid());
    entry->set_tag(std::move(*info.mutable_tag()));
    entry->set_cmd(std::move(*info.mutable_config()->mutable_cmd()));
    *entry->mutable_args() = std::move(*info.mutable_config()->mutable_args());
  }
  return response;
}

Task<pb::ListProcessesResponse> list_body(RunningGuest guest, asio::thread_pool* pool) {
  auto list = CO_TRY(co_await guest.client->processes());
  co_return co_await async::offload(
      *pool, [processes = std::move(list.entries)]() mutable { return to_response(std::move(processes)); });
}

Task<pb::KillProcessResponse> kill_body(RunningGuest guest, process::ProcessSelector selector,
                                        process::Signal signal) {
  CO_TRY(co_await guest.client->signal(std::move(selector), signal));
  co_return pb::KillProcessResponse();
}

Task<> connect_body(RunningGuest guest, process::ProcessSelector selector,
                    connect::Writer<pb::ExecStreamResponse> out) {
  const auto process = CO_TRY(co_await guest.client->connect(std::move(selector)));
  co_return co_await relay_events(process.get(), out);
}

}  // namespace

void Service::add_processes() {
  add(&router_, "StartBackground", &Service::start_background);
  add(&router_, "ListProcesses", &Service::list_processes);
  add(&router_, "KillProcess", &Service::kill_process);
  router_.server_stream<pb::ConnectProcessRequest, pb::ExecStreamResponse>(
      "/hostagent.v1.HostAgentService/ConnectProcess",
      [this](connect::Context, pb::ConnectProcessRequest request,
             connect::Writer<pb::ExecStreamResponse> out) {
        return connect_process(std::move(request), out);
      });
}

Task<pb::StartBackgroundResponse> Service::start_background(pb::StartBackgroundRequest request) {
  sandbox::ExecSpec spec = CO_TRY(command_spec(request));
  CO_TRY(model::check_name("tag", request.tag()));
  spec.tag = request.tag();
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  co_return co_await sandbox->operate(background_body, std::move(spec));
}

Task<pb::ListProcessesResponse> Service::list_processes(pb::ListProcessesRequest request) {
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  co_return co_await sandbox->operate(list_body, manager_->context().pool);
}

Task<pb::KillProcessResponse> Service::kill_process(pb::KillProcessRequest request) {
  auto selector = CO_TRY(selector_of(request));
  const std::string& name = request.signal();
  if (!name.empty() && name != "SIGKILL" && name != "SIGTERM") {
    co_return fail(Error(Code::kInvalidArgument, "signal must be SIGKILL or SIGTERM").with_field("signal"));
  }
  const auto signal = name == "SIGTERM" ? process::SIGNAL_SIGTERM : process::SIGNAL_SIGKILL;
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  co_return co_await sandbox->operate(kill_body, std::move(selector), signal);
}

Task<> Service::connect_process(pb::ConnectProcessRequest request,
                                connect::Writer<pb::ExecStreamResponse> out) {
  auto selector = CO_TRY(selector_of(request));
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  co_return co_await sandbox->operate(connect_body, std::move(selector), out);
}

}  // namespace wrenn::agent
