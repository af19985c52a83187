#include "base/bytes.h"
#include "control/api_error.h"
#include "control/http_api.h"
#include "control/json_socket.h"
#include "control/limits.h"

namespace wrenn::control {
namespace {

namespace rpc = hostagent::v1;

constexpr char kDefaultShell[] = "/bin/bash";
constexpr std::size_t kMaxTagBytes = 128;
constexpr std::size_t kMaxUserBytes = 64;
constexpr std::size_t kMaxPathBytes = 4096;
constexpr std::size_t kMaxEnvs = 256;
constexpr std::int64_t kMaxCells = 65'535;
constexpr std::int64_t kDefaultCols = 80;
constexpr std::int64_t kDefaultRows = 24;
constexpr std::size_t kMaxInputFrameBytes = 1024 * 1024;
// Of one call to the agent.
constexpr std::size_t kInputPieceBytes = 64 * 1024;
constexpr std::size_t kTagBytes = 12;  // "pty-" and 8 more

Result<> parse_size(const JsonInput& frame, rpc::PtyAttachRequest* request) {
  request->set_cols(static_cast<std::uint32_t>(TRY(frame.integer("cols", 1, kMaxCells, kDefaultCols))));
  request->set_rows(static_cast<std::uint32_t>(TRY(frame.integer("rows", 1, kMaxCells, kDefaultRows))));
  return {};
}

Result<rpc::PtyAttachRequest> parse_start(const JsonInput& frame) {
  rpc::PtyAttachRequest request;
  request.set_tag(random_id("pty-").substr(0, kTagBytes));
  request.set_cmd(TRY(frame.text("cmd", model::kMaxCommandBytes, kDefaultShell)));
  if (request.cmd().empty()) request.set_cmd(kDefaultShell);
  for (std::string& arg : TRY(frame.texts("args", model::kMaxArgs, model::kMaxCommandBytes))) {
    request.add_args(std::move(arg));
  }
  for (auto& [name, value] : TRY(frame.text_map("envs", kMaxEnvs, model::kMaxCommandBytes))) {
    (*request.mutable_envs())[name] = std::move(value);
  }
  request.set_cwd(TRY(frame.text("cwd", kMaxPathBytes, "")));
  request.set_user(TRY(frame.text("user", kMaxUserBytes, "")));
  TRY(parse_size(frame, &request));
  return request;
}

Result<rpc::PtyAttachRequest> parse_first(const JsonInput& frame) {
  const std::string type = TRY(frame.text("type", kMaxFrameTypeBytes));
  if (type == "start") return parse_start(frame);
  if (type != "connect") return bad_request("type", "the first frame must be of type start or connect");
  rpc::PtyAttachRequest request;
  request.set_tag(TRY(frame.text("tag", kMaxTagBytes)));
  return request;
}

}  // namespace

// One view of a terminal. The terminal outlives it, unless the client kills it.
class HttpApi::PtySocket {
 public:
  PtySocket(HttpApi* api, CallPtr call, JsonSocket* socket, asio::any_io_executor executor)
      : api_(api), call_(std::move(call)), socket_(socket), start_(std::move(executor)) {}

  Task<> run() {
    const JsonInput frame = CO_TRY(co_await api_->first_frame(call_, socket_));
    auto request = CO_TRY(parse_first(frame));
    request.set_sandbox_id(call_->sandbox_id);
    tag_ = request.tag();
    api_->service_->note_activity(call_->sandbox_id);
    async::Nursery background(co_await asio::this_coro::executor);
    background.spawn("terminal pings", ping());
    auto ran = co_await async::run_until(view(std::move(request)), listen());
    co_await background.cancel_and_join();
    api_->service_->note_activity(call_->sandbox_id);
    co_return ran;
  }

 private:
  // Keeps what lies between us and the client from taking a quiet terminal for a dead connection.
  Task<> ping() {
    while (true) {
      CO_TRY(co_await async::sleep_for(kSocketPingPeriod));
      CO_TRY(co_await socket_->send({{"type", "ping"}}));
    }
  }

  // A failure is told here, while the listener still reads the client's answer to the close.
  Task<> view(rpc::PtyAttachRequest request) {
    co_return co_await api_->end_socket(call_, socket_, co_await pump(std::move(request)));
  }

  Task<> pump(rpc::PtyAttachRequest request) {
    auto stream = CO_TRY(co_await api_->agent_->pty_attach(std::move(request)));
    rpc::PtyAttachResponse event;
    while (true) {
      auto more = started_ ? co_await stream->receive(&event)
                           : co_await async::with_timeout(stream->receive(&event), kPtyStartDeadline,
                                                          "the start of the terminal");
      if (!more) co_return fail(from_agent(std::move(more).error()));
      if (!*more) break;
      if (event.has_started()) {
        started_ = true;
        start_.notify_all();
        CO_TRY(co_await socket_->send({{"type", "started"}, {"tag", tag_}, {"pid", event.started().pid()}}));
      } else if (event.has_output()) {
        CO_TRY(co_await socket_->send({{"type", "output"}, {"data", to_base64(event.output().data())}}));
      } else if (event.has_exited()) {
        CO_TRY(co_await socket_->send({{"type", "exit"}, {"exit_code", event.exited().exit_code()}}));
        co_return co_await socket_->close();
      }
    }
    co_return fail(from_agent(Error(Code::kInternal, "the terminal's stream ended without its exit code")));
  }

  // Returns when the client is gone. What it asks for in vain is told to it and ends nothing. What it sends
  // before the terminal is there waits for it.
  Task<> listen() {
    while (true) {
      const auto frame = co_await socket_->receive();
      if (frame && !*frame) co_return Result<>{};
      if (!frame && frame.error().code() == Code::kCanceled) co_return fail(frame.error());
      while (!started_) CO_TRY(co_await start_.wait());
      auto done = frame ? co_await obey(**frame) : Result<>(fail(frame.error()));
      if (done) continue;
      if (done.error().code() == Code::kCanceled) co_return done;
      const PublicError told(done.error());
      log_failure(*call_, told, done.error());
      CO_TRY(co_await socket_->send_error(told, false));
    }
  }

  Task<> obey(JsonInput frame) {
    const std::string type = CO_TRY(frame.text("type", kMaxFrameTypeBytes));
    if (type == "input") co_return co_await input(CO_TRY(frame.text("data", kMaxInputFrameBytes)));
    if (type == "kill") co_return co_await api_->agent_->pty_kill(call_->sandbox_id, tag_);
    if (type != "resize") co_return bad_request("type", "type must be input, resize or kill");
    rpc::PtyAttachRequest size;
    CO_TRY(parse_size(frame, &size));
    co_return co_await api_->agent_->pty_resize(call_->sandbox_id, tag_, size.cols(), size.rows());
  }

  Task<> input(std::string base64) {
    auto bytes = from_base64(base64);
    if (!bytes) co_return bad_request("data", "data must be base64");
    api_->service_->note_activity(call_->sandbox_id);
    for (std::size_t at = 0; at < bytes->size(); at += kInputPieceBytes) {
      CO_TRY(co_await api_->agent_->pty_input(call_->sandbox_id, tag_, bytes->substr(at, kInputPieceBytes)));
    }
    co_return Result<>{};
  }

  HttpApi* api_;
  CallPtr call_;
  JsonSocket* socket_;
  std::string tag_;
  bool started_ = false;
  async::Condition start_;
};

Task<> HttpApi::pty(CallPtr call) {
  JsonSocket socket = CO_TRY(co_await open_socket(call));
  PtySocket session(this, call, &socket, co_await asio::this_coro::executor);
  co_return co_await end_socket(call, &socket, co_await session.run());
}

}  // namespace wrenn::control
