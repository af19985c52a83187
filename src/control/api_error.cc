#include "control/api_error.h"

#include <array>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

namespace wrenn::control {
namespace {

struct Mapping {
  std::string_view reason;
  int status;
  std::string_view code;
  int retry_after_sec;
  std::string_view text = {};  // from 500 on: all that is said
  bool expected = false;       // no failure: nothing for the log
};

constexpr std::string_view kHostFailed = "the sandbox's host failed";
constexpr std::string_view kNoRoom = "there is no room for this now";

constexpr std::array kByReason{
    Mapping{"invalid_state", 409, "invalid_state", 0},
    Mapping{"sandbox_paused", 409, "invalid_state", 0},
    Mapping{"sandbox_stopped", 409, "invalid_state", 0},
    Mapping{"output_limit", 413, "output_limit", 0},
    Mapping{"too_large", 413, "too_large", 0},
    Mapping{"path_exists", 409, "conflict", 0},
    Mapping{"too_many_entries", 413, "too_large", 0},
    Mapping{"rate_limited", 429, "rate_limited", 30},
    Mapping{"method_not_allowed", 405, "method_not_allowed", 0},
    Mapping{"disk_full", 507, "insufficient_storage", 0, "a disk is full"},
    Mapping{"db_unavailable", 503, "db_unavailable", 2, "the database does not answer"},
    Mapping{"db_error", 500, "db_error", 0, "the database failed"},
    Mapping{"host_unavailable", 503, "host_unavailable", 2, "the sandbox's host does not answer"},
    Mapping{"agent_error", 502, "agent_error", 0, kHostFailed},
    Mapping{"snapshot_corrupt", 502, "agent_error", 0, "the sandbox's snapshot is damaged"},
    Mapping{"no_network_slots", 503, "resource_exhausted", 5, "the host has no network slot left"},
    Mapping{"host_busy", 503, "resource_exhausted", 5,
            "the host has been starting other sandboxes for too long"},
    Mapping{"too_many_processes", 503, "resource_exhausted", 5, "too many processes run in the sandbox"},
    Mapping{"answers_held", 503, "resource_exhausted", 5,
            "too much output waits to be read; read it, or use the stream routes"},
    Mapping{"team_share", 503, "resource_exhausted", 5,
            "your team has too many of these at once; try again soon"},
    Mapping{"too_many_requests", 503, "resource_exhausted", 2,
            "too many requests to ports of sandboxes are under way"},
    Mapping{"frozen", 503, "unavailable", 2, "the sandbox is being paused"},
    Mapping{"not_reachable", 502, "not_reachable", 0, "The sandbox was not found", true},
    Mapping{"port_closed", 502, "port_closed", 0, "The sandbox is running but port is not open", true},
};

Mapping by_code(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
    case Code::kOutOfRange:
      return {"", 400, "invalid_request", 0};
    case Code::kUnauthenticated:
      return {"", 401, "unauthorized", 0};
    case Code::kPermissionDenied:
      return {"", 403, "forbidden", 0};
    case Code::kNotFound:
      return {"", 404, "not_found", 0};
    case Code::kFailedPrecondition:
    case Code::kAborted:
      return {"", 409, "conflict", 0};
    case Code::kAlreadyExists:
      return {"", 409, "already_exists", 0};
    case Code::kUnimplemented:
      return {"", 501, "unimplemented", 0, "this is not there"};
    case Code::kDeadlineExceeded:
      return {"", 504, "timeout", 0, "the time limit passed before it was done"};
    case Code::kUnavailable:
    case Code::kCanceled:
      return {"", 503, "unavailable", 2, "this is not possible just now"};
    case Code::kResourceExhausted:
      return {"", 503, "resource_exhausted", 5, kNoRoom};
    case Code::kUnknown:
    case Code::kInternal:
    case Code::kDataLoss:
      break;
  }
  return {"", 500, "internal_error", 0, "internal error"};
}

const Mapping* by_reason(std::string_view reason) {
  for (const Mapping& each : kByReason) {
    if (each.reason == reason) return &each;
  }
  return nullptr;
}

}  // namespace

PublicError::PublicError(const Error& error) {
  const Mapping* known = by_reason(error.reason());
  const Mapping mapping = known != nullptr ? *known : by_code(error.code());
  status_ = mapping.status;
  retry_after_sec_ = mapping.retry_after_sec;
  expected_ = mapping.expected;
  code_ = mapping.code;
  message_ = status_ < 500 ? error.message() : std::string(mapping.text);
}

std::string PublicError::body() const {
  boost::json::object inner{{"code", code_}, {"message", message_}};
  return boost::json::serialize(boost::json::object{{"error", std::move(inner)}});
}

Error not_reachable(std::string why) {
  return Error(Code::kUnavailable, "no such sandbox that runs: " + why).with_reason("not_reachable");
}

Error port_closed() {
  return Error(Code::kUnavailable, "nothing listens on the port").with_reason("port_closed");
}

Error from_agent(Error error) {
  switch (error.code()) {
    case Code::kUnavailable:
      // Another reason is the agent's own; without one it did not answer.
      if (!error.reason().empty() && error.reason() != "connect_failed") return error;
      return std::move(error).with_reason("host_unavailable");
    case Code::kUnknown:
    case Code::kInternal:
    case Code::kDataLoss:
    case Code::kUnauthenticated:
    case Code::kPermissionDenied: {
      const Mapping* known = by_reason(error.reason());
      if (known != nullptr && known->status >= 500) return error;
      return std::move(error).with_reason("agent_error");
    }
    default:
      return error;
  }
}

std::unexpected<Error> bad_request(std::string field, std::string message) {
  return fail(Error(Code::kInvalidArgument, std::move(message)).with_field(std::move(field)));
}

}  // namespace wrenn::control
