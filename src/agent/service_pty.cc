// Terminals in a guest.
#include "agent/limits.h"
#include "agent/process_events.h"
#include "agent/service.h"

namespace wrenn::agent {
namespace {

using sandbox::PtySpec;
using sandbox::RunningGuest;

constexpr std::size_t kMaxInputBytes = 64 * 1024;
constexpr std::uint32_t kMaxCells = 65'535;

Result<> check_cells(std::uint32_t cols, std::uint32_t rows) {
  TRY(model::check_range("cols", cols, 1, kMaxCells));
  return model::check_range("rows", rows, 1, kMaxCells);
}

Result<PtySpec> pty_spec(const pb::PtyAttachRequest& request) {
  TRY(model::check_name("tag", request.tag()));
  PtySpec spec;
  spec.tag = request.tag();
  spec.user = request.user();
  if (request.cols() != 0) spec.cols = request.cols();
  if (request.rows() != 0) spec.rows = request.rows();
  TRY(check_cells(spec.cols, spec.rows));
  if (request.cmd().empty()) return spec;
  auto command = TRY(command_spec(request));
  spec.cmd = std::move(command.cmd);
  spec.args = std::move(command.args);
  spec.envs = std::move(command.envs);
  spec.cwd = std::move(command.cwd);
  return spec;
}

Task<> relay(sandbox::GuestProcess* process, std::string tag, connect::Writer<pb::PtyAttachResponse> out) {
  while (true) {
    const auto event = CO_TRY(co_await process->next());
    if (!event) co_return Result<>{};
    pb::PtyAttachResponse response;
    if (event->has_start()) {
      response.mutable_started()->set_pid(event->start().pid());
      response.mutable_started()->set_tag(tag);
    } else if (event->has_data() && event->data().has_pty()) {
      response.mutable_output()->set_data(event->data().pty());
    } else if (event->has_end()) {
      response.mutable_exited()->set_exit_code(event->end().exit_code());
      response.mutable_exited()->set_error(event->end().error());
    } else {
      continue;
    }
    CO_TRY(co_await out.send(std::move(response)));
  }
}

// Leaving ends the view, not the terminal.
Task<> attach_body(RunningGuest guest, PtySpec spec, connect::Writer<pb::PtyAttachResponse> out) {
  std::string tag = spec.tag;
  const auto process = spec.cmd.empty() ? CO_TRY(co_await guest.client->attach_pty(tag))
                                        : CO_TRY(co_await guest.client->start_pty(std::move(spec)));
  co_return co_await relay(process.get(), std::move(tag), out);
}

Task<> input_body(RunningGuest guest, pb::PtySendInputRequest request) {
  co_return co_await guest.client->pty_input(request.tag(), std::move(*request.mutable_data()));
}

Task<> resize_body(RunningGuest guest, pb::PtyResizeRequest request) {
  co_return co_await guest.client->pty_resize(request.tag(), request.cols(), request.rows());
}

Task<> kill_body(RunningGuest guest, std::string tag) { co_return co_await guest.client->pty_kill(tag); }

}  // namespace

void Service::add_pty() {
  add(&router_, "PtySendInput", &Service::pty_input);
  add(&router_, "PtyResize", &Service::pty_resize);
  add(&router_, "PtyKill", &Service::pty_kill);
  router_.server_stream<pb::PtyAttachRequest, pb::PtyAttachResponse>(
      "/hostagent.v1.HostAgentService/PtyAttach",
      [this](connect::Context, pb::PtyAttachRequest request, connect::Writer<pb::PtyAttachResponse> out) {
        return pty_attach(std::move(request), out);
      });
}

Task<> Service::pty_attach(pb::PtyAttachRequest request, connect::Writer<pb::PtyAttachResponse> out) {
  PtySpec spec = CO_TRY(pty_spec(request));
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  co_return co_await sandbox->operate(attach_body, std::move(spec), out);
}

Task<pb::PtySendInputResponse> Service::pty_input(pb::PtySendInputRequest request) {
  if (request.data().size() > kMaxInputBytes) {
    co_return fail(Error(Code::kInvalidArgument, "data must have at most 65536 bytes").with_field("data"));
  }
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  CO_TRY(co_await sandbox->operate(input_body, std::move(request)));
  co_return pb::PtySendInputResponse();
}

Task<pb::PtyResizeResponse> Service::pty_resize(pb::PtyResizeRequest request) {
  CO_TRY(check_cells(request.cols(), request.rows()));
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  CO_TRY(co_await sandbox->operate(resize_body, std::move(request)));
  co_return pb::PtyResizeResponse();
}

Task<pb::PtyKillResponse> Service::pty_kill(pb::PtyKillRequest request) {
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  CO_TRY(co_await sandbox->operate(kill_body, request.tag()));
  co_return pb::PtyKillResponse();
}

}  // namespace wrenn::agent
