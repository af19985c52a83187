#include "connect/elements.h"

#include <fmt/format.h>
#include <google/protobuf/io/coded_stream.h>

namespace wrenn::connect {
namespace {

using google::protobuf::io::CodedInputStream;

// https://protobuf.dev/programming-guides/encoding
enum WireType : std::uint32_t { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };
constexpr std::uint32_t kTypeBits = 3;
constexpr std::uint32_t kTypeMask = (1U << kTypeBits) - 1;

Error malformed() { return Error(Code::kInternal, "the list is not valid protobuf"); }

bool skip_number(CodedInputStream* in, std::uint32_t type) {
  std::uint64_t ignored = 0;
  if (type == kVarint) return in->ReadVarint64(&ignored);
  if (type == kFixed64) return in->Skip(sizeof(std::uint64_t));
  return type == kFixed32 && in->Skip(sizeof(std::uint32_t));
}

}  // namespace

Result<bool> ElementReader::next(google::protobuf::Message* out) {
  while (at_ < bytes_.size()) {
    CodedInputStream in(reinterpret_cast<const std::uint8_t*>(bytes_.data()) + at_,
                        static_cast<int>(bytes_.size() - at_));
    std::uint32_t tag = 0;
    if (!in.ReadVarint32(&tag)) return fail(malformed());
    if ((tag & kTypeMask) != kLengthDelimited) {
      if (!skip_number(&in, tag & kTypeMask)) return fail(malformed());
      at_ += static_cast<std::size_t>(in.CurrentPosition());
      continue;
    }
    std::uint32_t size = 0;
    if (!in.ReadVarint32(&size)) return fail(malformed());
    const std::size_t begin = at_ + static_cast<std::size_t>(in.CurrentPosition());
    if (size > bytes_.size() - begin) return fail(malformed());
    at_ = begin + size;
    if (tag >> kTypeBits != static_cast<std::uint32_t>(field_)) continue;
    if (++count_ > limits_.count) {
      return fail(Error(Code::kResourceExhausted, fmt::format("more than {} entries", limits_.count))
                      .with_reason("too_many_entries"));
    }
    if (size > limits_.bytes) {
      return fail(
          Error(Code::kResourceExhausted, fmt::format("an entry is larger than {} bytes", limits_.bytes))
              .with_reason("too_large"));
    }
    if (!out->ParseFromArray(bytes_.data() + begin, static_cast<int>(size))) return fail(malformed());
    return true;
  }
  return false;
}

}  // namespace wrenn::connect
