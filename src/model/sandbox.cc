#include "model/sandbox.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace wrenn::model {
namespace {

template <class E, std::size_t N>
using Names = std::array<std::pair<E, std::string_view>, N>;

constexpr Names<Status, 6> kStatusNames{{{Status::kPending, "pending"},
                                         {Status::kRunning, "running"},
                                         {Status::kPaused, "paused"},
                                         {Status::kStopped, "stopped"},
                                         {Status::kError, "error"},
                                         {Status::kMissing, "missing"}}};
constexpr Names<Transition, 5> kTransitionNames{{{Transition::kNone, ""},
                                                 {Transition::kCreating, "creating"},
                                                 {Transition::kPausing, "pausing"},
                                                 {Transition::kResuming, "resuming"},
                                                 {Transition::kDestroying, "destroying"}}};
constexpr Names<EndReason, 3> kEndReasonNames{
    {{EndReason::kNone, ""}, {EndReason::kDestroyed, "destroyed"}, {EndReason::kLost, "lost"}}};
constexpr Names<HostStatus, 7> kHostStatusNames{{{HostStatus::kStarting, "starting"},
                                                 {HostStatus::kRunning, "running"},
                                                 {HostStatus::kPausing, "pausing"},
                                                 {HostStatus::kPaused, "paused"},
                                                 {HostStatus::kResuming, "resuming"},
                                                 {HostStatus::kStopping, "stopping"},
                                                 {HostStatus::kError, "error"}}};

template <class E, std::size_t N>
std::string_view name_of(const Names<E, N>& names, E value) {
  for (const auto& [each, name] : names) {
    if (each == value) return name;
  }
  return "";
}

template <class E, std::size_t N>
std::optional<E> value_of(const Names<E, N>& names, std::string_view name) {
  for (const auto& [value, each] : names) {
    if (each == name) return value;
  }
  return std::nullopt;
}

bool is_alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

std::unexpected<Error> invalid(std::string_view field, std::string message) {
  return fail(Error(Code::kInvalidArgument, std::move(message)).with_field(std::string(field)));
}

}  // namespace

std::string_view status_name(Status status) { return name_of(kStatusNames, status); }
std::optional<Status> status_from_name(std::string_view name) { return value_of(kStatusNames, name); }
std::string_view transition_name(Transition transition) { return name_of(kTransitionNames, transition); }
std::optional<Transition> transition_from_name(std::string_view name) {
  return value_of(kTransitionNames, name);
}
std::string_view end_reason_name(EndReason reason) { return name_of(kEndReasonNames, reason); }
std::optional<EndReason> end_reason_from_name(std::string_view name) {
  return value_of(kEndReasonNames, name);
}
std::string_view host_status_name(HostStatus status) { return name_of(kHostStatusNames, status); }
std::optional<HostStatus> host_status_from_name(std::string_view name) {
  return value_of(kHostStatusNames, name);
}

bool can_begin(Status status, Transition transition, bool kept) {
  switch (transition) {
    case Transition::kNone:
      return false;
    case Transition::kCreating:
      return status == Status::kPending;
    case Transition::kPausing:
      return status == Status::kRunning;
    case Transition::kResuming:
      return status == Status::kPaused || (status == Status::kError && kept);
    case Transition::kDestroying:
      return true;
  }
  return false;
}

Status status_after(Transition transition) {
  switch (transition) {
    case Transition::kCreating:
    case Transition::kResuming:
      return Status::kRunning;
    case Transition::kPausing:
      return Status::kPaused;
    case Transition::kDestroying:
    case Transition::kNone:
      break;
  }
  return Status::kStopped;
}

bool idle_expired(seconds timeout, std::chrono::milliseconds idle, bool busy) {
  return timeout > seconds(0) && !busy && idle >= timeout;
}

Result<> check_range(std::string_view field, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value >= low && value <= high) return {};
  return invalid(field, fmt::format("{} must be between {} and {}, not {}", field, low, high, value));
}

Result<> check_vcpus(std::int64_t value) { return check_range("vcpus", value, kMinVcpus, kMaxVcpus); }
Result<> check_memory_mb(std::int64_t value) {
  return check_range("memory_mb", value, kMinMemoryMb, kMaxMemoryMb);
}
Result<> check_timeout_sec(std::int64_t value) {
  return check_range("timeout_sec", value, 0, kMaxTimeoutSec);
}

Result<> check_name(std::string_view field, std::string_view name) {
  const bool good =
      !name.empty() && name.size() <= kMaxNameBytes && is_alnum(name.front()) &&
      std::ranges::all_of(name, [](char c) { return is_alnum(c) || c == '.' || c == '_' || c == '-'; });
  if (good) return {};
  return invalid(field,
                 fmt::format("{} must start with a letter or digit, go on with letters, digits, '.', '_' or "
                             "'-', and have at most {} characters",
                             field, kMaxNameBytes));
}

Result<> check_path(std::string_view field, std::string_view path) {
  if (path.empty()) return invalid(field, fmt::format("{} is required", field));
  if (path.size() > kMaxPathBytes) {
    return invalid(field, fmt::format("{} must have at most {} bytes", field, kMaxPathBytes));
  }
  if (path.find('\0') != std::string_view::npos) {
    return invalid(field, fmt::format("{} must not contain a NUL character", field));
  }
  return {};
}

namespace {

struct RangeName {
  MetricRange range;
  std::string_view name;
  seconds span;
};

constexpr RangeName kRanges[] = {
    {MetricRange::k5m, "5m", std::chrono::minutes(5)},  {MetricRange::k10m, "10m", std::chrono::minutes(10)},
    {MetricRange::k1h, "1h", std::chrono::hours(1)},    {MetricRange::k2h, "2h", std::chrono::hours(2)},
    {MetricRange::k6h, "6h", std::chrono::hours(6)},    {MetricRange::k12h, "12h", std::chrono::hours(12)},
    {MetricRange::k24h, "24h", std::chrono::hours(24)},
};

}  // namespace

seconds metric_span(MetricRange range) {
  for (const RangeName& each : kRanges) {
    if (each.range == range) return each.span;
  }
  return seconds(0);
}

Result<MetricRange> parse_metric_range(std::string_view text) {
  for (const RangeName& each : kRanges) {
    if (each.name == text) return each.range;
  }
  return fail(
      Error(Code::kInvalidArgument, "range must be 5m, 10m, 1h, 2h, 6h, 12h or 24h").with_field("range"));
}

bool is_sandbox_id(std::string_view id) {
  return !id.empty() && id.size() <= kMaxNameBytes &&
         std::ranges::all_of(id, [](char c) { return is_alnum(c) || c == '-' || c == '_'; });
}

}  // namespace wrenn::model
