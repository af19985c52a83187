#include "envd/process_service.h"

#include <charconv>

#include "envd/limits.h"

namespace wrenn::envd {
namespace {

using connect::Context;
using connect::Reader;
using connect::Writer;

constexpr const char* kPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

std::vector<std::string> environment(const process::StartRequest& request, const sys::User& user,
                                     const Settings& settings) {
  std::map<std::string, std::string> later = settings.envs;
  for (const auto& [name, value] : request.process().envs()) later[name] = value;
  std::vector<std::string> env;
  for (const auto& [name, value] : std::map<std::string, std::string>{
           {"HOME", user.home}, {"USER", user.name}, {"LOGNAME", user.name}, {"SHELL", user.shell}}) {
    if (!later.contains(name)) env.push_back(name + "=" + value);
  }
  if (!later.contains("PATH")) env.emplace_back(kPath);
  for (const auto& [name, value] : later) env.push_back(name + "=" + value);
  return env;
}

Result<> check_text(const process::ProcessConfig& config) {
  const auto has_nul = [](const std::string& text) { return text.find('\0') != std::string::npos; };
  bool bad = has_nul(config.cmd()) || has_nul(config.cwd());
  for (const auto& arg : config.args()) bad = bad || has_nul(arg);
  for (const auto& [name, value] : config.envs()) {
    bad = bad || has_nul(name) || has_nul(value) || name.empty() || name.find('=') != std::string::npos;
  }
  if (bad) return fail(Code::kInvalidArgument, "cmd, args, cwd and envs must hold no NUL, and names no '='");
  return {};
}

Result<StartSpec> make_spec(const connect::CallContext& context, process::StartRequest request,
                            const Settings& settings) {
  TRY(check_text(request.process()));
  sys::User user = TRY(request_user(context.request_headers, settings));
  const std::string cwd = TRY(resolve_path(request.process().cwd(), user, settings));
  auto env = environment(request, user, settings);
  return StartSpec{.request = std::move(request),
                   .user = std::move(user),
                   .cwd = cwd,
                   .env = std::move(env),
                   .lifetime = context.timeout};
}

// Sends events until the process ended or the client left.
template <class Response>
Task<> relay(Context context, Subscription subscription, Writer<Response> out) {
  const Milliseconds interval = keepalive_interval(context->request_headers);
  while (true) {
    auto event = co_await async::with_timeout(subscription.channel()->receive(), interval, "event");
    Response response;
    if (!event && event.error().code() == Code::kDeadlineExceeded) {
      response.mutable_event()->mutable_keepalive();
      CO_TRY(co_await out.send(std::move(response)));
      continue;
    }
    auto next = CO_TRY(std::move(event));
    if (!next) co_return fail(Code::kUnavailable, "the process table was shut down");
    const bool last = next->has_end();
    *response.mutable_event() = std::move(*next);
    CO_TRY(co_await out.send(std::move(response)));
    if (last) co_return Result<>{};
  }
}

class Service {
 public:
  Service(asio::thread_pool* pool, ProcessTable* table, Settings* settings)
      : pool_(pool), table_(table), settings_(settings) {}

  Task<> start(Context context, process::StartRequest request, Writer<process::StartResponse> out) {
    auto spec = CO_TRY(make_spec(*context, std::move(request), *settings_));
    CO_TRY(co_await async::offload(
        *pool_, [cwd = spec.cwd](async::Blocking blocking) { return check_cwd(blocking, cwd); }));
    auto subscription = CO_TRY(table_->start(std::move(spec)));
    co_return co_await relay(std::move(context), std::move(subscription), out);
  }
  Task<> connect(Context context, process::ConnectRequest request, Writer<process::ConnectResponse> out) {
    auto subscription = CO_TRY(table_->connect(request.process()));
    co_return co_await relay(std::move(context), std::move(subscription), out);
  }
  Task<process::ListResponse> list(Context, process::ListRequest) {
    process::ListResponse response;
    for (auto& info : table_->list()) *response.add_processes() = std::move(info);
    co_return response;
  }
  Task<process::UpdateResponse> update(Context, process::UpdateRequest request) {
    if (request.has_pty()) CO_TRY(table_->resize(request.process(), request.pty()));
    co_return process::UpdateResponse();
  }
  Task<process::SendInputResponse> send_input(Context, process::SendInputRequest request) {
    CO_TRY(co_await table_->send_input(request.process(), request.input()));
    co_return process::SendInputResponse();
  }
  Task<process::StreamInputResponse> stream_input(Context, Reader<process::StreamInputRequest> in) {
    std::optional<process::ProcessSelector> target;
    while (auto request = CO_TRY(co_await in.receive())) {
      if (request->has_start()) target = request->start().process();
      if (!request->has_data()) continue;
      if (!target) co_return fail(Code::kInvalidArgument, "the first message must be start");
      CO_TRY(co_await table_->send_input(*target, request->data().input()));
    }
    co_return process::StreamInputResponse();
  }
  Task<process::SendSignalResponse> send_signal(Context, process::SendSignalRequest request) {
    const int number = request.signal();
    if (number != process::SIGNAL_SIGKILL && number != process::SIGNAL_SIGTERM) {
      co_return fail(Code::kUnimplemented, "only SIGTERM and SIGKILL can be sent");
    }
    CO_TRY(table_->signal(request.process(), number));
    co_return process::SendSignalResponse();
  }
  Task<process::CloseStdinResponse> close_stdin(Context, process::CloseStdinRequest request) {
    CO_TRY(table_->close_stdin(request.process()));
    co_return process::CloseStdinResponse();
  }

 private:
  asio::thread_pool* pool_;
  ProcessTable* table_;
  Settings* settings_;
};

}  // namespace

Milliseconds keepalive_interval(const net::Headers& headers) {
  const std::string_view text = headers.get("keepalive-ping-interval");
  int seconds = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (ec != std::errc() || end != text.data() + text.size() || seconds < 1) return kDefaultKeepalive;
  return std::chrono::seconds(seconds);
}

void serve_processes(connect::Router* router, asio::thread_pool* pool, ProcessTable* table,
                     Settings* settings) {
  using std::placeholders::_1, std::placeholders::_2, std::placeholders::_3;
  const auto service = std::make_shared<Service>(pool, table, settings);
  const std::string prefix = "/process.Process/";
  router->server_stream<process::StartRequest, process::StartResponse>(
      prefix + "Start", std::bind(&Service::start, service, _1, _2, _3));
  router->server_stream<process::ConnectRequest, process::ConnectResponse>(
      prefix + "Connect", std::bind(&Service::connect, service, _1, _2, _3));
  router->unary<process::ListRequest, process::ListResponse>(prefix + "List",
                                                             std::bind(&Service::list, service, _1, _2));
  router->unary<process::UpdateRequest, process::UpdateResponse>(
      prefix + "Update", std::bind(&Service::update, service, _1, _2));
  router->unary<process::SendInputRequest, process::SendInputResponse>(
      prefix + "SendInput", std::bind(&Service::send_input, service, _1, _2));
  router->client_stream<process::StreamInputRequest, process::StreamInputResponse>(
      prefix + "StreamInput", std::bind(&Service::stream_input, service, _1, _2));
  router->unary<process::SendSignalRequest, process::SendSignalResponse>(
      prefix + "SendSignal", std::bind(&Service::send_signal, service, _1, _2));
  router->unary<process::CloseStdinRequest, process::CloseStdinResponse>(
      prefix + "CloseStdin", std::bind(&Service::close_stdin, service, _1, _2));
}

}  // namespace wrenn::envd
