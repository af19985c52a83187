#include "store/store.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "store/rows.h"
#include "store/state.h"

namespace wrenn::store {
namespace {

using soci::into;
using soci::use;

// Selects sandboxes; `filter` is what follows WHERE, `uses` its parameters in order. One that cannot be read
// is an error in its place.
template <class... Uses>
std::vector<Result<Sandbox>> select_sandboxes(soci::session& sql, const std::string& filter,
                                              const Uses&... uses) {
  soci::statement statement(sql);
  SandboxColumns columns;
  columns.bind(statement);
  (statement.exchange(use(uses)), ...);
  statement.alloc();
  statement.prepare(std::string("SELECT ") + kSandboxColumns + " FROM sandboxes WHERE " + filter);
  statement.define_and_bind();
  statement.execute(false);
  std::vector<Result<Sandbox>> rows;
  while (rows.size() < kMaxRows && statement.fetch()) rows.push_back(columns.to_sandbox());
  return rows;
}

Result<std::vector<Sandbox>> readable(std::vector<Result<Sandbox>> rows) {
  std::vector<Sandbox> out;
  out.reserve(rows.size());
  for (Result<Sandbox>& row : rows) {
    if (!row) log::warn("{}", row.error().message());
    if (row) out.push_back(*std::move(row));
  }
  return out;
}

Result<Sandbox> select_one(soci::session& sql, const std::string& team_id, const std::string& id) {
  auto rows = select_sandboxes(sql, "id = :id AND team_id = :team", id, team_id);
  if (rows.empty()) return fail(Code::kNotFound, "no sandbox " + id);
  return std::move(rows.front());
}

bool can_begin(const Sandbox& row, model::Transition transition) {
  return model::can_begin(row.status, transition, !row.error.reason.empty());
}

// "SELECT <columns_where> IN (values)"; the columns are bound already.
void select_in(soci::statement* statement, const std::string& columns_where,
               const std::vector<std::string>& values) {
  std::string names;
  for (std::size_t i = 0; i < values.size(); ++i) {
    names += (i == 0 ? ":v" : ", :v") + std::to_string(i);
    statement->exchange(use(values[i]));
  }
  statement->alloc();
  statement->prepare("SELECT " + columns_where + " IN (" + names + ")");
  statement->define_and_bind();
  statement->execute(false);
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

Store::Store(std::unique_ptr<State> state) : state_(std::move(state)) {}
Store::~Store() = default;

Result<std::unique_ptr<Store>> Store::open(std::string url, async::Loop* loop) {
  constexpr std::string_view kSqlitePrefix = "sqlite://";
  if (url.starts_with(kSqlitePrefix)) url.erase(0, kSqlitePrefix.size());
  const bool postgres = url.starts_with("postgres://") || url.starts_with("postgresql://");
  if (url.empty() || url.find('"') != std::string::npos ||
      (!postgres && url.find("://") != std::string::npos)) {
    return fail(Code::kInvalidArgument,
                "DATABASE_URL must be postgres://..., sqlite:///FILE or the path of an SQLite file");
  }
  return std::unique_ptr<Store>(new Store(std::make_unique<State>(std::move(url), loop)));
}

Task<int> Store::migrate() {
  return state_->with_writer(
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

Task<std::map<std::string, KeyOwner>> Store::find_keys(std::vector<std::string> hashes) {
  return state_->read(
      [hashes = std::move(hashes)](soci::session& sql) -> Result<std::map<std::string, KeyOwner>> {
        std::string hash;
        KeyOwner owner;
        soci::statement statement(sql);
        for (auto* column : {&hash, &owner.key_id, &owner.team_id}) statement.exchange(into(*column));
        select_in(&statement, "key_hash, id, team_id FROM team_api_keys WHERE key_hash", hashes);
        std::map<std::string, KeyOwner> found;
        while (statement.fetch()) found[hash] = owner;
        return found;
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

Task<std::map<std::string, Sandbox>> Store::find_sandboxes(std::vector<std::string> ids) {
  return state_->read([ids = std::move(ids)](soci::session& sql) -> Result<std::map<std::string, Sandbox>> {
    SandboxColumns columns;
    soci::statement statement(sql);
    columns.bind(statement);
    select_in(&statement, std::string(kSandboxColumns) + " FROM sandboxes WHERE id", ids);
    std::map<std::string, Sandbox> found;
    while (statement.fetch()) {
      // A row that a newer program wrote is that program's, and stands in nobody else's way.
      if (auto sandbox = columns.to_sandbox()) found[columns.id] = *std::move(sandbox);
    }
    return found;
  });
}

Task<std::vector<Sandbox>> Store::list_sandboxes(std::string team_id, std::optional<model::Status> status,
                                                 std::size_t limit) {
  return state_->read([team_id = std::move(team_id), status, limit](soci::session& sql) {
    const std::string order =
        " ORDER BY created_at DESC, id DESC LIMIT " + std::to_string(std::min(limit, kMaxRows));
    if (!status) return readable(select_sandboxes(sql, "team_id = :team" + order, team_id));
    const std::string name(model::status_name(*status));
    return readable(select_sandboxes(sql, "team_id = :team AND status = :status" + order, team_id, name));
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
    if (row.transition != model::Transition::kNone || !can_begin(row, transition)) {
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
        "last_updated = :now, error_reason = :er, error_message = :em, "
        "guest_ip = CASE WHEN :g1 = '' THEN guest_ip ELSE :g2 END, "
        "host_ip = CASE WHEN :h1 = '' THEN host_ip ELSE :h2 END, "
        "started_at = CASE WHEN CAST(:s1 AS BIGINT) = 0 THEN started_at ELSE CAST(:s2 AS BIGINT) END, "
        "last_active_at = CASE WHEN CAST(:a1 AS BIGINT) > last_active_at THEN CAST(:a2 AS BIGINT) "
        "ELSE last_active_at END "
        "WHERE id = :id AND version = :version",
        status, reason, now, outcome.error.reason, outcome.error.message, outcome.guest_ip, outcome.guest_ip,
        outcome.host_ip, outcome.host_ip, started, started, active, active, outcome.id, version);
    return changed > 0;
  });
}

}  // namespace wrenn::store
