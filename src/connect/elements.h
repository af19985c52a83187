#pragma once

#include <google/protobuf/message.h>

#include <cstddef>
#include <string>

#include "base/result.h"

namespace wrenn::connect {

struct ElementLimits {
  std::size_t count;  // of elements
  std::size_t bytes;  // of one on the wire
};

// Reads the messages of a repeated field one by one out of the protobuf message that holds them, which is
// never parsed as a whole: an element of two bytes would cost hundreds in memory.
class ElementReader {
 public:
  // `field`: the number of the repeated field; others are passed over.
  ElementReader(std::string bytes, int field, ElementLimits limits)
      : bytes_(std::move(bytes)), field_(field), limits_(limits) {}

  // False after the last one. kInternal for bytes that are not protobuf; kResourceExhausted, reason
  // "too_many_entries" or "too_large", above the limits.
  Result<bool> next(google::protobuf::Message* out);

 private:
  std::string bytes_;
  std::size_t at_ = 0;
  std::size_t count_ = 0;
  int field_;
  ElementLimits limits_;
};

}  // namespace wrenn::connect
