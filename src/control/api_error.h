#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

// Errors as clients see them: {"error":{"code","message"}} and a status.
namespace wrenn::control {

// What a client is told of an error. Made of an Error by one rule and in no other way: below 500 the message
// is about the client's own request and is kept; from 500 on it is one of our fixed sentences, since what
// went wrong inside (addresses, paths, the database) is for the log.
class PublicError {
 public:
  explicit PublicError(const Error& error);

  int status() const { return status_; }
  const std::string& code() const { return code_; }
  const std::string& message() const { return message_; }
  int retry_after_sec() const { return retry_after_sec_; }  // 0: no Retry-After
  // A failure of ours that belongs into the log.
  bool is_failure() const { return status_ >= 500 && !expected_; }
  std::string body() const;

 private:
  int status_;
  int retry_after_sec_;
  bool expected_;
  std::string code_;
  std::string message_;
};

// Traffic for what does not run, and to a port where nothing listens: 502, with words that E2B's clients
// know.
Error not_reachable(std::string why);
Error port_closed();

// Marks an error that a host agent answered, so that its internal failures become 502, not 500.
Error from_agent(Error error);

std::unexpected<Error> bad_request(std::string field, std::string message);

}  // namespace wrenn::control
