#include <fmt/format.h>

#include <boost/json/serialize.hpp>
#include <chrono>

#include "base/bytes.h"
#include "control/api_error.h"
#include "control/exec_output.h"
#include "control/exec_request.h"
#include "control/http_api.h"
#include "control/limits.h"

namespace wrenn::control {
namespace {

namespace rpc = hostagent::v1;

// The agent ends a command at its timeout; this is for an agent that does not.
constexpr Milliseconds kTimeoutSlack{2'000};
constexpr std::size_t kShortTagBytes = sizeof("proc-") - 1 + 8;

struct Collected {
  Collected(AnswerBudget* budget, std::string team) : output(budget, std::move(team)) {}
  ExecOutput output;
  std::int32_t exit_code = 0;
};

Task<> collect(AgentClient* agent, rpc::ExecStreamRequest request, Collected* into) {
  using Stream = ExecOutput::Stream;
  auto call = CO_TRY(co_await agent->exec_stream(std::move(request)));
  rpc::ExecStreamResponse event;
  while (true) {
    auto more = co_await call->receive(&event);
    if (!more) co_return fail(from_agent(std::move(more).error()));
    if (!*more) break;
    if (event.has_data()) {
      const bool err = event.data().has_stderr();
      CO_TRY(into->output.append(err ? Stream::kErr : Stream::kOut,
                                 err ? event.data().stderr() : event.data().stdout()));
    }
    if (event.has_end()) {
      into->exit_code = event.end().exit_code();
      co_return Result<>{};
    }
  }
  co_return fail(from_agent(Error(Code::kInternal, "the command's stream ended without its exit code")));
}

}  // namespace

Result<rpc::ExecStreamRequest> parse_exec(const JsonInput& input, const std::string& sandbox_id,
                                          std::int64_t default_timeout_sec) {
  rpc::ExecStreamRequest request;
  request.set_sandbox_id(sandbox_id);
  request.set_cmd(TRY(input.text("cmd", model::kMaxCommandBytes)));
  if (request.cmd().empty()) return bad_request("cmd", "cmd is required");
  for (std::string& arg : TRY(input.texts("args", model::kMaxArgs, model::kMaxCommandBytes))) {
    request.add_args(std::move(arg));
  }
  for (auto& [name, value] : TRY(input.text_map("envs", kMaxEnvs, model::kMaxCommandBytes))) {
    (*request.mutable_envs())[name] = std::move(value);
  }
  request.set_cwd(TRY(input.text("cwd", model::kMaxPathBytes, "")));
  const std::int64_t timeout = TRY(input.integer("timeout_sec", 0, model::kMaxExecTimeoutSec, 0));
  request.set_timeout_sec(static_cast<std::int32_t>(timeout == 0 ? default_timeout_sec : timeout));
  return request;
}

Task<> HttpApi::exec(CallPtr call) {
  const JsonInput input = CO_TRY(co_await read_json(call));
  auto request = CO_TRY(parse_exec(input, call->sandbox_id, model::kDefaultExecTimeoutSec));
  const bool background = CO_TRY(input.boolean("background", false));
  std::string tag = CO_TRY(input.text("tag", model::kMaxNameBytes, ""));
  if (!tag.empty()) CO_TRY(model::check_name("tag", tag));
  CO_TRY(co_await service_->require_running(call->principal.team_id, call->sandbox_id));
  service_->note_activity(call->sandbox_id);
  if (background) co_return co_await exec_background(call, std::move(request), std::move(tag));
  co_return co_await exec_foreground(call, std::move(request));
}

Task<> HttpApi::exec_background(CallPtr call, rpc::ExecStreamRequest request, std::string tag) {
  rpc::StartBackgroundRequest start;
  start.set_sandbox_id(call->sandbox_id);
  start.set_cmd(request.cmd());
  *start.mutable_args() = std::move(*request.mutable_args());
  *start.mutable_envs() = std::move(*request.mutable_envs());
  start.set_cwd(std::move(*request.mutable_cwd()));
  start.set_tag(tag.empty() ? random_id("proc-").substr(0, kShortTagBytes) : std::move(tag));
  const auto started = CO_TRY(co_await agent_->start_background(std::move(start)));
  const boost::json::object body{{"sandbox_id", call->sandbox_id},
                                 {"cmd", request.cmd()},
                                 {"pid", started.pid()},
                                 {"tag", started.tag()}};
  co_return co_await reply(call, 202, "application/json", boost::json::serialize(body));
}

Task<> HttpApi::exec_foreground(CallPtr call, rpc::ExecStreamRequest request) {
  const std::string cmd = request.cmd();
  const Milliseconds limit = std::chrono::seconds(request.timeout_sec()) + kTimeoutSlack;
  const auto started = std::chrono::steady_clock::now();
  Collected got(&answers_, call->principal.team_id);
  auto work = async::with_timeout(collect(agent_, std::move(request), &got), limit, "the command");
  // A client that leaves takes its command with it.
  CO_TRY(co_await async::run_until(std::move(work), call->exchange->wait_disconnect()));
  service_->note_activity(call->sandbox_id);
  const auto took = std::chrono::duration_cast<Milliseconds>(std::chrono::steady_clock::now() - started);
  const bool text = got.output.is_text();
  JsonAnswer answer(call->exchange, 200, headers_for(*call));
  answer.add(fmt::format(R"({{"sandbox_id":"{}","cmd":")", call->sandbox_id));
  answer.add_text(cmd);
  answer.add(R"(","stdout":")");
  CO_TRY(co_await got.output.send(ExecOutput::Stream::kOut, &answer));
  answer.add(R"(","stderr":")");
  CO_TRY(co_await got.output.send(ExecOutput::Stream::kErr, &answer));
  answer.add(fmt::format(R"(","exit_code":{},"duration_ms":{},"encoding":"{}"}})", got.exit_code,
                         took.count(), text ? "utf-8" : "base64"));
  co_return co_await answer.finish();
}

}  // namespace wrenn::control
