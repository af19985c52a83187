#include "sandbox/guest_client.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <boost/json.hpp>
#include <charconv>
#include <chrono>

#include "async/async.h"
#include "sandbox/limits.h"

namespace wrenn::sandbox {
namespace {

namespace json = boost::json;
using Clock = std::chrono::steady_clock;

std::string rfc3339(std::chrono::system_clock::time_point time) {
  const auto now = time.time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now);
  const auto nanos = std::chrono::duration_cast<std::chrono::nanoseconds>(now - seconds).count();
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:09}Z", fmt::gmtime(static_cast<std::time_t>(seconds.count())),
                     nanos);
}

std::string percent_encode(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.' || c == '~' || c == '/';
    if (plain) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

net::Headers token_headers(const std::string& token) {
  net::Headers headers;
  if (!token.empty()) headers.set("X-Access-Token", token);
  return headers;
}

net::Endpoint guest_endpoint(std::string host_ip) {
  net::Endpoint endpoint;
  endpoint.host = std::move(host_ip);
  endpoint.port = kEnvdPort;
  return endpoint;
}

connect::ClientOptions connect_options(const std::string& token) {
  connect::ClientOptions options;
  options.headers = token_headers(token);
  options.max_message_bytes = kMaxGuestMessageBytes;
  return options;
}

bool is_success(int status) { return status >= 200 && status < 300; }

Milliseconds left(Clock::time_point deadline) {
  return std::max(Milliseconds(1), std::chrono::duration_cast<Milliseconds>(deadline - Clock::now()));
}

Code code_of_status(int status) {
  switch (status) {
    case 400:
      return Code::kInvalidArgument;
    case 401:
      return Code::kUnauthenticated;
    case 403:
      return Code::kPermissionDenied;
    case 404:
      return Code::kNotFound;
    case 409:
      return Code::kAlreadyExists;
    case 413:
    case 507:
      return Code::kResourceExhausted;
    case 503:
      return Code::kUnavailable;
    default:
      return Code::kInternal;
  }
}

}  // namespace

Error guest_http_error(int status, std::string_view body) {
  std::string message = fmt::format("the guest answered {}", status);
  boost::system::error_code ec;
  const json::value value = json::parse(body, ec);
  if (!ec && value.is_object()) {
    const json::value* text = value.get_object().if_contains("message");
    if (text != nullptr && text->is_string()) message = std::string(text->get_string());
  }
  Error error(code_of_status(status), std::move(message));
  if (status == 507) return std::move(error).with_reason("disk_full");
  if (status == 413) return std::move(error).with_reason("too_large");
  return error;
}

// ---- processes

Task<std::optional<process::ProcessEvent>> GuestProcess::next() {
  if (ended_) co_return std::optional<process::ProcessEvent>{};
  process::StartResponse response;
  if (!CO_TRY(co_await call_->receive(&response))) {
    co_return fail(Code::kUnavailable, "the guest ended the stream before the process ended");
  }
  if (response.event().has_start()) pid_ = response.event().start().pid();
  if (response.event().has_end()) ended_ = true;
  co_return std::optional<process::ProcessEvent>(std::move(*response.mutable_event()));
}

namespace {

Task<> kill_pid(GuestClient* guest, std::uint32_t pid) {
  process::ProcessSelector selector;
  selector.set_pid(pid);
  auto killed = co_await guest->signal(std::move(selector), process::SIGNAL_SIGKILL);
  if (!killed && killed.error().code() != Code::kNotFound) co_return killed;
  co_return Result<>{};
}

}  // namespace

Task<> GuestProcess::kill() {
  if (ended_ || pid_ == 0) co_return Result<>{};
  co_return co_await async::with_timeout(kill_pid(guest_, pid_), kKillProcessLimit, "killing the process");
}

// ---- files

Task<> GuestUpload::write(std::string bytes) {
  Result<> written = co_await request_->write(std::move(bytes));
  if (written || written.error().code() == Code::kCanceled) co_return written;
  // A guest that refuses an upload answers before it has read all of it.
  Result<> answer = co_await finish();
  if (!answer) co_return answer;
  co_return written;
}

Task<> GuestUpload::finish() {
  // Fails when the guest closed its side; its answer then says why.
  const Result<> ended = co_await request_->finish();
  auto response = co_await request_->receive();
  if (!response) co_return fail(ended ? response.error() : ended.error());
  const int status = (*response)->head().status;
  const std::string body = CO_TRY(co_await net::read_all(response->get(), kMaxEnvdAnswerBytes));
  if (!is_success(status)) co_return fail(guest_http_error(status, body));
  co_return Result<>{};
}

// ---- the client

GuestClient::GuestClient(std::shared_ptr<net::HttpClient> http, std::string host_ip, std::string token)
    : http_(http),
      endpoint_(guest_endpoint(std::move(host_ip))),
      token_(std::move(token)),
      connect_(std::move(http), endpoint_, connect_options(token_)) {}

net::RequestHead GuestClient::head(std::string method, std::string target) const {
  return net::RequestHead{std::move(method), std::move(target), token_headers(token_)};
}

void GuestClient::drop_connections() { http_->drop_idle(endpoint_); }

void forget_guest(net::HttpClient* http, std::string host_ip) {
  http->drop_idle(guest_endpoint(std::move(host_ip)));
}

Task<net::Headers> GuestClient::simple(std::string method, std::string target, std::string body) {
  net::RequestHead request = head(std::move(method), std::move(target));
  if (!body.empty()) request.headers.set("Content-Type", "application/json");
  auto response = CO_TRY(co_await http_->send(endpoint_, std::move(request), std::move(body)));
  const std::string answer = CO_TRY(co_await net::read_all(response.get(), kMaxEnvdAnswerBytes));
  const int status = response->head().status;
  if (!is_success(status)) co_return fail(guest_http_error(status, answer));
  co_return response->head().headers;
}

Task<> GuestClient::wait_healthy(Milliseconds limit) {
  const auto deadline = Clock::now() + limit;
  constexpr Milliseconds kAttempt{500};
  constexpr Milliseconds kStep{4};
  while (true) {
    const auto healthy = co_await async::with_timeout(simple("GET", "/health", ""), kAttempt, "health check");
    if (healthy) co_return Result<>{};
    if (healthy.error().code() == Code::kCanceled) co_return fail(healthy.error());
    if (Clock::now() >= deadline) {
      co_return fail(Code::kDeadlineExceeded, fmt::format("the guest did not answer within {} ms: {}",
                                                          limit.count(), healthy.error().message()));
    }
    CO_TRY(co_await async::sleep_for(kStep));
  }
}

namespace {

// The guest set its clock to `sent` at some moment before it answered, so it is at most this far off.
// Zero when the guest does not say.
Milliseconds clock_error(const net::Headers& answer, std::chrono::system_clock::time_point sent) {
  const std::string text(answer.get("x-envd-clock"));
  std::int64_t guest = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), guest).ec != std::errc{})
    return Milliseconds(0);
  const auto off = [&](std::chrono::system_clock::time_point host) {
    const auto nanos = std::chrono::duration_cast<std::chrono::nanoseconds>(host.time_since_epoch()).count();
    return std::chrono::duration_cast<Milliseconds>(
        std::chrono::nanoseconds(guest > nanos ? guest - nanos : nanos - guest));
  };
  return std::max(off(sent), off(std::chrono::system_clock::now()));
}

}  // namespace

Task<> GuestClient::init(std::vector<std::pair<std::string, std::string>> envs, std::function<bool()> alive,
                         Milliseconds limit) {
  json::object variables;
  for (auto& [name, value] : envs) variables[name] = value;
  const auto deadline = Clock::now() + limit;
  Milliseconds attempt{1'000};
  constexpr Milliseconds kStep{3};
  int rounds = 0;
  while (true) {
    const auto sent = std::chrono::system_clock::now();
    const json::object body{{"timestamp", rfc3339(sent)}, {"accessToken", token_}, {"envVars", variables}};
    const auto done = co_await async::with_timeout(simple("POST", "/init", json::serialize(body)),
                                                   std::min(attempt, left(deadline)), "setting up the guest");
    if (done) {
      if (++rounds == kInitRounds || clock_error(*done, sent) <= kClockGoal) co_return Result<>{};
      continue;
    }
    const Code code = done.error().code();
    const bool retry = code == Code::kUnavailable || code == Code::kDeadlineExceeded;
    if (!retry || !alive() || Clock::now() >= deadline) co_return fail(Error(done.error()).in("guest init"));
    if (code == Code::kDeadlineExceeded) attempt *= 2;
    CO_TRY(co_await async::sleep_for(kStep));
  }
}

Task<std::uint64_t> GuestClient::quiesce(Milliseconds limit) {
  const auto answer =
      CO_TRY(co_await async::with_timeout(simple("POST", "/quiesce", ""), limit, "quiescing the guest"));
  const std::string text(answer.get("x-envd-memory-free"));
  std::uint64_t free = 0;
  std::from_chars(text.data(), text.data() + text.size(), free);
  co_return free;
}

Task<std::unique_ptr<GuestProcess>> GuestClient::open(std::string procedure,
                                                      std::unique_ptr<connect::Message> request,
                                                      connect::CallOptions options) {
  auto call = CO_TRY(co_await connect_.stream("/process.Process/" + procedure, std::move(options)));
  CO_TRY(co_await call->send(request.get()));
  CO_TRY(co_await call->finish_sending());
  co_return std::unique_ptr<GuestProcess>(new GuestProcess(this, std::move(call)));
}

Task<std::unique_ptr<GuestProcess>> GuestClient::start(ExecSpec spec) {
  auto request = std::make_unique<process::StartRequest>();
  process::ProcessConfig* config = request->mutable_process();
  config->set_cmd(std::move(spec.cmd));
  for (auto& arg : spec.args) config->add_args(std::move(arg));
  for (auto& [name, value] : spec.envs) (*config->mutable_envs())[name] = std::move(value);
  if (!spec.cwd.empty()) config->set_cwd(std::move(spec.cwd));
  if (!spec.tag.empty()) request->set_tag(std::move(spec.tag));
  request->set_stdin(false);
  connect::CallOptions options;
  options.timeout = spec.limit;
  co_return co_await open("Start", std::move(request), std::move(options));
}

namespace {

// Appends the event's bytes; false once there are too many.
bool collect(const process::ProcessEvent& event, ExecOutput* output) {
  if (!event.has_data()) return true;
  output->stdout_bytes += event.data().stdout();
  output->stderr_bytes += event.data().stderr();
  return output->stdout_bytes.size() + output->stderr_bytes.size() <= kMaxExecOutputBytes;
}

}  // namespace

Task<ExecOutput> GuestClient::exec(ExecSpec spec, std::shared_ptr<bool> keep_on_cancel) {
  const auto process = CO_TRY(co_await start(std::move(spec)));
  ExecOutput output;
  while (true) {
    auto event = co_await process->next();
    if (!event) {
      if (!*keep_on_cancel) co_await async::shielded(process->kill());
      co_return fail(std::move(event).error());
    }
    if (!*event) co_return output;
    if (!collect(**event, &output)) {
      co_await async::shielded(process->kill());
      co_return fail(Error(Code::kResourceExhausted,
                           fmt::format("the output is longer than {} bytes", kMaxExecOutputBytes))
                         .with_reason("output_limit"));
    }
    if ((*event)->has_end()) {
      output.exit_code = (*event)->end().exit_code();
    }
  }
}

Task<std::vector<process::ProcessInfo>> GuestClient::processes() {
  auto response = CO_TRY(co_await connect_.unary<process::ListResponse>(
      "/process.Process/List", process::ListRequest(), {.repeatable = true}));
  co_return std::vector<process::ProcessInfo>(response.processes().begin(), response.processes().end());
}

Task<std::unique_ptr<GuestProcess>> GuestClient::connect(process::ProcessSelector selector) {
  // Its events are those of Start under the same number, so one reader serves both.
  auto request = std::make_unique<process::ConnectRequest>();
  *request->mutable_process() = std::move(selector);
  co_return co_await open("Connect", std::move(request), {});
}

Task<> GuestClient::signal(process::ProcessSelector selector, process::Signal signal) {
  process::SendSignalRequest request;
  *request.mutable_process() = std::move(selector);
  request.set_signal(signal);
  connect::CallOptions options;
  options.timeout = kGuestCallLimit;
  CO_TRY(co_await connect_.unary<process::SendSignalResponse>("/process.Process/SendSignal",
                                                              std::move(request), std::move(options)));
  co_return Result<>{};
}

// ---- folders

Task<filesystem::ListDirResponse> GuestClient::list_dir(std::string path, std::uint32_t depth) {
  filesystem::ListDirRequest request;
  request.set_path(std::move(path));
  request.set_depth(depth);
  co_return co_await connect_.unary<filesystem::ListDirResponse>("/filesystem.Filesystem/ListDir",
                                                                 std::move(request));
}

Task<filesystem::EntryInfo> GuestClient::make_dir(std::string path) {
  filesystem::MakeDirRequest request;
  request.set_path(std::move(path));
  auto response = CO_TRY(co_await connect_.unary<filesystem::MakeDirResponse>(
      "/filesystem.Filesystem/MakeDir", std::move(request)));
  co_return std::move(*response.mutable_entry());
}

Task<> GuestClient::remove(std::string path) {
  filesystem::RemoveRequest request;
  request.set_path(std::move(path));
  CO_TRY(co_await connect_.unary<filesystem::RemoveResponse>("/filesystem.Filesystem/Remove",
                                                             std::move(request)));
  co_return Result<>{};
}

Task<std::unique_ptr<GuestUpload>> GuestClient::upload(std::string path) {
  net::RequestHead request = head("POST", "/files?path=" + percent_encode(path));
  request.headers.set("Content-Type", "application/octet-stream");
  auto stream = CO_TRY(co_await http_->open(endpoint_, std::move(request), std::nullopt));
  co_return std::unique_ptr<GuestUpload>(new GuestUpload(std::move(stream)));
}

Task<std::unique_ptr<net::ClientResponse>> GuestClient::download(std::string path) {
  auto response = CO_TRY(
      co_await http_->send(endpoint_, head("GET", "/files?path=" + percent_encode(path)), std::string()));
  const int status = response->head().status;
  if (is_success(status)) co_return response;
  const std::string body = CO_TRY(co_await net::read_all(response.get(), kMaxEnvdAnswerBytes));
  co_return fail(guest_http_error(status, body));
}

}  // namespace wrenn::sandbox
