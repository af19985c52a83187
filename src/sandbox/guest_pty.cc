// Terminals in the guest.
#include "base/bytes.h"
#include "sandbox/guest_client.h"
#include "sandbox/limits.h"

namespace wrenn::sandbox {
namespace {

constexpr Milliseconds kPtyCallLimit{5'000};

process::PTY pty_of(std::uint32_t cols, std::uint32_t rows) {
  process::PTY pty;
  pty.mutable_size()->set_cols(cols);
  pty.mutable_size()->set_rows(rows);
  return pty;
}

template <class Request>
Request request_for(const std::string& tag) {
  Request request;
  request.mutable_process()->set_tag(tag);
  return request;
}

connect::CallOptions within_limit() {
  connect::CallOptions options;
  options.timeout = kPtyCallLimit;
  return options;
}

}  // namespace

Task<std::unique_ptr<GuestProcess>> GuestClient::start_pty(PtySpec spec) {
  process::StartRequest request;
  request.mutable_process()->set_cmd(std::move(spec.cmd));
  for (auto& arg : spec.args) request.mutable_process()->add_args(std::move(arg));
  for (auto& [name, value] : spec.envs) (*request.mutable_process()->mutable_envs())[name] = std::move(value);
  if (!spec.cwd.empty()) request.mutable_process()->set_cwd(std::move(spec.cwd));
  *request.mutable_pty() = pty_of(spec.cols, spec.rows);
  request.set_tag(std::move(spec.tag));
  connect::CallOptions options;
  // envd takes the Unix user from here; the token in its own header is what admits us.
  if (!spec.user.empty()) options.headers.set("Authorization", "Basic " + to_base64(spec.user + ":"));
  auto call = CO_TRY(co_await connect_.stream("/process.Process/Start", std::move(options)));
  CO_TRY(co_await call->send(&request));
  CO_TRY(co_await call->finish_sending());
  co_return std::unique_ptr<GuestProcess>(new GuestProcess(this, std::move(call)));
}

Task<std::unique_ptr<GuestProcess>> GuestClient::attach_pty(std::string tag) {
  // Its events are those of Start under the same number, so one reader serves both.
  const auto request = request_for<process::ConnectRequest>(tag);
  auto call = CO_TRY(co_await connect_.stream("/process.Process/Connect"));
  CO_TRY(co_await call->send(&request));
  CO_TRY(co_await call->finish_sending());
  co_return std::unique_ptr<GuestProcess>(new GuestProcess(this, std::move(call)));
}

Task<> GuestClient::pty_input(std::string tag, std::string bytes) {
  auto request = request_for<process::SendInputRequest>(tag);
  request.mutable_input()->set_pty(std::move(bytes));
  CO_TRY(co_await connect_.unary<process::SendInputResponse>("/process.Process/SendInput", std::move(request),
                                                             within_limit()));
  co_return Result<>{};
}

Task<> GuestClient::pty_resize(std::string tag, std::uint32_t cols, std::uint32_t rows) {
  auto request = request_for<process::UpdateRequest>(tag);
  *request.mutable_pty() = pty_of(cols, rows);
  CO_TRY(co_await connect_.unary<process::UpdateResponse>("/process.Process/Update", std::move(request),
                                                          within_limit()));
  co_return Result<>{};
}

Task<> GuestClient::pty_kill(std::string tag) {
  auto request = request_for<process::SendSignalRequest>(tag);
  request.set_signal(process::SIGNAL_SIGKILL);
  CO_TRY(co_await connect_.unary<process::SendSignalResponse>("/process.Process/SendSignal",
                                                              std::move(request), within_limit()));
  co_return Result<>{};
}

}  // namespace wrenn::sandbox
