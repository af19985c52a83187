#pragma once

#include <cstdio>
#include <string>

#include "base/result.h"
#include "connectrpc/conformance/v1/config.pb.h"
#include "connectrpc/conformance/v1/service.pb.h"
#include "net/http.h"

// What server and client under test share: the conformance runner's framing on stdin and stdout, and its
// messages as ours.
namespace wrenn::conformance {

namespace pb = connectrpc::conformance::v1;
using HeaderList = google::protobuf::RepeatedPtrField<pb::Header>;

// A message behind its length as four bytes, big endian. False at the end of stdin.
Result<bool> read_message(google::protobuf::Message* out);
Result<> write_message(const google::protobuf::Message& message);

void add_headers(const HeaderList& from, net::Headers* to);
void fill_headers(const net::Headers& from, HeaderList* to);
Error to_error(const pb::Error& error);
pb::Error from_error(const Error& error);

}  // namespace wrenn::conformance
