#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "model/limits.h"

// The life of a sandbox as rules without I/O and without a clock: callers pass the time in.
namespace wrenn::model {

using Time = std::chrono::sys_time<std::chrono::milliseconds>;
using std::chrono::seconds;

// What a client sees of a sandbox.
enum class Status : std::uint8_t { kPending, kRunning, kPaused, kStopped, kError, kMissing };
std::string_view status_name(Status status);
std::optional<Status> status_from_name(std::string_view name);

// What the control plane is doing to a sandbox right now.
enum class Transition : std::uint8_t { kNone, kCreating, kPausing, kResuming, kDestroying };
std::string_view transition_name(Transition transition);  // "" for kNone
std::optional<Transition> transition_from_name(std::string_view name);

// Why a row is stopped. A lost one comes back if its host shows it again; a destroyed one never does.
enum class EndReason : std::uint8_t { kNone, kDestroyed, kLost };
std::string_view end_reason_name(EndReason reason);  // "" for kNone
std::optional<EndReason> end_reason_from_name(std::string_view name);

// What a host agent says of a sandbox (SandboxInfo.status). kError: its files are kept, but the agent can
// neither run nor resume it as they are; its owner may retry (resume) or destroy it.
enum class HostStatus : std::uint8_t { kStarting, kRunning, kPausing, kPaused, kResuming, kStopping, kError };
std::string_view host_status_name(HostStatus status);
std::optional<HostStatus> host_status_from_name(std::string_view name);

// What a host says of a sandbox in HostStatus::kError.
struct HostError {
  std::string reason;   // a stable word; empty: there is no error
  std::string message;  // a sentence for the sandbox's owner
  bool operator==(const HostError&) const = default;
};

// True when `transition` may begin on a sandbox in `status` that is in no other transition. Of those in
// Status::kError, a resume may only try what a host keeps (`kept`: the row holds its HostError); of one whose
// creation failed nothing is left.
bool can_begin(Status status, Transition transition, bool kept = false);
// The status when a transition succeeded.
Status status_after(Transition transition);

// The auto-pause rule: `timeout` of inactivity has passed. A zero timeout never expires; `busy` (a running
// foreground command, an open stream) counts as activity.
bool idle_expired(seconds timeout, std::chrono::milliseconds idle, bool busy);

// Checks of what clients send. Errors are kInvalidArgument, carry the field, and name the allowed range.
Result<> check_range(std::string_view field, std::int64_t value, std::int64_t low, std::int64_t high);
Result<> check_vcpus(std::int64_t value);
Result<> check_memory_mb(std::int64_t value);
Result<> check_timeout_sec(std::int64_t value);
// Starts alphanumeric, then alphanumeric . _ -, at most kMaxNameBytes.
Result<> check_name(std::string_view field, std::string_view name);
// 1..kMaxPathBytes bytes without NUL.
Result<> check_path(std::string_view field, std::string_view path);
// How far back metrics go; 0.5 s, 30 s and 5 min apart.
enum class MetricRange : std::uint8_t { k5m, k10m, k1h, k2h, k6h, k12h, k24h };
seconds metric_span(MetricRange range);
// "5m", "10m", "1h", "2h", "6h", "12h" or "24h".
Result<MetricRange> parse_metric_range(std::string_view text);

// True for an id that could be a sandbox's: letters, digits, '-' and '_', at most 64.
bool is_sandbox_id(std::string_view id);

}  // namespace wrenn::model
