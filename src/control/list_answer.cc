#include "control/list_answer.h"

#include <fmt/format.h>

#include <algorithm>

#include "control/limits.h"

namespace wrenn::control {
namespace {

constexpr char kRepeatedField1 = 0x0a;  // number 1, length-delimited
constexpr unsigned kMaxVarintBits = 28;

std::unexpected<Error> too_large(std::string_view reason, std::string message) {
  return fail(Error(Code::kResourceExhausted, std::move(message)).with_reason(std::string(reason)));
}

// The entry that begins at `*at`, which moves behind it. Nullopt when there is none, or it is cut or odd.
std::optional<std::string_view> take_entry(std::string_view bytes, std::size_t* at) {
  std::size_t cursor = *at;
  if (cursor >= bytes.size() || bytes[cursor] != kRepeatedField1) return std::nullopt;
  ++cursor;
  std::size_t size = 0;
  for (unsigned shift = 0;; shift += 7) {
    if (shift > kMaxVarintBits || cursor >= bytes.size()) return std::nullopt;
    const auto byte = static_cast<unsigned char>(bytes[cursor++]);
    size |= std::size_t{byte & 0x7fU} << shift;
    if ((byte & 0x80U) == 0) break;
  }
  if (size > bytes.size() - cursor) return std::nullopt;
  *at = cursor + size;
  return bytes.substr(cursor, size);
}

}  // namespace

Task<> ListAnswer::read(net::BodyReader* body) {
  while (true) {
    CO_TRY(make_room());
    const std::size_t got =
        CO_TRY(co_await body->read(std::span<char>(bytes_).subspan(read_, bytes_.size() - read_)));
    if (got == 0) break;
    read_ += got;
  }
  bytes_.resize(read_);
  co_return check();
}

// Grows with what comes, and only as far as the budget lets it.
Result<> ListAnswer::make_room() {
  if (read_ < bytes_.size()) return {};
  if (bytes_.size() > kMaxListBytes) {
    return too_large("too_large", fmt::format("the list is longer than {} bytes", kMaxListBytes));
  }
  const std::size_t more = std::min(std::max(bytes_.size(), kChunkBytes), kMaxListBytes + 1 - bytes_.size());
  TRY(share_.grow(more));
  bytes_.resize(bytes_.size() + more);
  return {};
}

Result<> ListAnswer::check() {
  std::size_t at = 0;
  std::size_t entries = 0;
  while (at < bytes_.size()) {
    const auto entry = take_entry(bytes_, &at);
    if (!entry || entry->size() > kMaxListEntryBytes) {
      return fail(from_agent(Error(Code::kInternal, "a list is not made of entries of a sane size")));
    }
    if (++entries > kMaxListEntries) {
      return too_large("too_many_entries", fmt::format("the list has more than {} entries", kMaxListEntries));
    }
  }
  return {};
}

std::optional<std::string_view> ListAnswer::next() { return take_entry(bytes_, &at_); }

}  // namespace wrenn::control
