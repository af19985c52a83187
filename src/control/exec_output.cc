#include "control/exec_output.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/bytes.h"
#include "control/limits.h"

namespace wrenn::control {

static_assert(kOutputBlockBytes % 3 == 0, "blocks must be whole in base64");

void OutputText::append(std::string_view bytes) {
  check(bytes);
  while (!bytes.empty()) {
    if (blocks_.empty() || blocks_.back().size() == kOutputBlockBytes) blocks_.emplace_back();
    std::string& block = blocks_.back();
    const std::string_view fits = bytes.substr(0, kOutputBlockBytes - block.size());
    const std::size_t needed = block.size() + fits.size();
    if (needed > block.capacity())
      block.reserve(std::min(kOutputBlockBytes, std::max(needed, 2 * block.size())));
    block += fits;
    bytes.remove_prefix(fits.size());
  }
}

void OutputText::check(std::string_view bytes) {
  if (!valid_) return;
  std::string joined;
  if (!cut_.empty()) {
    joined = cut_ + std::string(bytes);
    bytes = joined;
  }
  const std::size_t whole = utf8_complete_prefix(bytes);
  valid_ = is_utf8(bytes.substr(0, whole));
  cut_ = std::string(bytes.substr(whole));
}

Result<> ExecOutput::append(Stream stream, std::string_view bytes) {
  if (size_ + bytes.size() > kMaxExecOutputBytes) {
    return fail(Error(Code::kResourceExhausted,
                      fmt::format("the command wrote more than {} bytes and was killed; use exec/stream",
                                  kMaxExecOutputBytes))
                    .with_reason("output_limit"));
  }
  if (auto room = share_.grow(bytes.size()); !room) {
    // Given back here and now, or all commands of a crowd would fail in the same moment.
    out_ = OutputText();
    err_ = OutputText();
    share_.shrink(share_.held());
    return room;
  }
  size_ += bytes.size();
  (stream == Stream::kOut ? out_ : err_).append(bytes);
  return {};
}

Task<> ExecOutput::send(Stream stream, JsonAnswer* answer) {
  const bool text = is_text();
  OutputText& from = stream == Stream::kOut ? out_ : err_;
  while (const std::string* block = from.front()) {
    if (text) {
      answer->add_text(*block);
    } else {
      answer->add(to_base64(*block));
    }
    const std::size_t size = block->size();
    from.pop_front();
    if (answer->full()) CO_TRY(co_await answer->send());
    share_.shrink(size);
  }
  co_return Result<>{};
}

}  // namespace wrenn::control
