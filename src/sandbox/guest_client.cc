#include "sandbox/guest_client.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <charconv>
#include <chrono>

#include "async/async.h"
#include "base/bytes.h"
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
  return options;
}

constexpr connect::AnswerLimit kAnswer{kMaxEnvdAnswerBytes};

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
// Zero when the guest does not say; it may say anything.
Milliseconds clock_error(const net::Headers& answer, std::chrono::system_clock::time_point sent) {
  const std::string text(answer.get("x-envd-clock"));
  std::int64_t guest = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), guest).ec != std::errc{})
    return Milliseconds(0);
  const auto off = [&](std::chrono::system_clock::time_point host) {
    const auto nanos = std::chrono::duration_cast<std::chrono::nanoseconds>(host.time_since_epoch()).count();
    const auto [low, high] = std::minmax({static_cast<std::int64_t>(nanos), guest});
    constexpr std::uint64_t kNanosPerMs = 1'000'000;
    const std::uint64_t apart = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low);
    return Milliseconds(static_cast<std::int64_t>(apart / kNanosPerMs));
  };
  return std::max(off(sent), off(std::chrono::system_clock::now()));
}

std::string fresh_entropy() {
  std::array<std::uint8_t, kEntropyBytes> bytes{};
  fill_random(bytes);
  return to_base64({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

}  // namespace

Task<> GuestClient::init(std::vector<std::pair<std::string, std::string>> envs, std::string machine_id,
                         std::function<bool()> alive, Milliseconds limit) {
  json::object variables;
  for (auto& [name, value] : envs) variables[name] = value;
  const auto deadline = Clock::now() + limit;
  Milliseconds attempt{1'000};
  constexpr Milliseconds kStep{3};
  int rounds = 0;
  while (true) {
    const auto sent = std::chrono::system_clock::now();
    const json::object body{{"timestamp", rfc3339(sent)},
                            {"accessToken", token_},
                            {"envVars", variables},
                            {"entropy", fresh_entropy()},
                            {"machineId", machine_id}};
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

template <class Req>
Task<GuestList> GuestClient::list(std::string procedure, Req request, int field,
                                  connect::ElementLimits limits) {
  if (lists_ == nullptr) {
    lists_ = std::make_unique<async::Semaphore>(co_await asio::this_coro::executor, kMaxGuestLists);
  }
  auto place = CO_TRY(co_await lists_->acquire());
  const auto read = [](connect::Client* client, std::string path, Req asked) -> Task<std::string> {
    const auto answer =
        CO_TRY(co_await client->open_unary(std::move(path), std::move(asked), {.repeatable = true}));
    co_return co_await net::read_all(answer.get(), kMaxGuestListBytes);
  };
  auto bytes = co_await async::with_timeout(read(&connect_, std::move(procedure), std::move(request)),
                                            kGuestListLimit, "the guest's list");
  if (!bytes && bytes.error().reason() == "too_large") {
    co_return fail(Error(Code::kResourceExhausted,
                         fmt::format("the list is longer than {} MiB", kMaxGuestListBytes / kMiB))
                       .with_reason("too_large"));
  }
  if (!bytes) co_return fail(std::move(bytes).error());
  co_return GuestList{std::move(place), connect::ElementReader(std::move(*bytes), field, limits)};
}

Task<GuestList> GuestClient::processes() {
  return list("/process.Process/List", process::ListRequest(), process::ListResponse::kProcessesFieldNumber,
              {.count = kMaxGuestListEntries, .bytes = kMaxProcessEntryBytes});
}

// ---- folders

Task<GuestList> GuestClient::list_dir(std::string path, std::uint32_t depth) {
  filesystem::ListDirRequest request;
  request.set_path(std::move(path));
  request.set_depth(depth);
  return list("/filesystem.Filesystem/ListDir", std::move(request),
              filesystem::ListDirResponse::kEntriesFieldNumber,
              {.count = kMaxGuestListEntries, .bytes = kMaxFileEntryBytes});
}

Task<filesystem::EntryInfo> GuestClient::make_dir(std::string path) {
  filesystem::MakeDirRequest request;
  request.set_path(std::move(path));
  auto response = CO_TRY(co_await connect_.unary<filesystem::MakeDirResponse>(
      "/filesystem.Filesystem/MakeDir", std::move(request), kAnswer));
  co_return std::move(*response.mutable_entry());
}

Task<> GuestClient::remove(std::string path) {
  filesystem::RemoveRequest request;
  request.set_path(std::move(path));
  CO_TRY(co_await connect_.unary<filesystem::RemoveResponse>("/filesystem.Filesystem/Remove",
                                                             std::move(request), kAnswer));
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
