#include "control/http_api.h"

#include <algorithm>
#include <array>
#include <boost/json/serialize.hpp>
#include <charconv>

#include "base/bytes.h"
#include "base/embedded.h"
#include "base/log.h"
#include "control/clock.h"
#include "control/guest_traffic.h"
#include "control/json_answer.h"
#include "control/limits.h"
#include "control/request_id.h"
#include "control/sandbox_json.h"

namespace wrenn::control {

// Generated: openapi.yaml and docs.html.
std::vector<EmbeddedFile> embedded_documents();

namespace {

constexpr char kVersion[] = "0.1.0";
constexpr std::string_view kCanonical = "/v1/sandboxes";
constexpr std::string_view kAlias = "/v1/capsules";

std::string canonical_path(std::string path) {
  if (path == kAlias || path.starts_with(std::string(kAlias) + "/"))
    path.replace(0, kAlias.size(), kCanonical);
  return path;
}

struct PathValues {
  std::string id;
  std::string selector;
};

std::string_view next_segment(std::string_view* path) {
  const std::string_view segment = path->substr(0, path->find('/'));
  path->remove_prefix(std::min(segment.size() + 1, path->size()));
  return segment;
}

// Matches "/v1/sandboxes/{id}/exec", and takes the values of what stands in braces.
bool matches(std::string_view pattern, std::string_view path, PathValues* values) {
  if (std::ranges::count(pattern, '/') != std::ranges::count(path, '/')) return false;
  while (!pattern.empty()) {
    const std::string_view wanted = next_segment(&pattern);
    const std::string_view given = next_segment(&path);
    if (!wanted.starts_with('{')) {
      if (wanted != given) return false;
      continue;
    }
    if (given.empty()) return false;
    (wanted == "{id}" ? values->id : values->selector) = given;
  }
  return path.empty();
}

std::string_view embedded_document(std::string_view name) {
  for (const EmbeddedFile& file : embedded_documents()) {
    if (file.name == name) return file.content;
  }
  return "";
}

}  // namespace

HttpApi::HttpApi(const asio::any_io_executor& executor, store::Store* store, SandboxService* service,
                 Authenticator* auth, AgentClient* agent, TrustedProxies proxies)
    : store_(store),
      service_(service),
      auth_(auth),
      agent_(agent),
      proxies_(std::move(proxies)),
      answers_(kMaxHeldAnswerBytes),
      checks_(executor, 1) {}

std::span<const HttpApi::Route> HttpApi::table() {
  static constexpr std::array kRoutes{
      Route{"GET", "/health", Access::kOpen, &HttpApi::health},
      Route{"GET", "/openapi.yaml", Access::kOpen, &HttpApi::openapi},
      Route{"GET", "/docs", Access::kOpen, &HttpApi::docs},
      Route{"POST", "/v1/sandboxes", Access::kKey, &HttpApi::create},
      Route{"GET", "/v1/sandboxes", Access::kKey, &HttpApi::list},
      Route{"GET", "/v1/sandboxes/{id}", Access::kKey, &HttpApi::get},
      Route{"DELETE", "/v1/sandboxes/{id}", Access::kKey, &HttpApi::destroy},
      Route{"POST", "/v1/sandboxes/{id}/exec", Access::kKey, &HttpApi::exec},
      Route{"GET", "/v1/sandboxes/{id}/exec/stream", Access::kSocket, &HttpApi::exec_stream},
      Route{"GET", "/v1/sandboxes/{id}/pty", Access::kSocket, &HttpApi::pty},
      Route{"GET", "/v1/sandboxes/{id}/processes", Access::kKey, &HttpApi::list_processes},
      Route{"DELETE", "/v1/sandboxes/{id}/processes/{selector}", Access::kKey, &HttpApi::kill_process},
      Route{"GET", "/v1/sandboxes/{id}/processes/{selector}/stream", Access::kSocket,
            &HttpApi::process_stream},
      Route{"GET", "/v1/sandboxes/{id}/metrics", Access::kKey, &HttpApi::metrics},
      Route{"POST", "/v1/sandboxes/{id}/ping", Access::kKey, &HttpApi::ping},
      Route{"POST", "/v1/sandboxes/{id}/pause", Access::kKey, &HttpApi::pause},
      Route{"POST", "/v1/sandboxes/{id}/resume", Access::kKey, &HttpApi::resume},
      Route{"POST", "/v1/sandboxes/{id}/files/write", Access::kKey, &HttpApi::write_file},
      Route{"POST", "/v1/sandboxes/{id}/files/read", Access::kKey, &HttpApi::read_file},
      Route{"POST", "/v1/sandboxes/{id}/files/stream/write", Access::kKey, &HttpApi::write_file_stream},
      Route{"POST", "/v1/sandboxes/{id}/files/stream/read", Access::kKey, &HttpApi::read_file},
      Route{"POST", "/v1/sandboxes/{id}/files/list", Access::kKey, &HttpApi::list_files},
      Route{"POST", "/v1/sandboxes/{id}/files/mkdir", Access::kKey, &HttpApi::make_dir},
      Route{"POST", "/v1/sandboxes/{id}/files/remove", Access::kKey, &HttpApi::remove_path},
  };
  return kRoutes;
}

std::vector<HttpApi::RouteName> HttpApi::routes() {
  std::vector<RouteName> names;
  for (const Route& route : table()) names.push_back({route.method, route.pattern});
  return names;
}

net::Headers HttpApi::headers_for(const Call& call) {
  net::Headers headers;
  headers.set("X-Request-Id", call.request_id);
  // Answers hold secrets, or are old in a moment.
  headers.set("Cache-Control", "no-store");
  return headers;
}

void HttpApi::log_failure(const Call& call, const PublicError& told, const Error& error) {
  if (!told.is_failure()) return;
  log::warn("{} {}: {} (request {})", call.exchange->request().method, call.exchange->request().path(),
            error.to_string(), call.request_id);
}

Task<> HttpApi::handle(std::shared_ptr<net::Exchange> exchange) {
  auto call = std::make_shared<Call>();
  call->request_id = request_id_of(exchange->request());
  call->address = proxies_.caller_of(exchange->request(), exchange->peer()).address;
  call->exchange = std::move(exchange);
  auto handled = co_await dispatch(call);
  if (handled) co_return handled;
  // Too late for an answer: the server cuts the connection.
  if (call->upgraded || call->exchange->started()) co_return fail(std::move(handled).error());
  co_return co_await refuse(call, std::move(handled).error());
}

Task<> HttpApi::dispatch(CallPtr call) {
  const net::RequestHead& head = call->exchange->request();
  const std::string path = canonical_path(head.path());
  const Route* found = nullptr;
  std::string allowed;
  for (const Route& route : table()) {
    PathValues values;
    if (!matches(route.pattern, path, &values)) continue;
    if (route.answers(head.method)) {
      found = &route;
      call->sandbox_id = std::move(values.id);
      call->selector = std::move(values.selector);
      break;
    }
    allowed += (allowed.empty() ? "" : ", ") + std::string(route.method);
    if (route.answers("HEAD")) allowed += ", HEAD";
  }
  if (found == nullptr && !allowed.empty()) {
    call->allow = allowed;
    co_return fail(
        Error(Code::kUnimplemented, "this path takes " + allowed).with_reason("method_not_allowed"));
  }
  if (found == nullptr) co_return fail(Code::kNotFound, "no such route");
  if (found->access == Access::kKey) {
    call->principal =
        CO_TRY(co_await auth_->check(std::string(head.headers.get("X-API-Key")), call->address));
  }
  if (found->access != Access::kOpen && !call->sandbox_id.empty() &&
      !model::is_sandbox_id(call->sandbox_id)) {
    co_return fail(Code::kNotFound, "no such sandbox");
  }
  co_return co_await (this->*found->handler)(call);
}

Task<> HttpApi::refuse(CallPtr call, Error error) {
  const PublicError told(error);
  log_failure(*call, told, error);
  co_await drain(call);
  net::Headers headers = headers_for(*call);
  headers.set("Content-Type", "application/json");
  if (!call->allow.empty()) headers.set("Allow", call->allow);
  if (told.retry_after_sec() > 0) headers.set("Retry-After", std::to_string(told.retry_after_sec()));
  co_return co_await call->exchange->respond(told.status(), std::move(headers), told.body());
}

// Many clients send their whole body before they read an answer; cut off, they never see why.
Task<> HttpApi::drain(CallPtr call) {
  const bool has_body = call->exchange->body_length() != net::BodyLength(0);
  if (!has_body || call->body_read || call->principal.team_id.empty() ||
      call->exchange->request().headers.has("Expect")) {
    co_return Result<>{};
  }
  const auto read_on = [](CallPtr each) -> Task<> {
    std::string buffer(kChunkBytes, '\0');
    for (std::uint64_t total = 0; total < kMaxDrainBytes;) {
      const std::size_t got = CO_TRY(co_await each->exchange->read(buffer));
      if (got == 0) break;
      total += got;
    }
    co_return Result<>{};
  };
  co_return co_await async::with_timeout(read_on(call), kDrainDeadline, "reading the rest of a refused body");
}

Task<> HttpApi::reply(CallPtr call, int status, std::string type, std::string body) {
  net::Headers headers = headers_for(*call);
  headers.set("Content-Type", std::move(type));
  co_return co_await call->exchange->respond(status, std::move(headers), std::move(body));
}

Task<> HttpApi::reply_empty(CallPtr call) {
  co_return co_await call->exchange->respond(204, headers_for(*call), "");
}

Task<> HttpApi::reply_sandbox(CallPtr call, int status, store::Sandbox sandbox) {
  boost::json::object body = to_json(sandbox);
  if (!sandbox.access_token.empty()) {
    body["access_token"] = sandbox.access_token;
    body["traffic_access_token"] = traffic_token(sandbox);
  }
  co_return co_await reply(call, status, "application/json", boost::json::serialize(body));
}

Task<JsonInput> HttpApi::read_json(CallPtr call) {
  auto body = co_await async::with_timeout(net::read_all(call->exchange.get(), kMaxJsonBytes),
                                           kBodyReadDeadline, "reading the request's body");
  if (!body) co_return fail(std::move(body).error());
  call->body_read = true;
  co_return JsonInput::parse(*body);
}

// However many ask, the database is asked once at a time, and not again at once.
Task<> HttpApi::check_database() {
  if (!database_ || std::chrono::steady_clock::now() > database_until_) {
    database_ = co_await store_->check();
    database_until_ = std::chrono::steady_clock::now() + kHealthCacheTime;
  }
  co_return *database_;
}

Task<> HttpApi::health(CallPtr call) {
  CO_TRY(co_await checks_.join("database", [this] { return check_database(); }));
  boost::json::object body{{"status", "ok"}, {"version", kVersion}};
  co_return co_await reply(call, 200, "application/json", boost::json::serialize(body));
}

Task<> HttpApi::openapi(CallPtr call) {
  co_return co_await reply(call, 200, "application/yaml", std::string(embedded_document("openapi.yaml")));
}

Task<> HttpApi::docs(CallPtr call) {
  co_return co_await reply(call, 200, "text/html; charset=utf-8",
                           std::string(embedded_document("docs.html")));
}

Task<> HttpApi::create(CallPtr call) {
  const JsonInput input = CO_TRY(co_await read_json(call));
  CreateRequest request;
  request.template_name = CO_TRY(input.text("template", 1024, model::kDefaultTemplate));
  if (request.template_name.empty()) request.template_name = model::kDefaultTemplate;
  CO_TRY(model::check_name("template", request.template_name));
  request.vcpus = CO_TRY(input.integer("vcpus", model::kMinVcpus, model::kMaxVcpus, model::kDefaultVcpus));
  request.memory_mb =
      CO_TRY(input.integer("memory_mb", model::kMinMemoryMb, model::kMaxMemoryMb, model::kDefaultMemoryMb));
  request.timeout_sec = CO_TRY(input.integer("timeout_sec", 0, model::kMaxTimeoutSec, 0));
  request.auto_resume = CO_TRY(input.boolean("auto_resume", false));
  request.public_traffic = CO_TRY(input.boolean("allow_public_traffic", true));
  auto sandbox = CO_TRY(co_await service_->create(call->principal.team_id, std::move(request)));
  co_return co_await reply_sandbox(call, 201, std::move(sandbox));
}

Task<> HttpApi::list(CallPtr call) {
  const net::RequestHead& head = call->exchange->request();
  std::optional<model::Status> status;
  if (const auto name = head.query("status")) {
    status = model::status_from_name(*name);
    if (!status) {
      co_return bad_request("status", "status must be pending, running, paused, stopped, error or missing");
    }
  }
  std::int64_t limit = kDefaultListLimit;
  if (const auto text = head.query("limit")) {
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), limit);
    if (error != std::errc() || end != text->data() + text->size()) {
      co_return bad_request("limit", fmt::format("limit must be an integer between 1 and {}", kMaxListLimit));
    }
    CO_TRY(model::check_range("limit", limit, 1, kMaxListLimit));
  }
  const auto rows =
      CO_TRY(co_await service_->list(call->principal.team_id, status, static_cast<std::size_t>(limit)));
  JsonAnswer answer(call->exchange, 200, headers_for(*call));
  for (const store::Sandbox& sandbox : rows) {
    answer.add(&sandbox == &rows.front() ? "[" : ",");
    answer.add(boost::json::serialize(to_json(sandbox)));
    if (answer.full()) CO_TRY(co_await answer.send());
  }
  answer.add(rows.empty() ? "[]" : "]");
  co_return co_await answer.finish();
}

Task<> HttpApi::get(CallPtr call) {
  auto sandbox = CO_TRY(co_await service_->get(call->principal.team_id, call->sandbox_id));
  co_return co_await reply_sandbox(call, 200, std::move(sandbox));
}

Task<> HttpApi::destroy(CallPtr call) {
  CO_TRY(co_await service_->destroy(call->principal.team_id, call->sandbox_id));
  co_return co_await reply_empty(call);
}

Task<> HttpApi::ping(CallPtr call) {
  CO_TRY(co_await service_->ping(call->principal.team_id, call->sandbox_id));
  co_return co_await reply_empty(call);
}

Task<> HttpApi::pause(CallPtr call) {
  auto sandbox = CO_TRY(co_await service_->pause(call->principal.team_id, call->sandbox_id));
  co_return co_await reply_sandbox(call, 200, std::move(sandbox));
}

Task<> HttpApi::resume(CallPtr call) {
  auto sandbox = CO_TRY(co_await service_->resume(call->principal.team_id, call->sandbox_id));
  co_return co_await reply_sandbox(call, 200, std::move(sandbox));
}

}  // namespace wrenn::control
