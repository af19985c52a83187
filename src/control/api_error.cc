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
};

constexpr std::array kByReason{
    Mapping{"invalid_state", 409, "invalid_state", 0},
    Mapping{"sandbox_paused", 409, "invalid_state", 0},
    Mapping{"sandbox_stopped", 409, "invalid_state", 0},
    Mapping{"disk_full", 507, "insufficient_storage", 0},
    Mapping{"output_limit", 413, "output_limit", 0},
    Mapping{"too_large", 413, "too_large", 0},
    Mapping{"path_exists", 409, "conflict", 0},
    Mapping{"too_many_entries", 413, "too_large", 0},
    Mapping{"rate_limited", 429, "rate_limited", 30},
    Mapping{"db_unavailable", 503, "db_unavailable", 2},
    Mapping{"db_error", 500, "db_error", 0},
    Mapping{"host_unavailable", 503, "host_unavailable", 2},
    Mapping{"agent_error", 502, "agent_error", 0},
    Mapping{"method_not_allowed", 405, "method_not_allowed", 0},
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
      return {"", 501, "unimplemented", 0};
    case Code::kDeadlineExceeded:
      return {"", 504, "timeout", 0};
    case Code::kUnavailable:
    case Code::kCanceled:
      return {"", 503, "unavailable", 2};
    case Code::kResourceExhausted:
      return {"", 503, "resource_exhausted", 5};
    case Code::kUnknown:
    case Code::kInternal:
    case Code::kDataLoss:
      break;
  }
  return {"", 500, "internal_error", 0};
}

}  // namespace

std::string ApiError::body() const {
  boost::json::object inner{{"code", code}, {"message", message}};
  return boost::json::serialize(boost::json::object{{"error", std::move(inner)}});
}

ApiError to_api_error(const Error& error) {
  Mapping mapping = by_code(error.code());
  for (const Mapping& each : kByReason) {
    if (each.reason == error.reason()) mapping = each;
  }
  ApiError out{mapping.status, std::string(mapping.code), error.message(), mapping.retry_after_sec};
  // What went wrong inside is for the log.
  if (mapping.code == "db_error") out.message = "the database failed";
  if (mapping.code == "internal_error") out.message = "internal error";
  if (mapping.code == "host_unavailable") out.message = "the sandbox's host does not answer";
  return out;
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
    case Code::kPermissionDenied:
      return std::move(error).with_reason("agent_error");
    default:
      return error;
  }
}

std::unexpected<Error> bad_request(std::string field, std::string message) {
  return fail(Error(Code::kInvalidArgument, std::move(message)).with_field(std::move(field)));
}

}  // namespace wrenn::control
