#pragma once

#include <set>

#include "store/database.h"
#include "store/limits.h"
#include "store/store.h"

// What the parts of Store share. Belongs to the loop, but for `database`.
namespace wrenn::store {

struct Store::State {
  State(std::string url, async::Loop* loop)
      : database(std::move(url)),
        pool(&loop->pool()),
        writers(loop->executor(),
                database.kind() == Database::Kind::kSqlite ? kSqliteWriters : kPostgresWriters) {}

  template <class Work>
  auto read(Work work) -> Task<typename std::invoke_result_t<Work, soci::session&>::value_type> {
    if (reading >= kMaxQueuedReads) co_return std::unexpected(too_many());
    const Counted counted(&reading);
    co_return co_await async::offload(*pool,
                                      [this, work = std::move(work)](async::Blocking blocking) mutable {
                                        return database.read(blocking, work);
                                      });
  }
  template <class Work>
  auto write(Work work) -> Task<typename std::invoke_result_t<Work, soci::session&>::value_type> {
    co_return co_await with_writer([this, work = std::move(work)](async::Blocking blocking) mutable {
      return database.write(blocking, work);
    });
  }
  // Runs `work` on the pool as one of the few that may wait for the database's locks there.
  template <class Work>
  auto with_writer(Work work) -> Task<typename std::invoke_result_t<Work&, async::Blocking>::value_type> {
    if (writing >= kMaxQueuedWrites) co_return std::unexpected(too_many());
    const Counted counted(&writing);
    const auto place = CO_TRY(co_await take_writer());
    co_return co_await async::offload(*pool, std::move(work));
  }

  Task<async::Semaphore::Guard> take_writer() {
    auto place = co_await async::with_timeout(writers.acquire(), kWriteTurnLimit, "waiting to write");
    if (place || place.error().code() != Code::kDeadlineExceeded) co_return std::move(place);
    co_return fail(Error(Code::kUnavailable, "the database is busy").with_reason("db_unavailable"));
  }

  Database database;
  asio::thread_pool* pool;
  async::Semaphore writers;
  std::size_t reading = 0;
  std::size_t writing = 0;
  std::set<std::string> unreadable;  // ids of rows already told of

 private:
  struct Counted {
    explicit Counted(std::size_t* of) : count(of) { ++*count; }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;
    ~Counted() { --*count; }
    std::size_t* count;
  };
  static Error too_many() {
    return Error(Code::kUnavailable, "too many database calls are waiting").with_reason("db_unavailable");
  }
};

// Executes a statement with positional parameters; answers the number of rows it changed.
template <class... Uses>
long long execute(soci::session& sql, const std::string& query, const Uses&... uses) {
  soci::statement statement(sql);
  (statement.exchange(soci::use(uses)), ...);
  statement.alloc();
  statement.prepare(query);
  statement.define_and_bind();
  statement.execute(true);
  return statement.get_affected_rows();
}

}  // namespace wrenn::store
