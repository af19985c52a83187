#include "control/json_input.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <limits>

#include "control/api_error.h"
#include "control/limits.h"
#include "model/sandbox.h"

namespace wrenn::control {

Result<JsonInput> JsonInput::parse(std::string_view text) {
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) return JsonInput(boost::json::object());
  boost::json::parse_options options;
  options.max_depth = kMaxJsonDepth;
  boost::system::error_code error;
  boost::json::value value = boost::json::parse({text.data(), text.size()}, error, {}, options);
  if (error == boost::json::error::too_deep) {
    return bad_request("", fmt::format("the JSON body is nested deeper than {} levels", kMaxJsonDepth));
  }
  if (error) return bad_request("", "the body is not valid JSON: " + error.message());
  if (!value.is_object()) return bad_request("", "the body must be a JSON object");
  return JsonInput(std::move(value.get_object()));
}

const boost::json::value* JsonInput::find(std::string_view field) const {
  const boost::json::value* value = object_.if_contains({field.data(), field.size()});
  return value == nullptr || value->is_null() ? nullptr : value;
}

Result<std::int64_t> JsonInput::integer(std::string_view field, std::int64_t low, std::int64_t high,
                                        std::int64_t fallback) const {
  const boost::json::value* value = find(field);
  if (value == nullptr) return fallback;
  if (value->is_uint64() && value->get_uint64() > static_cast<std::uint64_t>(high)) {
    return bad_request(std::string(field), fmt::format("{} must be between {} and {}, not {}", field, low,
                                                       high, value->get_uint64()));
  }
  if (!value->is_int64() && !value->is_uint64()) {
    return bad_request(std::string(field),
                       fmt::format("{} must be an integer between {} and {}", field, low, high));
  }
  const auto number = value->to_number<std::int64_t>();
  TRY(model::check_range(field, number, low, high));
  return number;
}

Result<bool> JsonInput::boolean(std::string_view field, bool fallback) const {
  const boost::json::value* value = find(field);
  if (value == nullptr) return fallback;
  if (!value->is_bool())
    return bad_request(std::string(field), fmt::format("{} must be true or false", field));
  return value->get_bool();
}

Result<std::string> JsonInput::text(std::string_view field, std::size_t max_bytes,
                                    std::optional<std::string> fallback) const {
  const boost::json::value* value = find(field);
  if (value == nullptr) {
    if (fallback) return *std::move(fallback);
    return bad_request(std::string(field), fmt::format("{} is required", field));
  }
  if (!value->is_string()) return bad_request(std::string(field), fmt::format("{} must be a string", field));
  std::string text(value->get_string().begin(), value->get_string().end());
  if (text.size() > max_bytes) {
    return bad_request(std::string(field), fmt::format("{} must have at most {} bytes", field, max_bytes));
  }
  return text;
}

Result<std::vector<std::string>> JsonInput::texts(std::string_view field, std::size_t max_count,
                                                  std::size_t max_total_bytes) const {
  std::vector<std::string> out;
  const boost::json::value* value = find(field);
  if (value == nullptr) return out;
  const bool strings = value->is_array() && std::ranges::all_of(value->get_array(), [](const auto& each) {
                         return each.is_string();
                       });
  if (!strings) return bad_request(std::string(field), fmt::format("{} must be an array of strings", field));
  std::size_t total = 0;
  for (const auto& each : value->get_array()) {
    out.emplace_back(each.get_string().begin(), each.get_string().end());
    total += out.back().size();
  }
  if (out.size() > max_count || total > max_total_bytes) {
    return bad_request(std::string(field), fmt::format("{} must have at most {} strings and {} bytes", field,
                                                       max_count, max_total_bytes));
  }
  return out;
}

Result<std::vector<std::pair<std::string, std::string>>> JsonInput::text_map(
    std::string_view field, std::size_t max_count, std::size_t max_total_bytes) const {
  std::vector<std::pair<std::string, std::string>> out;
  const boost::json::value* value = find(field);
  if (value == nullptr) return out;
  const bool strings = value->is_object() && std::ranges::all_of(value->get_object(), [](const auto& each) {
                         return each.value().is_string();
                       });
  if (!strings) return bad_request(std::string(field), fmt::format("{} must be an object of strings", field));
  std::size_t total = 0;
  for (const auto& each : value->get_object()) {
    const auto& text = each.value().get_string();
    out.emplace_back(std::string(each.key()), std::string(text.begin(), text.end()));
    total += each.key().size() + text.size();
  }
  if (out.size() > max_count || total > max_total_bytes) {
    return bad_request(std::string(field), fmt::format("{} must have at most {} entries and {} bytes", field,
                                                       max_count, max_total_bytes));
  }
  return out;
}

}  // namespace wrenn::control
