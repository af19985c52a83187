#include "control/request_id.h"

#include <algorithm>

#include "base/bytes.h"

namespace wrenn::control {
namespace {

constexpr std::size_t kMaxRequestIdBytes = 128;

}  // namespace

std::string request_id_of(const net::RequestHead& head) {
  const std::string_view given = head.headers.get("X-Request-Id");
  const bool sane = !given.empty() && given.size() <= kMaxRequestIdBytes &&
                    std::ranges::all_of(given, [](char c) { return c > ' ' && c < 0x7f; });
  return sane ? std::string(given) : random_id("req-");
}

}  // namespace wrenn::control
