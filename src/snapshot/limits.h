#pragma once

#include <cstddef>
#include <cstdint>

#include "sys/process_memory.h"

namespace wrenn::snapshot {

using sys::kPageBytes;
// Of the biggest guest, 64 GiB.
inline constexpr std::uint64_t kMaxRamPages = std::uint64_t{1} << 24U;
inline constexpr std::size_t kCopyBytes = std::size_t{1} * 1024 * 1024;
inline constexpr std::size_t kWritebackBytes = std::size_t{8} * 1024 * 1024;
inline constexpr std::size_t kDigestBlockBytes = std::size_t{64} * 1024;
inline constexpr std::size_t kMaxManifestBytes = std::size_t{64} * 1024;
inline constexpr std::size_t kMaxManifestFiles = 16;
// Remembered as verified; one each for what templates and cold-booted sandboxes share.
inline constexpr std::size_t kMaxVerifiedFiles = 16 * 1024;

}  // namespace wrenn::snapshot
