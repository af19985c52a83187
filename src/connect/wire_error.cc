// Error and end-of-stream bodies: https://connectrpc.com/docs/protocol#error-end-stream
#include <google/protobuf/struct.pb.h>

#include "base/bytes.h"
#include "connect/wire.h"
#include "wrenn/v1/error.pb.h"

namespace wrenn::connect {
namespace {

using google::protobuf::ListValue;
using google::protobuf::Struct;
using google::protobuf::Value;

constexpr std::string_view kReasonType = "wrenn.v1.ErrorReason";

// Connect sends base64 without padding.
std::string unpadded_base64(std::string_view bytes) {
  std::string text = to_base64(bytes);
  while (text.ends_with('=')) text.pop_back();
  return text;
}

void add_detail(ListValue* details, std::string_view type, std::string_view bytes) {
  auto& fields = *details->add_values()->mutable_struct_value()->mutable_fields();
  fields["type"].set_string_value(std::string(type));
  fields["value"].set_string_value(unpadded_base64(bytes));
}

void fill_error(const Error& error, Struct* out) {
  auto& fields = *out->mutable_fields();
  fields["code"].set_string_value(std::string(code_name(error.code())));
  if (!error.message().empty() && is_utf8(error.message())) {
    fields["message"].set_string_value(error.message());
  }
  ListValue details;
  if (!error.reason().empty() || !error.field().empty()) {
    wrenn::v1::ErrorReason reason;
    reason.set_reason(error.reason());
    reason.set_field(error.field());
    add_detail(&details, kReasonType, reason.SerializeAsString());
  }
  for (const ErrorDetail& detail : error.details()) add_detail(&details, detail.type, detail.value);
  if (details.values_size() > 0) *fields["details"].mutable_list_value() = std::move(details);
}

const std::string& string_field(const Struct& object, const std::string& name) {
  static const std::string kEmpty;
  const auto found = object.fields().find(name);
  return found == object.fields().end() ? kEmpty : found->second.string_value();
}

Error parse_error(const Struct& object, Code fallback) {
  const std::string& name = string_field(object, "code");
  Code code = code_from_name(name);
  if (code == Code::kUnknown && name != "unknown") code = fallback;
  Error error(code, string_field(object, "message"));
  const auto details = object.fields().find("details");
  if (details == object.fields().end()) return error;
  for (const Value& entry : details->second.list_value().values()) {
    std::string type = string_field(entry.struct_value(), "type");
    auto bytes = from_base64(string_field(entry.struct_value(), "value"));
    if (type.empty() || !bytes) continue;
    wrenn::v1::ErrorReason reason;
    if (type == kReasonType && reason.ParseFromString(*bytes)) {
      error = Error(std::move(error).with_reason(reason.reason()).with_field(reason.field()));
    } else {
      error = Error(std::move(error).with_detail({std::move(type), std::move(*bytes)}));
    }
  }
  return error;
}

}  // namespace

std::string error_json(const Error& error) {
  Struct object;
  fill_error(error, &object);
  return serialize(object, Codec::kJson).value_or(R"({"code":"internal"})");
}

std::optional<Error> error_from_json(std::string_view text, Code fallback) {
  Struct object;
  if (!parse(text, Codec::kJson, &object)) return std::nullopt;
  return parse_error(object, fallback);
}

std::string end_stream_json(const std::optional<Error>& error, const net::Headers& trailers) {
  Struct object;
  auto& fields = *object.mutable_fields();
  if (error) fill_error(*error, fields["error"].mutable_struct_value());
  for (const auto& [name, value] : trailers.all()) {
    if (!is_utf8(value)) continue;
    auto& metadata = *fields["metadata"].mutable_struct_value()->mutable_fields();
    metadata[ascii_lower(name)].mutable_list_value()->add_values()->set_string_value(value);
  }
  return serialize(object, Codec::kJson).value_or("{}");
}

Result<EndStream> end_stream_from_json(std::string_view text) {
  Struct object;
  TRY(parse(text, Codec::kJson, &object));
  EndStream end;
  const auto error = object.fields().find("error");
  if (error != object.fields().end() && error->second.has_struct_value()) {
    end.error = parse_error(error->second.struct_value(), Code::kUnknown);
  }
  const auto metadata = object.fields().find("metadata");
  if (metadata != object.fields().end()) {
    for (const auto& [name, values] : metadata->second.struct_value().fields()) {
      for (const Value& value : values.list_value().values()) end.trailers.add(name, value.string_value());
    }
  }
  return end;
}

}  // namespace wrenn::connect
