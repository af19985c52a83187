#pragma once

#include <cstddef>

namespace wrenn::agent {

inline constexpr std::size_t kMaxMessageBytes = 4 * 1024 * 1024;
inline constexpr std::size_t kPoolThreads = 8;

}  // namespace wrenn::agent
