// Processes that go on without the request that started them.
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <charconv>

#include "control/api_error.h"
#include "control/http_api.h"
#include "control/process_events.h"

namespace wrenn::control {
namespace {

namespace rpc = hostagent::v1;

// Digits are a pid, anything else a tag.
template <class Request>
Result<> select(std::string_view selector, Request* request) {
  std::uint32_t pid = 0;
  const auto [end, ec] = std::from_chars(selector.data(), selector.data() + selector.size(), pid);
  if (ec == std::errc() && end == selector.data() + selector.size()) {
    request->set_pid(pid);
    return {};
  }
  TRY(model::check_name("selector", selector));
  request->set_tag(std::string(selector));
  return {};
}

boost::json::object to_json(const rpc::ProcessInfo& process) {
  boost::json::object entry{{"pid", process.pid()}, {"cmd", process.cmd()}};
  if (!process.tag().empty()) entry["tag"] = process.tag();
  boost::json::array args(process.args().begin(), process.args().end());
  if (!args.empty()) entry["args"] = std::move(args);
  return entry;
}

}  // namespace

Task<> HttpApi::list_processes(CallPtr call) {
  CO_TRY(co_await service_->require_running(call->principal.team_id, call->sandbox_id));
  ListAnswer list(&answers_, call->principal.team_id);
  CO_TRY(co_await agent_->list_processes(call->sandbox_id, &list));
  JsonAnswer answer(call->exchange, 200, headers_for(*call));
  answer.add(R"({"processes":[)");
  CO_TRY(co_await list.send<rpc::ProcessInfo>(&answer, to_json));
  answer.add("]}");
  co_return co_await answer.finish();
}

Task<> HttpApi::kill_process(CallPtr call) {
  rpc::KillProcessRequest request;
  request.set_sandbox_id(call->sandbox_id);
  request.set_signal(call->exchange->request().query("signal").value_or("SIGKILL"));
  if (request.signal() != "SIGKILL" && request.signal() != "SIGTERM") {
    co_return bad_request("signal", "signal must be SIGKILL or SIGTERM");
  }
  CO_TRY(select(call->selector, &request));
  CO_TRY(co_await service_->require_running(call->principal.team_id, call->sandbox_id));
  service_->note_activity(call->sandbox_id);
  CO_TRY(co_await agent_->kill_process(std::move(request)));
  co_return co_await reply_empty(call);
}

Task<> HttpApi::metrics(CallPtr call) {
  const std::string range = call->exchange->request().query("range").value_or("10m");
  CO_TRY(model::parse_metric_range(range));
  const auto sandbox = CO_TRY(co_await service_->get(call->principal.team_id, call->sandbox_id));
  if (sandbox.status != model::Status::kRunning && sandbox.status != model::Status::kPaused) {
    co_return fail(Code::kNotFound, "metrics are kept of running and paused sandboxes");
  }
  const auto metrics = CO_TRY(co_await agent_->metrics(call->sandbox_id, range));
  boost::json::array points;
  for (const auto& point : metrics.points()) {
    points.push_back(boost::json::object{{"timestamp_unix", point.timestamp_unix()},
                                         {"cpu_pct", point.cpu_pct()},
                                         {"mem_bytes", point.mem_bytes()},
                                         {"disk_bytes", point.disk_bytes()}});
  }
  boost::json::object body{{"sandbox_id", call->sandbox_id}, {"range", range}, {"points", std::move(points)}};
  if (!metrics.waiting_for().empty()) body["waiting_for"] = metrics.waiting_for();
  co_return co_await reply(call, 200, "application/json", boost::json::serialize(body));
}

// One processes/{selector}/stream connection. Leaving it leaves the process alone.
class HttpApi::ProcessSocket {
 public:
  ProcessSocket(HttpApi* api, CallPtr call, JsonSocket* socket)
      : api_(api), call_(std::move(call)), socket_(socket), sender_(socket) {}

  Task<> run() {
    CO_TRY(co_await api_->authenticate(call_, socket_));
    rpc::ConnectProcessRequest request;
    request.set_sandbox_id(call_->sandbox_id);
    CO_TRY(select(call_->selector, &request));
    api_->service_->note_activity(call_->sandbox_id);
    co_return co_await async::run_until(stream(std::move(request)), wait_left());
  }

 private:
  Task<> wait_left() {
    while (true) {
      const auto frame = co_await socket_->receive();
      if (!frame && frame.error().code() == Code::kCanceled) co_return fail(frame.error());
      if (frame && !*frame) co_return Result<>{};
    }
  }
  // A failure is told here, while the client's answer to the close is still read.
  Task<> stream(rpc::ConnectProcessRequest request) {
    co_return co_await api_->end_socket(call_, socket_, co_await pump(std::move(request)));
  }
  Task<> pump(rpc::ConnectProcessRequest request) {
    const auto events = CO_TRY(co_await api_->agent_->connect_process(std::move(request)));
    co_return co_await sender_.run(events.get());
  }

  HttpApi* api_;
  CallPtr call_;
  JsonSocket* socket_;
  ProcessEventSender sender_;
};

Task<> HttpApi::process_stream(CallPtr call) {
  JsonSocket socket = CO_TRY(co_await open_socket(call));
  ProcessSocket session(this, call, &socket);
  co_return co_await end_socket(call, &socket, co_await session.run());
}

}  // namespace wrenn::control
