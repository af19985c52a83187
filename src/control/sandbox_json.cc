#include "control/sandbox_json.h"

#include "control/clock.h"
#include "control/host_error.h"

namespace wrenn::control {

boost::json::object to_json(const store::Sandbox& sandbox) {
  boost::json::object out{{"id", sandbox.id},
                          {"status", model::status_name(sandbox.status)},
                          {"template", sandbox.template_name},
                          {"vcpus", sandbox.vcpus},
                          {"memory_mb", sandbox.memory_mb},
                          {"timeout_sec", sandbox.timeout_sec},
                          {"auto_resume", sandbox.auto_resume},
                          {"allow_public_traffic", sandbox.public_traffic}};
  if (!sandbox.guest_ip.empty()) out["guest_ip"] = sandbox.guest_ip;
  if (!sandbox.host_ip.empty()) out["host_ip"] = sandbox.host_ip;
  if (!sandbox.error.reason.empty()) {
    out["error"] = boost::json::object{{"reason", sandbox.error.reason},
                                       {"message", host_error_sentence(sandbox.error.reason)}};
  }
  out["created_at"] = rfc3339(sandbox.created_at);
  if (sandbox.started_at != model::Time()) out["started_at"] = rfc3339(sandbox.started_at);
  if (sandbox.last_active_at != model::Time()) out["last_active_at"] = rfc3339(sandbox.last_active_at);
  out["last_updated"] = rfc3339(sandbox.last_updated);
  return out;
}

}  // namespace wrenn::control
