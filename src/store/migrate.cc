#include <algorithm>
#include <charconv>

#include "base/embedded.h"
#include "base/log.h"
#include "store/database.h"
#include "store/limits.h"

namespace wrenn::store {

// Generated from db/migrations.
std::vector<EmbeddedFile> embedded_migrations();

namespace {

// Any number that no other program uses.
constexpr long long kAdvisoryLock = 0x77'72'65'6e'6e;

Result<int> version_of(std::string_view file) {
  int version = 0;
  const auto [end, error] = std::from_chars(file.data(), file.data() + file.size(), version);
  if (error != std::errc() || version <= 0) {
    return fail(Code::kInternal, "a migration's name must start with its number");
  }
  return version;
}

// Statements end with ';' at the end of a line; lines starting with "--" are comments.
std::vector<std::string> statements_of(std::string_view text) {
  std::vector<std::string> statements(1);
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size() - 1);
    const std::string_view line = text.substr(0, end + 1);
    text.remove_prefix(end + 1);
    if (line.starts_with("--")) continue;
    statements.back() += line;
    if (line.ends_with(";\n") || line.ends_with(";")) statements.emplace_back();
  }
  std::erase_if(statements, [](const std::string& each) {
    return each.find_first_not_of(" \t\r\n") == std::string::npos;
  });
  return statements;
}

Result<int> apply_missing(soci::session& sql, Database::Kind kind) {
  if (kind == Database::Kind::kPostgres) {
    sql << "SET LOCAL statement_timeout = " + std::to_string(kMigrationTimeoutMs);
    sql << "SELECT pg_advisory_xact_lock(" + std::to_string(kAdvisoryLock) + ")";
  }
  sql << "CREATE TABLE IF NOT EXISTS schema_migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL)";
  long long current = 0;
  sql << "SELECT COALESCE(MAX(version), 0) FROM schema_migrations", soci::into(current);
  int newest = 0;
  int applied = 0;
  for (const EmbeddedFile& file : embedded_migrations()) {
    const int version = TRY(version_of(file.name));
    newest = std::max(newest, version);
    if (version <= current) continue;
    for (const std::string& statement : statements_of(file.content)) sql << statement;
    const std::string name(file.name);
    sql << "INSERT INTO schema_migrations (version, name) VALUES (:version, :name)",
        soci::use(version, "version"), soci::use(name, "name");
    ++applied;
  }
  if (current > newest) {
    return fail(Code::kFailedPrecondition,
                fmt::format("the database has schema {}, newer than this program's {}", current, newest));
  }
  return applied;
}

}  // namespace

Result<int> migrate(async::Blocking blocking, Database* database) {
  return database->write(blocking, [&](soci::session& sql) { return apply_missing(sql, database->kind()); });
}

}  // namespace wrenn::store
