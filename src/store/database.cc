#include "store/database.h"

#include <soci/postgresql/soci-postgresql.h>
#include <soci/sqlite3/soci-sqlite3.h>
#include <sqlite3.h>

#include "base/log.h"
#include "store/limits.h"

namespace wrenn::store {
namespace {

bool is_postgres(const std::string& url) {
  return url.starts_with("postgres://") || url.starts_with("postgresql://");
}

Error db_error(Code code, std::string message, std::string reason) {
  return Error(code, std::move(message)).with_reason(std::move(reason));
}

Error classify_sqlite(const soci::sqlite3_soci_error& error) {
  switch (error.result() & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return db_error(Code::kUnavailable, "the database is busy", "db_unavailable");
    case SQLITE_FULL:
      return db_error(Code::kResourceExhausted, "no space left for the database", "disk_full");
    case SQLITE_CONSTRAINT:
      return db_error(Code::kAlreadyExists, "the row exists already", "db_conflict");
    case SQLITE_CANTOPEN:
      return db_error(Code::kUnavailable, "cannot open the database file", "db_unavailable");
    default:
      return db_error(Code::kInternal, error.get_error_message(), "db_error");
  }
}

// The server has given the connection up, or only reads through it since it became a standby (25006), or its
// transaction is not what this program thinks (25P02): a new connection may serve.
bool is_useless(const std::string& state) {
  return state.starts_with("08") || state.starts_with("57P") || state == "25006" || state == "25P02";
}

Error classify_postgres(const soci::postgresql_soci_error& error) {
  const std::string state = error.sqlstate();
  // 08: connection; 53: no resources; 57: shut down, cancelled by a timeout; 40: serialization, deadlock;
  // 55P03: lock timeout.
  if (state.starts_with("53100")) {
    return db_error(Code::kResourceExhausted, "no space left for the database", "disk_full");
  }
  if (state.starts_with("23505"))
    return db_error(Code::kAlreadyExists, "the row exists already", "db_conflict");
  for (const char* prefix : {"08", "53", "57", "40", "55P03"}) {
    if (state.starts_with(prefix)) {
      return db_error(Code::kUnavailable, "the database is not available", "db_unavailable");
    }
  }
  return db_error(Code::kInternal, error.get_error_message(), "db_error");
}

}  // namespace

Database::Database(std::string url)
    : url_(std::move(url)), kind_(is_postgres(url_) ? Kind::kPostgres : Kind::kSqlite) {}

const char* Database::begin_statement() const {
  // A writer of SQLite takes its lock at once, so it never fails halfway on another's.
  return kind_ == Kind::kSqlite ? "BEGIN IMMEDIATE" : "BEGIN";
}

void Database::roll_back(soci::session& sql) noexcept {
  try {
    sql << "ROLLBACK";
  } catch (const std::exception& e) {
    // The connection is gone, and the transaction with it.
    log::debug("rollback: {}", e.what());
  }
}

Database::Session Database::connect(async::Blocking /*blocking*/) const {
  if (kind_ == Kind::kSqlite) {
    auto session = std::make_unique<soci::session>(soci::sqlite3, "dbname=\"" + url_ + "\"");
    *session << "PRAGMA busy_timeout = " + std::to_string(kBusyTimeoutMs);
    *session << "PRAGMA journal_mode = WAL";
    *session << "PRAGMA synchronous = NORMAL";
    *session << "PRAGMA foreign_keys = ON";
    return session;
  }
  std::string url = url_;
  url += url.find('?') == std::string::npos ? '?' : '&';
  url += "connect_timeout=" + std::to_string(kConnectTimeoutSec) +
         "&tcp_user_timeout=" + std::to_string(kTcpUserTimeoutMs);
  auto session = std::make_unique<soci::session>(soci::postgresql, url);
  *session << "SET statement_timeout = " + std::to_string(kStatementTimeoutMs);
  *session << "SET client_min_messages = warning";
  return session;
}

Database::Session Database::take(async::Blocking blocking) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!idle_.empty()) {
      Session session = std::move(idle_.back());
      idle_.pop_back();
      return session;
    }
  }
  return connect(blocking);
}

void Database::give_back(Session session) {
  const std::lock_guard<std::mutex> lock(mutex_);
  idle_.push_back(std::move(session));
}

Error Database::classify(const std::exception& thrown, Session session) {
  if (const auto* error = dynamic_cast<const soci::sqlite3_soci_error*>(&thrown)) {
    if (session) give_back(std::move(session));
    return classify_sqlite(*error);
  }
  const auto* soci = dynamic_cast<const soci::soci_error*>(&thrown);
  if (kind_ == Kind::kPostgres) {
    if (!session) {
      return db_error(Code::kUnavailable, "cannot connect to the database", "db_unavailable");
    }
    const auto* error = dynamic_cast<const soci::postgresql_soci_error*>(&thrown);
    if (!session->is_connected() || (error != nullptr && is_useless(error->sqlstate()))) {
      // Not what(): that holds the statement's values.
      log::warn("a connection to the database is given up: {}",
                soci != nullptr ? soci->get_error_message() : "unknown error");
      std::vector<Session> stale;
      const std::lock_guard<std::mutex> lock(mutex_);
      stale.swap(idle_);
      return db_error(Code::kUnavailable, "the connection to the database broke", kBrokenReason);
    }
    give_back(std::move(session));
    if (error != nullptr) return classify_postgres(*error);
  }
  return db_error(soci != nullptr && !session ? Code::kUnavailable : Code::kInternal,
                  soci != nullptr ? soci->get_error_message() : thrown.what(), "db_error");
}

}  // namespace wrenn::store
