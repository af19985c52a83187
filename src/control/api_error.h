#pragma once

#include <string>

#include "base/result.h"

// Errors as REST clients see them: {"error":{"code","message"}} and a status.
namespace wrenn::control {

struct ApiError {
  int status = 500;
  std::string code;
  std::string message;
  int retry_after_sec = 0;  // 0: no Retry-After

  std::string body() const;
};

ApiError to_api_error(const Error& error);

// Marks an error that a host agent answered, so that its internal failures become 502, not 500.
Error from_agent(Error error);

std::unexpected<Error> bad_request(std::string field, std::string message);

}  // namespace wrenn::control
