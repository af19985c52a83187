#pragma once

#include <cstddef>

#include "async/task.h"

namespace wrenn::store {

inline constexpr int kBusyTimeoutMs = 5'000;         // SQLite: wait for another program's write
inline constexpr int kConnectTimeoutSec = 5;         // PostgreSQL
inline constexpr int kStatementTimeoutMs = 10'000;   // PostgreSQL, per statement
inline constexpr int kMigrationTimeoutMs = 120'000;  // PostgreSQL, waiting for another migrator included
inline constexpr int kTcpUserTimeoutMs = 10'000;     // PostgreSQL: a silent network is a broken connection
// Further calls are refused as unavailable.
inline constexpr std::size_t kMaxQueuedReads = 512;
inline constexpr std::size_t kMaxQueuedWrites = 512;
// Pool threads that writes may hold at once, so that a lock they wait for leaves threads to the reads.
inline constexpr std::size_t kSqliteWriters = 1;
inline constexpr std::size_t kPostgresWriters = 4;
inline constexpr Milliseconds kWriteTurnLimit{10'000};  // for one of these places
inline constexpr std::size_t kMaxRows = 10'000;         // of one answer
inline constexpr std::size_t kRowsPerPage = 1'000;      // of the reconciler's rows, a call each

}  // namespace wrenn::store
