#include "agent/service.h"

#include "agent/limits.h"
#include "base/bytes.h"
#include "sandbox/limits.h"

namespace wrenn::agent {

namespace {

connect::ServerOptions with_limit(std::size_t bytes) {
  connect::ServerOptions options;
  options.max_message_bytes = bytes;
  return options;
}

}  // namespace

Service::Service(sandbox::Manager* manager, std::string secret)
    : manager_(manager),
      secret_(std::move(secret)),
      ports_(manager->context().executor, net::ClientOptions{.max_idle_per_endpoint = 0}),
      router_(with_limit(kMaxMessageBytes)),
      bulk_(with_limit(sandbox::kMaxFileBytes + kMaxMessageBytes)) {
  add_lifecycle();
  add_exec();
  add_files();
  add_pty();
  add_folders();
  add_processes();
}

bool Service::authorized(const net::RequestHead& head, std::string_view name) const {
  if (secret_.empty()) return true;
  constexpr std::string_view kScheme = "Bearer ";
  const std::string_view given = head.headers.get(name);
  return given.size() > kScheme.size() && ascii_iequal(given.substr(0, kScheme.size()), kScheme) &&
         equal_constant_time(given.substr(kScheme.size()), secret_);
}

Task<> Service::handle(std::shared_ptr<net::Exchange> exchange) {
  const std::string path = exchange->request().path();
  net::Headers headers;
  if (path == "/health") {
    headers.set("Content-Type", "application/json");
    co_return co_await exchange->respond(200, std::move(headers), R"({"status":"ok"})");
  }
  const bool proxied = path.starts_with(kProxyPrefix);
  if (!authorized(exchange->request(), proxied ? "Proxy-Authorization" : "Authorization")) {
    headers.set("Content-Type", "application/json");
    headers.set("Connection", "close");
    co_return co_await exchange->respond(
        401, std::move(headers),
        R"({"code":"unauthenticated","message":"a valid bearer secret is required"})");
  }
  if (proxied) co_return co_await proxy(std::move(exchange));
  if (router_.knows(path)) co_return co_await router_.handle(std::move(exchange));
  if (bulk_.knows(path)) co_return co_await bulk_.handle(std::move(exchange));
  headers.set("Content-Type", "application/json");
  co_return co_await exchange->respond(404, std::move(headers),
                                       R"({"code":"unimplemented","message":"no such procedure"})");
}

// ---- life cycle

void Service::add_lifecycle() {
  add(&router_, "CreateSandbox", &Service::create);
  add(&router_, "DestroySandbox", &Service::destroy);
  add(&router_, "PauseSandbox", &Service::pause);
  add(&router_, "ResumeSandbox", &Service::resume);
  add(&router_, "ListSandboxes", &Service::list);
  add(&router_, "AcknowledgeAutoPaused", &Service::acknowledge);
  add(&router_, "CreateSnapshot", &Service::create_snapshot);
  add(&router_, "DeleteSnapshot", &Service::delete_snapshot);
  add(&router_, "PingSandbox", &Service::ping);
  add(&router_, "GetSandboxMetrics", &Service::metrics);
}

Task<pb::CreateSandboxResponse> Service::create(pb::CreateSandboxRequest request) {
  sandbox::CreateSpec spec;
  spec.template_name = request.template_();
  spec.vcpus = request.vcpus();
  spec.memory_mib = request.memory_mb();
  spec.timeout_sec = request.timeout_sec();
  spec.id = request.sandbox_id();
  spec.access_token = request.access_token();
  const auto sandbox = CO_TRY(co_await manager_->create(std::move(spec)));
  pb::CreateSandboxResponse response;
  response.set_sandbox_id(sandbox->record().id);
  response.set_status("running");
  response.set_host_ip(sandbox->host_ip());
  co_return response;
}

Task<pb::DestroySandboxResponse> Service::destroy(pb::DestroySandboxRequest request) {
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  CO_TRY(co_await sandbox->destroy());
  co_return pb::DestroySandboxResponse();
}

Task<pb::PauseSandboxResponse> Service::pause(pb::PauseSandboxRequest request) {
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  CO_TRY(co_await sandbox->pause());
  co_return pb::PauseSandboxResponse();
}

Task<pb::ResumeSandboxResponse> Service::resume(pb::ResumeSandboxRequest request) {
  CO_TRY(model::check_timeout_sec(request.timeout_sec()));
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  CO_TRY(co_await sandbox->resume(request.timeout_sec()));
  pb::ResumeSandboxResponse response;
  response.set_sandbox_id(sandbox->record().id);
  response.set_status("running");
  response.set_host_ip(sandbox->host_ip());
  co_return response;
}

Task<pb::ListSandboxesResponse> Service::list(pb::ListSandboxesRequest) {
  constexpr std::int64_t kMsPerSecond = 1000;
  pb::ListSandboxesResponse response;
  for (const auto& sandbox : manager_->list()) {
    const sandbox::Record& record = sandbox->record();
    auto* info = response.add_sandboxes();
    info->set_sandbox_id(record.id);
    info->set_status(std::string(model::host_status_name(sandbox->status())));
    if (sandbox->status() == model::HostStatus::kError) {
      info->set_error_reason(sandbox->fault().reason);
      info->set_error_message(sandbox->fault().message);
    }
    info->set_template_(record.template_name);
    info->set_vcpus(record.vcpus);
    info->set_memory_mb(record.memory_mib);
    info->set_host_ip(sandbox->host_ip());
    info->set_created_at_unix(record.created_ms / kMsPerSecond);
    info->set_last_active_at_unix(sandbox->last_active_ms() / kMsPerSecond);
    info->set_timeout_sec(static_cast<std::int32_t>(record.timeout_sec));
    info->set_waiting_for(sandbox->waiting_for());
  }
  for (auto& id : manager_->auto_paused()) response.add_auto_paused_sandbox_ids(std::move(id));
  co_return response;
}

Task<pb::AcknowledgeAutoPausedResponse> Service::acknowledge(pb::AcknowledgeAutoPausedRequest request) {
  CO_TRY(co_await manager_->acknowledge_auto_paused(
      {request.sandbox_ids().begin(), request.sandbox_ids().end()}));
  co_return pb::AcknowledgeAutoPausedResponse();
}

Task<pb::PingSandboxResponse> Service::ping(pb::PingSandboxRequest request) {
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  CO_TRY(sandbox->ping());
  co_return pb::PingSandboxResponse();
}

Task<pb::GetSandboxMetricsResponse> Service::metrics(pb::GetSandboxMetricsRequest request) {
  const auto range = CO_TRY(model::parse_metric_range(request.range()));
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  pb::GetSandboxMetricsResponse response;
  response.set_waiting_for(sandbox->waiting_for());
  for (const auto& sample : sandbox->metrics().points(range, sandbox::unix_ms())) {
    auto* point = response.add_points();
    point->set_timestamp_unix(sample.time_ms / 1000);
    point->set_cpu_pct(sample.cpu_pct);
    point->set_mem_bytes(sample.mem_bytes);
    point->set_disk_bytes(sample.disk_bytes);
  }
  co_return response;
}

namespace {

std::unexpected<Error> no_named_templates() {
  return fail(Code::kUnimplemented, "templates made of sandboxes are not there yet");
}

}  // namespace

Task<pb::DeleteSnapshotResponse> Service::delete_snapshot(pb::DeleteSnapshotRequest) {
  co_return no_named_templates();
}

Task<pb::CreateSnapshotResponse> Service::create_snapshot(pb::CreateSnapshotRequest) {
  co_return no_named_templates();
}

}  // namespace wrenn::agent
