#pragma once

#include <soci/soci.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "async/blocking.h"
#include "base/result.h"

// Connections, errors and migrations behind Store.
namespace wrenn::store {

class Database {
 public:
  enum class Kind { kSqlite, kPostgres };
  explicit Database(std::string url);

  Kind kind() const { return kind_; }

  // Runs `work` (Result<T>(soci::session&)) on a connection. `work` may throw soci's errors. A read whose
  // connection turns out broken is repeated once on a new one.
  template <class Work>
  auto read(async::Blocking blocking, Work work) -> std::invoke_result_t<Work, soci::session&> {
    auto result = attempt(blocking, work);
    if (!result && result.error().reason() == kBrokenReason) result = attempt(blocking, work);
    return hide_broken(std::move(result));
  }
  // Writes are in one transaction, which is rolled back on an error. Those of one SQLite file must take
  // turns.
  template <class Work>
  auto write(async::Blocking blocking, Work work) -> std::invoke_result_t<Work, soci::session&> {
    return hide_broken(attempt(blocking, [&](soci::session& sql) { return in_transaction(sql, work); }));
  }

 private:
  static constexpr char kBrokenReason[] = "db_broken_connection";
  using Session = std::unique_ptr<soci::session>;

  template <class Work>
  auto attempt(async::Blocking blocking, Work& work) -> std::invoke_result_t<Work&, soci::session&> {
    Session session;
    try {
      session = take(blocking);
      auto result = work(*session);
      give_back(std::move(session));
      return result;
    } catch (const std::exception& thrown) {
      return fail(classify(thrown, std::move(session)));
    }
  }
  template <class Work>
  auto attempt(async::Blocking blocking, Work&& work) -> std::invoke_result_t<Work&, soci::session&> {
    return attempt(blocking, work);
  }
  template <class Work>
  auto in_transaction(soci::session& sql, Work& work) -> std::invoke_result_t<Work&, soci::session&> {
    sql << begin_statement();
    try {
      auto result = work(sql);
      sql << (result ? "COMMIT" : "ROLLBACK");
      return result;
    } catch (...) {
      roll_back(sql);
      throw;
    }
  }
  template <class R>
  static R hide_broken(R result) {
    if (result || result.error().reason() != kBrokenReason) return result;
    return std::unexpected(Error(std::move(result).error()).with_reason("db_unavailable"));
  }

  const char* begin_statement() const;
  static void roll_back(soci::session& sql) noexcept;
  Session take(async::Blocking blocking);
  Session connect(async::Blocking blocking) const;
  void give_back(Session session);
  // Keeps the connection if it still is of use, else drops it and its idle siblings.
  Error classify(const std::exception& thrown, Session session);

  std::string url_;
  Kind kind_;
  std::mutex mutex_;
  std::vector<Session> idle_;
};

// See Store::migrate.
Result<int> migrate(async::Blocking blocking, Database* database);

}  // namespace wrenn::store
