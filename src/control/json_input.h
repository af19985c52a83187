#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace wrenn::control {

// A request's JSON object. Unknown fields are ignored and null means absent; a wrong type or a value out of
// range is kInvalidArgument with the field and what it may be.
class JsonInput {
 public:
  // An empty text is an empty object.
  static Result<JsonInput> parse(std::string_view text);

  Result<std::int64_t> integer(std::string_view field, std::int64_t low, std::int64_t high,
                               std::int64_t fallback) const;
  Result<bool> boolean(std::string_view field, bool fallback) const;
  // `fallback` unset: the field is required.
  Result<std::string> text(std::string_view field, std::size_t max_bytes,
                           std::optional<std::string> fallback = std::nullopt) const;
  Result<std::vector<std::string>> texts(std::string_view field, std::size_t max_count,
                                         std::size_t max_total_bytes) const;
  // An object of texts.
  Result<std::vector<std::pair<std::string, std::string>>> text_map(std::string_view field,
                                                                    std::size_t max_count,
                                                                    std::size_t max_total_bytes) const;

 private:
  explicit JsonInput(boost::json::object object) : object_(std::move(object)) {}
  // Null when absent.
  const boost::json::value* find(std::string_view field) const;
  boost::json::object object_;
};

}  // namespace wrenn::control
