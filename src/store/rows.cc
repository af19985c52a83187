#include "store/rows.h"

namespace wrenn::store {

void SandboxColumns::bind(soci::statement& statement) {
  for (auto* text : {&id, &team_id, &host_id, &template_name, &status, &transition}) {
    statement.exchange(soci::into(*text));
  }
  statement.exchange(soci::into(transition_at));
  statement.exchange(soci::into(end_reason));
  for (auto* number : {&version, &vcpus, &memory_mb, &timeout_sec}) statement.exchange(soci::into(*number));
  statement.exchange(soci::into(guest_ip));
  statement.exchange(soci::into(host_ip));
  for (auto* number :
       {&created_at, &started_at, &last_active_at, &last_updated, &auto_resume, &public_traffic}) {
    statement.exchange(soci::into(*number));
  }
  for (auto* text : {&access_token, &error_reason, &error_message}) statement.exchange(soci::into(*text));
}

Result<Sandbox> SandboxColumns::to_sandbox() const {
  const auto known_status = model::status_from_name(status);
  const auto known_transition = model::transition_from_name(transition);
  const auto known_reason = model::end_reason_from_name(end_reason);
  if (!known_status || !known_transition || !known_reason) {
    return fail(Error(Code::kInternal, "unknown state in the row of sandbox " + id).with_reason("db_error"));
  }
  Sandbox sandbox;
  sandbox.id = id;
  sandbox.team_id = team_id;
  sandbox.host_id = host_id;
  sandbox.template_name = template_name;
  sandbox.status = *known_status;
  sandbox.transition = *known_transition;
  sandbox.transition_at = from_ms(transition_at);
  sandbox.end_reason = *known_reason;
  sandbox.version = version;
  sandbox.vcpus = vcpus;
  sandbox.memory_mb = memory_mb;
  sandbox.timeout_sec = timeout_sec;
  sandbox.guest_ip = guest_ip;
  sandbox.host_ip = host_ip;
  sandbox.created_at = from_ms(created_at);
  sandbox.started_at = from_ms(started_at);
  sandbox.last_active_at = from_ms(last_active_at);
  sandbox.last_updated = from_ms(last_updated);
  sandbox.auto_resume = auto_resume != 0;
  sandbox.public_traffic = public_traffic != 0;
  sandbox.access_token = access_token;
  sandbox.error = {error_reason, error_message};
  return sandbox;
}

void insert_sandbox_row(soci::session& sql, const Sandbox& sandbox) {
  const std::string status(model::status_name(sandbox.status));
  const std::string transition(model::transition_name(sandbox.transition));
  const std::string end_reason(model::end_reason_name(sandbox.end_reason));
  const long long transition_at = to_ms(sandbox.transition_at), version = sandbox.version;
  const long long vcpus = sandbox.vcpus, memory = sandbox.memory_mb, timeout = sandbox.timeout_sec;
  const long long created = to_ms(sandbox.created_at), started = to_ms(sandbox.started_at);
  const long long active = to_ms(sandbox.last_active_at), updated = to_ms(sandbox.last_updated);
  const long long auto_resume = sandbox.auto_resume ? 1 : 0;
  const long long public_traffic = sandbox.public_traffic ? 1 : 0;
  sql << std::string("INSERT INTO sandboxes (") + kSandboxColumns +
             ") VALUES (:c1, :c2, :c3, :c4, :c5, :c6, :c7, :c8, :c9, :c10, :c11, :c12, :c13, :c14, :c15, "
             ":c16, :c17, :c18, :c19, :c20, :c21, :c22, :c23)",
      soci::use(sandbox.id), soci::use(sandbox.team_id), soci::use(sandbox.host_id),
      soci::use(sandbox.template_name), soci::use(status), soci::use(transition), soci::use(transition_at),
      soci::use(end_reason), soci::use(version), soci::use(vcpus), soci::use(memory), soci::use(timeout),
      soci::use(sandbox.guest_ip), soci::use(sandbox.host_ip), soci::use(created), soci::use(started),
      soci::use(active), soci::use(updated), soci::use(auto_resume), soci::use(public_traffic),
      soci::use(sandbox.access_token), soci::use(sandbox.error.reason), soci::use(sandbox.error.message);
}

void ViewColumns::bind(soci::statement& statement) {
  for (auto* text : {&id, &status, &transition}) statement.exchange(soci::into(*text));
  statement.exchange(soci::into(transition_at));
  statement.exchange(soci::into(end_reason));
  statement.exchange(soci::into(version));
  statement.exchange(soci::into(host_ip));
  statement.exchange(soci::into(last_active_at));
  for (auto* text : {&error_reason, &error_message}) statement.exchange(soci::into(*text));
}

std::optional<model::RowView> ViewColumns::to_view() const {
  const auto known_status = model::status_from_name(status);
  const auto known_transition = model::transition_from_name(transition);
  const auto known_reason = model::end_reason_from_name(end_reason);
  if (!known_status || !known_transition || !known_reason) return std::nullopt;
  model::RowView view;
  view.id = id;
  view.status = *known_status;
  view.transition = *known_transition;
  view.transition_at = from_ms(transition_at);
  view.end_reason = *known_reason;
  view.version = version;
  view.host_ip = host_ip;
  view.last_active_at = from_ms(last_active_at);
  view.error = {error_reason, error_message};
  return view;
}

}  // namespace wrenn::store
