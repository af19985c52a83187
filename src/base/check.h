#pragma once

namespace wrenn::detail {
[[noreturn]] void check_failed(const char* expression, const char* file, int line);
}  // namespace wrenn::detail

// Aborts with the place when a promise the code itself makes is broken. Never for outside input.
#define CHECK(...)                                                     \
  do {                                                                 \
    if (!(__VA_ARGS__)) [[unlikely]]                                   \
      ::wrenn::detail::check_failed(#__VA_ARGS__, __FILE__, __LINE__); \
  } while (false)
