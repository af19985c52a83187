#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "net/http.h"

// Inside src/net: what heads say about bodies, connections and hosts, by RFC 9110 and 9112. Messages are
// judged here when they come and framed here when they go, so nothing else reads or writes these fields.
namespace wrenn::net {

// At most one of Content-Length (one number) and Transfer-Encoding (nothing but "chunked", and not in
// HTTP/1.0). kInvalidArgument otherwise, kUnimplemented for a coding that is not known before "chunked".
Result<> judge_framing(const Headers& headers, bool http10);

// Also the method, Host, and the target, which is brought to origin form: the authority of an absolute one
// replaces Host. CONNECT is kUnimplemented.
Result<> judge_request(RequestHead* head, bool http10);

// Removes the fields that delimit a body.
void drop_framing(Headers* headers);

// What Host says to this endpoint.
std::string host_of(const Endpoint& endpoint);

// The text of a request's head for a body of `length`, with Host and, if `protocol` is not empty, the wish to
// upgrade to it. kInvalidArgument if something in it would break the message.
Result<std::string> request_text(const Endpoint& endpoint, RequestHead head, BodyLength length,
                                 const std::string& protocol);

// May be sent again without harm (RFC 9110, section 9.2.2).
bool is_idempotent(std::string_view method);

// The names in all Connection fields of a message.
class ConnectionOptions {
 public:
  explicit ConnectionOptions(const Headers& headers);
  // Whatever the case of `name`.
  bool has(std::string_view name) const;

 private:
  std::vector<std::string> names_;  // sorted, in lower case
};

}  // namespace wrenn::net
