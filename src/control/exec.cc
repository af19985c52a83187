#include <fmt/format.h>

#include <boost/json/serialize.hpp>
#include <chrono>

#include "base/bytes.h"
#include "control/api_error.h"
#include "control/exec_request.h"
#include "control/http_api.h"
#include "control/limits.h"

namespace wrenn::control {
namespace {

namespace rpc = hostagent::v1;

// The agent ends a command at its timeout; this is for an agent that does not.
constexpr Milliseconds kTimeoutSlack{2'000};
constexpr std::size_t kShortTagBytes = sizeof("proc-") - 1 + 8;

// What one command said; counts against the budget of all.
class Output {
 public:
  explicit Output(std::size_t* all) : all_(all) {}
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  ~Output() { *all_ -= held_; }

  Result<> add(const rpc::ExecStreamData& data) {
    std::string& target = data.has_stderr() ? err : out;
    const std::string& bytes = data.has_stderr() ? data.stderr() : data.stdout();
    if (held_ + bytes.size() > kMaxExecOutputBytes) {
      return fail(Error(Code::kResourceExhausted,
                        fmt::format("the command wrote more than {} bytes and was killed; use exec/stream",
                                    kMaxExecOutputBytes))
                      .with_reason("output_limit"));
    }
    if (*all_ + bytes.size() > kMaxAllExecOutputBytes) {
      return fail(Code::kResourceExhausted, "too much command output is held at once; use exec/stream");
    }
    held_ += bytes.size();
    *all_ += bytes.size();
    target += bytes;
    return {};
  }

  std::string out;
  std::string err;
  std::int32_t exit_code = 0;

 private:
  std::size_t* all_;
  std::size_t held_ = 0;
};

Task<> collect(AgentClient* agent, rpc::ExecStreamRequest request, Output* output) {
  auto call = CO_TRY(co_await agent->exec_stream(std::move(request)));
  rpc::ExecStreamResponse event;
  while (true) {
    auto more = co_await call->receive(&event);
    if (!more) co_return fail(from_agent(std::move(more).error()));
    if (!*more) break;
    if (event.has_data()) CO_TRY(output->add(event.data()));
    if (event.has_end()) {
      output->exit_code = event.end().exit_code();
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
  Output output(&buffered_output_);
  auto work = async::with_timeout(collect(agent_, std::move(request), &output), limit, "the command");
  // A client that leaves takes its command with it.
  CO_TRY(co_await async::run_until(std::move(work), call->exchange->wait_disconnect()));
  service_->note_activity(call->sandbox_id);
  const auto took = std::chrono::duration_cast<Milliseconds>(std::chrono::steady_clock::now() - started);
  const bool text = is_utf8(output.out) && is_utf8(output.err);
  boost::json::object body{{"sandbox_id", call->sandbox_id},
                           {"cmd", cmd},
                           {"stdout", text ? output.out : to_base64(output.out)},
                           {"stderr", text ? output.err : to_base64(output.err)},
                           {"exit_code", output.exit_code},
                           {"duration_ms", took.count()},
                           {"encoding", text ? "utf-8" : "base64"}};
  co_return co_await reply(call, 200, "application/json", boost::json::serialize(body));
}

}  // namespace wrenn::control
