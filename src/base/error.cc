#include "base/error.h"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/result.h"

namespace wrenn {
namespace {

constexpr std::array<std::string_view, 17> kNames = {
    "ok",        "canceled",       "unknown",           "invalid_argument",   "deadline_exceeded",
    "not_found", "already_exists", "permission_denied", "resource_exhausted", "failed_precondition",
    "aborted",   "out_of_range",   "unimplemented",     "internal",           "unavailable",
    "data_loss", "unauthenticated"};

Code classify(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ESRCH:
      return Code::kNotFound;
    case EEXIST:
      return Code::kAlreadyExists;
    case EACCES:
    case EPERM:
    case EROFS:
      return Code::kPermissionDenied;
    case EINVAL:
    case ENAMETOOLONG:
    case ENOTDIR:
    case EISDIR:
      return Code::kInvalidArgument;
    case ELOOP:
    case ENOTEMPTY:
      return Code::kFailedPrecondition;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return Code::kResourceExhausted;
    case ETIMEDOUT:
      return Code::kDeadlineExceeded;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case EHOSTUNREACH:
    case ENETUNREACH:
      return Code::kUnavailable;
    case ECANCELED:
      return Code::kCanceled;
    default:
      return Code::kInternal;
  }
}

}  // namespace

std::string_view code_name(Code code) { return kNames.at(static_cast<std::size_t>(code)); }

Code code_from_name(std::string_view name) {
  for (std::size_t i = 1; i < kNames.size(); ++i) {
    if (kNames.at(i) == name) return static_cast<Code>(i);
  }
  return Code::kUnknown;
}

Error::Error(Code code, std::string message) : code_(code), message_(std::move(message)) {}

Error&& Error::with_reason(std::string reason) && {
  reason_ = std::move(reason);
  return std::move(*this);
}

Error&& Error::with_field(std::string field) && {
  field_ = std::move(field);
  return std::move(*this);
}

Error&& Error::with_detail(ErrorDetail detail) && {
  details_.push_back(std::move(detail));
  return std::move(*this);
}

Error&& Error::in(std::string_view context) && {
  message_ = fmt::format("{}: {}", context, message_);
  return std::move(*this);
}

std::string Error::to_string() const { return fmt::format("{}: {}", code_name(code_), message_); }

Error Error::from_errno(int error_number, std::string_view what) {
  std::array<char, 128> buffer{};
  Error error(classify(error_number),
              fmt::format("{}: {}", what, strerror_r(error_number, buffer.data(), buffer.size())));
  error.sys_errno_ = error_number;
  if (error_number == ENOSPC || error_number == EDQUOT) error.reason_ = "disk_full";
  return error;
}

std::unexpected<Error> fail_errno(std::string_view what) {
  return std::unexpected<Error>(Error::from_errno(errno, what));
}

}  // namespace wrenn
