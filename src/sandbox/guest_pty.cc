// Terminals in the guest.
#include "base/bytes.h"
#include "sandbox/guest_client.h"
#include "sandbox/limits.h"

namespace wrenn::sandbox {
namespace {

constexpr connect::AnswerLimit kAnswer{kMaxEnvdAnswerBytes};

process::PTY pty_of(std::uint32_t cols, std::uint32_t rows) {
  process::PTY pty;
  pty.mutable_size()->set_cols(cols);
  pty.mutable_size()->set_rows(rows);
  return pty;
}

process::ProcessSelector tagged(std::string tag) {
  process::ProcessSelector selector;
  selector.set_tag(std::move(tag));
  return selector;
}

template <class Request>
Request request_for(std::string tag) {
  Request request;
  *request.mutable_process() = tagged(std::move(tag));
  return request;
}

connect::CallOptions within_limit() {
  connect::CallOptions options;
  options.timeout = kGuestCallLimit;
  return options;
}

}  // namespace

Task<std::unique_ptr<GuestProcess>> GuestClient::start_pty(PtySpec spec) {
  auto request = std::make_unique<process::StartRequest>();
  process::ProcessConfig* config = request->mutable_process();
  config->set_cmd(std::move(spec.cmd));
  for (auto& arg : spec.args) config->add_args(std::move(arg));
  for (auto& [name, value] : spec.envs) (*config->mutable_envs())[name] = std::move(value);
  if (!spec.cwd.empty()) config->set_cwd(std::move(spec.cwd));
  *request->mutable_pty() = pty_of(spec.cols, spec.rows);
  request->set_tag(std::move(spec.tag));
  connect::CallOptions options;
  // envd takes the Unix user from here; the token in its own header is what admits us.
  if (!spec.user.empty()) options.headers.set("Authorization", "Basic " + to_base64(spec.user + ":"));
  co_return co_await open("Start", std::move(request), std::move(options));
}

Task<std::unique_ptr<GuestProcess>> GuestClient::attach_pty(std::string tag) {
  co_return co_await connect(tagged(std::move(tag)));
}

Task<> GuestClient::pty_input(std::string tag, std::string bytes) {
  auto request = request_for<process::SendInputRequest>(tag);
  request.mutable_input()->set_pty(std::move(bytes));
  CO_TRY(co_await connect_.unary<process::SendInputResponse>("/process.Process/SendInput", std::move(request),
                                                             kAnswer, within_limit()));
  co_return Result<>{};
}

Task<> GuestClient::pty_resize(std::string tag, std::uint32_t cols, std::uint32_t rows) {
  auto request = request_for<process::UpdateRequest>(tag);
  *request.mutable_pty() = pty_of(cols, rows);
  CO_TRY(co_await connect_.unary<process::UpdateResponse>("/process.Process/Update", std::move(request),
                                                          kAnswer, within_limit()));
  co_return Result<>{};
}

Task<> GuestClient::pty_kill(std::string tag) {
  co_return co_await signal(tagged(std::move(tag)), process::SIGNAL_SIGKILL);
}

}  // namespace wrenn::sandbox
