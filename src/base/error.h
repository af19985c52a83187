#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace wrenn {

// The sixteen codes of the Connect and gRPC protocols; the numbers are those protocols' own.
enum class Code : std::uint8_t {
  kCanceled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

// "not_found" for kNotFound: the spelling used on the wire.
std::string_view code_name(Code code);
// The inverse of code_name; kUnknown for any other text.
Code code_from_name(std::string_view name);

// An opaque typed message that crosses process boundaries with an error: a protobuf type name and its bytes.
struct ErrorDetail {
  std::string type;
  std::string value;
};

// A failure as a value: what class it is, a sentence for a person (never a secret), and, where callers
// branch on it, a stable machine-readable reason such as "disk_full" which crosses process boundaries.
class Error {
 public:
  Error(Code code, std::string message);

  Code code() const { return code_; }
  const std::string& message() const { return message_; }
  // Empty unless with_reason was called.
  const std::string& reason() const { return reason_; }
  // The request field that is wrong, for kInvalidArgument; empty otherwise.
  const std::string& field() const { return field_; }
  // errno of the failed system call; 0 if there was none.
  int sys_errno() const { return sys_errno_; }

  const std::vector<ErrorDetail>& details() const { return details_; }

  Error&& with_reason(std::string reason) &&;
  Error&& with_field(std::string field) &&;
  Error&& with_detail(ErrorDetail detail) &&;
  // Puts "context: " before the message; class, reason and errno stay.
  Error&& in(std::string_view context) &&;

  // "not_found: no sandbox sb-1", for logs.
  std::string to_string() const;

  // An error for a failed system call, classified by errno (ENOENT is kNotFound, ENOSPC is
  // kResourceExhausted with reason "disk_full", ...). The message is "what: strerror".
  static Error from_errno(int error_number, std::string_view what);

 private:
  Code code_;
  int sys_errno_ = 0;
  std::string message_;
  std::string reason_;
  std::string field_;
  std::vector<ErrorDetail> details_;
};

}  // namespace wrenn
