#include "messages.h"

#include <algorithm>

namespace wrenn::conformance {
namespace {

constexpr std::size_t kMaxMessageBytes = 64 * 1024 * 1024;
constexpr char kTypePrefix[] = "type.googleapis.com/";

}  // namespace

Result<bool> read_message(google::protobuf::Message* out) {
  unsigned char length[4];
  const std::size_t got = std::fread(length, 1, sizeof length, stdin);
  if (got == 0) return false;
  const std::size_t size = std::size_t{length[0]} << 24 | std::size_t{length[1]} << 16 |
                           std::size_t{length[2]} << 8 | std::size_t{length[3]};
  if (got != sizeof length || size > kMaxMessageBytes) return fail(Code::kDataLoss, "bad frame on stdin");
  std::string bytes(size, '\0');
  if (std::fread(bytes.data(), 1, size, stdin) != size || !out->ParseFromString(bytes)) {
    return fail(Code::kDataLoss, "bad message on stdin");
  }
  return true;
}

Result<> write_message(const google::protobuf::Message& message) {
  const std::string bytes = message.SerializeAsString();
  const auto size = static_cast<std::uint32_t>(bytes.size());
  const unsigned char length[4] = {static_cast<unsigned char>(size >> 24),
                                   static_cast<unsigned char>(size >> 16),
                                   static_cast<unsigned char>(size >> 8), static_cast<unsigned char>(size)};
  std::fwrite(length, 1, sizeof length, stdout);
  std::fwrite(bytes.data(), 1, bytes.size(), stdout);
  if (std::fflush(stdout) != 0) return fail(Code::kUnavailable, "stdout is closed");
  return {};
}

void add_headers(const HeaderList& from, net::Headers* to) {
  for (const pb::Header& header : from) {
    for (const std::string& value : header.value()) to->add(header.name(), value);
  }
}

void fill_headers(const net::Headers& from, HeaderList* to) {
  for (const auto& [name, value] : from.all()) {
    auto known = std::find_if(to->begin(), to->end(), [&](const pb::Header& h) { return h.name() == name; });
    pb::Header* header = known == to->end() ? to->Add() : &*known;
    header->set_name(name);
    header->add_value(value);
  }
}

Error to_error(const pb::Error& error) {
  Error out(static_cast<Code>(error.code()), error.message());
  for (const auto& detail : error.details()) {
    const std::string& url = detail.type_url();
    out = Error(std::move(out).with_detail({url.substr(url.find_last_of('/') + 1), detail.value()}));
  }
  return out;
}

pb::Error from_error(const Error& error) {
  pb::Error out;
  out.set_code(static_cast<pb::Code>(error.code()));
  out.set_message(error.message());
  for (const ErrorDetail& detail : error.details()) {
    auto* any = out.add_details();
    any->set_type_url(kTypePrefix + detail.type);
    any->set_value(detail.value);
  }
  return out;
}

}  // namespace wrenn::conformance
