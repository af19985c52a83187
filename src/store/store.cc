#include "store/store.h"

#include <fmt/format.h>

#include <algorithm>

#include "store/database.h"
#include "store/limits.h"
#include "store/rows.h"

namespace wrenn::store {
namespace {

using soci::into;
using soci::use;

// Selects sandboxes; `filter` is what follows WHERE, `uses` its parameters in order.
template <class... Uses>
Result<std::vector<Sandbox>> select_sandboxes(soci::session& sql, const std::string& filter,
                                              const Uses&... uses) {
  soci::statement statement(sql);
  SandboxColumns columns;
  columns.bind(statement);
  (statement.exchange(use(uses)), ...);
  statement.alloc();
  statement.prepare(std::string("SELECT ") + kSandboxColumns + " FROM sandboxes WHERE " + filter);
  statement.define_and_bind();
  statement.execute(false);
  std::vector<Sandbox> rows;
  while (rows.size() < kMaxRows && statement.fetch()) rows.push_back(TRY(columns.to_sandbox()));
  return rows;
}

Result<Sandbox> select_one(soci::session& sql, const std::string& team_id, const std::string& id) {
  auto rows = TRY(select_sandboxes(sql, "id = :id AND team_id = :team", id, team_id));
  if (rows.empty()) return fail(Code::kNotFound, "no sandbox " + id);
  return std::move(rows.front());
}

// Executes a statement with positional parameters; answers the number of rows it changed.
template <class... Uses>
long long execute(soci::session& sql, const std::string& query, const Uses&... uses) {
  soci::statement statement(sql);
  (statement.exchange(use(uses)), ...);
  statement.alloc();
  statement.prepare(query);
  statement.define_and_bind();
  statement.execute(true);
  return statement.get_affected_rows();
}

std::unexpected<Error> refuse(const Sandbox& row, model::Transition wanted) {
  if (row.transition != model::Transition::kNone) {
    return fail(
        Error(Code::kAborted, fmt::format("sandbox {} is {}", row.id, model::transition_name(row.transition)))
            .with_reason("busy"));
  }
  const std::string_view needed = wanted == model::Transition::kPausing ? "running" : "paused";
  return fail(Error(Code::kFailedPrecondition,
                    fmt::format("sandbox {} is {}, not {}", row.id, model::status_name(row.status), needed))
                  .with_reason("invalid_state"));
}

void insert_key_row(soci::session& sql, const ApiKey& key) {
  const long long created = to_ms(key.created_at);
  sql << "INSERT INTO team_api_keys (id, team_id, name, key_hash, key_prefix, created_at) "
         "VALUES (:id, :team, :name, :hash, :prefix, :created)",
      use(key.id), use(key.team_id), use(key.name), use(key.hash), use(key.prefix), use(created);
}

long long insert_team_row(soci::session& sql, const Team& team, bool ignore_existing) {
  const long long created = to_ms(team.created_at);
  return execute(sql,
                 std::string("INSERT INTO teams (id, name, created_at) VALUES (:id, :name, :created)") +
                     (ignore_existing ? " ON CONFLICT DO NOTHING" : ""),
                 team.id, team.name, created);
}

}  // namespace

struct Store::State {
  State(std::string url, asio::thread_pool* workers) : database(std::move(url)), pool(workers) {}

  template <class Work>
  auto run(Work work) -> Task<typename std::invoke_result_t<Work, async::Blocking>::value_type> {
    if (queued >= kMaxQueuedCalls) {
      co_return fail(
          Error(Code::kUnavailable, "too many database calls are waiting").with_reason("db_unavailable"));
    }
    ++queued;
    auto result = co_await async::offload(*pool, std::move(work));
    --queued;
    co_return std::move(result);
  }
  template <class Work>
  auto read(Work work) -> Task<typename std::invoke_result_t<Work, soci::session&>::value_type> {
    return run(
        [this, work = std::move(work)](async::Blocking blocking) { return database.read(blocking, work); });
  }
  template <class Work>
  auto write(Work work) -> Task<typename std::invoke_result_t<Work, soci::session&>::value_type> {
    return run(
        [this, work = std::move(work)](async::Blocking blocking) { return database.write(blocking, work); });
  }

  Database database;
  asio::thread_pool* pool;
  std::size_t queued = 0;
};

Store::Store(std::unique_ptr<State> state) : state_(std::move(state)) {}
Store::~Store() = default;

Result<std::unique_ptr<Store>> Store::open(std::string url, asio::thread_pool* pool) {
  constexpr std::string_view kSqlitePrefix = "sqlite://";
  if (url.starts_with(kSqlitePrefix)) url.erase(0, kSqlitePrefix.size());
  const bool postgres = url.starts_with("postgres://") || url.starts_with("postgresql://");
  if (url.empty() || url.find('"') != std::string::npos ||
      (!postgres && url.find("://") != std::string::npos)) {
    return fail(Code::kInvalidArgument,
                "DATABASE_URL must be postgres://..., sqlite:///FILE or the path of an SQLite file");
  }
  return std::unique_ptr<Store>(new Store(std::make_unique<State>(std::move(url), pool)));
}

Task<int> Store::migrate() {
  return state_->run(
      [this](async::Blocking blocking) { return store::migrate(blocking, &state_->database); });
}

Task<> Store::check() {
  return state_->read([](soci::session& sql) -> Result<> {
    int one = 0;
    sql << "SELECT 1", into(one);
    return {};
  });
}

Task<bool> Store::bootstrap(Team team, ApiKey key) {
  return state_->write([team = std::move(team), key = std::move(key)](soci::session& sql) -> Result<bool> {
    long long keys = 0;
    // The insert first: it makes a second bootstrap wait for this one on both databases.
    insert_team_row(sql, team, true);
    sql << "SELECT COUNT(*) FROM team_api_keys", into(keys);
    if (keys > 0) return false;
    insert_key_row(sql, key);
    return true;
  });
}

Task<> Store::insert_team(Team team) {
  return state_->write([team = std::move(team)](soci::session& sql) -> Result<> {
    insert_team_row(sql, team, false);
    return {};
  });
}

Task<> Store::insert_key(ApiKey key) {
  return state_->write([key = std::move(key)](soci::session& sql) -> Result<> {
    insert_key_row(sql, key);
    return {};
  });
}

Task<std::optional<KeyOwner>> Store::find_key(std::string hash) {
  return state_->read([hash = std::move(hash)](soci::session& sql) -> Result<std::optional<KeyOwner>> {
    KeyOwner owner;
    sql << "SELECT id, team_id FROM team_api_keys WHERE key_hash = :hash", into(owner.key_id),
        into(owner.team_id), use(hash);
    if (!sql.got_data()) return std::optional<KeyOwner>{};
    return std::optional<KeyOwner>(std::move(owner));
  });
}

Task<> Store::touch_key(std::string key_id, Time now) {
  return state_->write([key_id = std::move(key_id), now = to_ms(now)](soci::session& sql) -> Result<> {
    execute(sql, "UPDATE team_api_keys SET last_used = :now WHERE id = :id AND last_used < :earlier", now,
            key_id, now);
    return {};
  });
}

Task<> Store::insert_sandbox(Sandbox sandbox) {
  return state_->write([sandbox = std::move(sandbox)](soci::session& sql) -> Result<> {
    insert_sandbox_row(sql, sandbox);
    return {};
  });
}

Task<Sandbox> Store::get_sandbox(std::string team_id, std::string id) {
  return state_->read([team_id = std::move(team_id), id = std::move(id)](soci::session& sql) {
    return select_one(sql, team_id, id);
  });
}

Task<std::optional<Sandbox>> Store::find_sandbox(std::string id) {
  return state_->read([id = std::move(id)](soci::session& sql) -> Result<std::optional<Sandbox>> {
    auto rows = TRY(select_sandboxes(sql, "id = :id", id));
    if (rows.empty()) return std::optional<Sandbox>{};
    return std::optional<Sandbox>(std::move(rows.front()));
  });
}

Task<std::vector<Sandbox>> Store::list_sandboxes(std::string team_id, std::optional<model::Status> status,
                                                 std::size_t limit) {
  return state_->read([team_id = std::move(team_id), status, limit](soci::session& sql) {
    const std::string order =
        " ORDER BY created_at DESC, id DESC LIMIT " + std::to_string(std::min(limit, kMaxRows));
    if (!status) return select_sandboxes(sql, "team_id = :team" + order, team_id);
    const std::string name(model::status_name(*status));
    return select_sandboxes(sql, "team_id = :team AND status = :status" + order, team_id, name);
  });
}

Task<> Store::delete_sandbox(std::string id, std::int64_t version) {
  return state_->write([id = std::move(id), version](soci::session& sql) -> Result<> {
    const long long expected = version;
    execute(sql, "DELETE FROM sandboxes WHERE id = :id AND version = :version", id, expected);
    return {};
  });
}

Task<Sandbox> Store::begin_transition(std::string team_id, std::string id, model::Transition transition,
                                      Time now) {
  return state_->write([team_id = std::move(team_id), id = std::move(id), transition,
                        now = to_ms(now)](soci::session& sql) -> Result<Sandbox> {
    Sandbox row = TRY(select_one(sql, team_id, id));
    if (row.transition != model::Transition::kNone || !model::can_begin(row.status, transition)) {
      return refuse(row, transition);
    }
    const std::string name(model::transition_name(transition));
    const long long version = row.version;
    const long long changed =
        execute(sql,
                "UPDATE sandboxes SET transition = :transition, transition_at = :at, version = version + 1 "
                "WHERE id = :id AND version = :version",
                name, now, id, version);
    if (changed == 0) {
      return fail(Error(Code::kAborted, "sandbox " + id + " is changing").with_reason("busy"));
    }
    row.transition = transition;
    row.transition_at = from_ms(now);
    ++row.version;
    return row;
  });
}

Task<bool> Store::finish_transition(Outcome outcome, Time now) {
  return state_->write([outcome = std::move(outcome), now = to_ms(now)](soci::session& sql) -> Result<bool> {
    const std::string status(model::status_name(outcome.status));
    const std::string reason(model::end_reason_name(outcome.end_reason));
    const long long version = outcome.version;
    const long long started = to_ms(outcome.started_at), active = to_ms(outcome.last_active_at);
    const long long changed = execute(
        sql,
        "UPDATE sandboxes SET status = :status, transition = '', end_reason = :reason, version = version + "
        "1, "
        "last_updated = :now, "
        "guest_ip = CASE WHEN :g1 = '' THEN guest_ip ELSE :g2 END, "
        "host_ip = CASE WHEN :h1 = '' THEN host_ip ELSE :h2 END, "
        "started_at = CASE WHEN CAST(:s1 AS BIGINT) = 0 THEN started_at ELSE CAST(:s2 AS BIGINT) END, "
        "last_active_at = CASE WHEN CAST(:a1 AS BIGINT) > last_active_at THEN CAST(:a2 AS BIGINT) "
        "ELSE last_active_at END "
        "WHERE id = :id AND version = :version",
        status, reason, now, outcome.guest_ip, outcome.guest_ip, outcome.host_ip, outcome.host_ip, started,
        started, active, active, outcome.id, version);
    return changed > 0;
  });
}

Task<> Store::renew_transitions(std::vector<std::string> ids, Time now) {
  return state_->write([ids = std::move(ids), now = to_ms(now)](soci::session& sql) -> Result<> {
    for (const std::string& id : ids) {
      execute(sql, "UPDATE sandboxes SET transition_at = :now WHERE id = :id AND transition <> ''", now, id);
    }
    return {};
  });
}

Task<> Store::touch_sandboxes(std::vector<std::pair<std::string, Time>> touches) {
  return state_->write([touches = std::move(touches)](soci::session& sql) -> Result<> {
    for (const auto& [id, time] : touches) {
      const long long at = to_ms(time);
      execute(sql, "UPDATE sandboxes SET last_active_at = :at WHERE id = :id AND last_active_at < :earlier",
              at, id, at);
    }
    return {};
  });
}

Task<std::vector<model::RowView>> Store::live_rows(std::string host_id) {
  return state_->read(
      [host_id = std::move(host_id)](soci::session& sql) -> Result<std::vector<model::RowView>> {
        std::vector<model::RowView> views;
        for (const Sandbox& row : TRY(select_sandboxes(sql,
                                                       "host_id = :host AND (transition <> '' OR status IN "
                                                       "('pending', 'running', 'paused', 'missing'))",
                                                       host_id))) {
          views.push_back(to_view(row));
        }
        return views;
      });
}

Task<std::vector<model::RowView>> Store::ended_rows(std::vector<std::string> ids) {
  return state_->read([ids = std::move(ids)](soci::session& sql) -> Result<std::vector<model::RowView>> {
    std::vector<model::RowView> views;
    for (const std::string& id : ids) {
      for (const Sandbox& row : TRY(select_sandboxes(
               sql, "id = :id AND transition = '' AND status IN ('stopped', 'error')", id))) {
        views.push_back(to_view(row));
      }
    }
    return views;
  });
}

Task<bool> Store::is_live(std::string id) {
  return state_->read([id = std::move(id)](soci::session& sql) -> Result<bool> {
    long long count = 0;
    sql << "SELECT COUNT(*) FROM sandboxes WHERE id = :id AND "
           "(transition <> '' OR status NOT IN ('stopped', 'error'))",
        into(count), use(id);
    return count > 0;
  });
}

}  // namespace wrenn::store
