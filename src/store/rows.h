#pragma once

#include <soci/soci.h>

#include <string>

#include "store/store.h"

// Sandboxes as SQL knows them.
namespace wrenn::store {

inline long long to_ms(Time time) { return time.time_since_epoch().count(); }
inline Time from_ms(long long ms) { return Time(std::chrono::milliseconds(ms)); }

// The columns of a select, in the order SandboxColumns binds them.
inline constexpr char kSandboxColumns[] =
    "id, team_id, host_id, template, status, transition, transition_at, end_reason, version, vcpus, "
    "memory_mb, "
    "timeout_sec, guest_ip, host_ip, created_at, started_at, last_active_at, last_updated, "
    "auto_resume, public_traffic, access_token, error_reason, error_message";

struct SandboxColumns {
  std::string id, team_id, host_id, template_name, status, transition, end_reason, guest_ip, host_ip;
  long long transition_at = 0, version = 0, vcpus = 0, memory_mb = 0, timeout_sec = 0;
  long long created_at = 0, started_at = 0, last_active_at = 0, last_updated = 0;
  long long auto_resume = 0, public_traffic = 1;
  std::string access_token, error_reason, error_message;

  // Makes `statement` fill this at each fetch.
  void bind(soci::statement& statement);
  // kInternal if the row holds words this program does not know.
  Result<Sandbox> to_sandbox() const;
};

void insert_sandbox_row(soci::session& sql, const Sandbox& sandbox);

// The few columns that the reconciler wants.
inline constexpr char kViewColumns[] =
    "id, status, transition, transition_at, end_reason, version, host_ip, last_active_at, error_reason, "
    "error_message";

struct ViewColumns {
  std::string id, status, transition, end_reason, host_ip, error_reason, error_message;
  long long transition_at = 0, version = 0, last_active_at = 0;

  void bind(soci::statement& statement);
  // Nullopt if the row holds words this program does not know.
  std::optional<model::RowView> to_view() const;
};

// The rows that have not ended, as in the index sandboxes_live. A word that this program does not know is
// none of an ended one.
inline constexpr char kLive[] =
    "(transition <> '' OR (status <> 'stopped' AND (status <> 'error' OR error_reason <> '')))";

}  // namespace wrenn::store
