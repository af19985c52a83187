#pragma once

#include <cstddef>

namespace wrenn::store {

inline constexpr int kBusyTimeoutMs = 5'000;         // SQLite: wait for another program's write
inline constexpr int kConnectTimeoutSec = 5;         // PostgreSQL
inline constexpr int kStatementTimeoutMs = 10'000;   // PostgreSQL, per statement
inline constexpr int kMigrationTimeoutMs = 120'000;  // PostgreSQL, waiting for another migrator included
inline constexpr int kTcpUserTimeoutMs = 10'000;     // PostgreSQL: a silent network is a broken connection
inline constexpr std::size_t kMaxQueuedCalls = 512;  // further calls are refused as unavailable
inline constexpr std::size_t kMaxRows = 10'000;      // of one answer

}  // namespace wrenn::store
