// What the reconciler asks of Store: rows as it sees them, leases and signs of life.
#include "base/log.h"
#include "store/rows.h"
#include "store/state.h"

namespace wrenn::store {
namespace {

using soci::into;
using soci::use;

struct Page {
  Views views;
  std::string last_id;  // in the database's order, which need not be that of bytes
  std::size_t size = 0;
};

// `filter` is what follows WHERE, `uses` its parameters in order.
template <class... Uses>
Page select_views(soci::session& sql, const std::string& filter, const Uses&... uses) {
  soci::statement statement(sql);
  ViewColumns columns;
  columns.bind(statement);
  (statement.exchange(use(uses)), ...);
  statement.alloc();
  statement.prepare(std::string("SELECT ") + kViewColumns + " FROM sandboxes WHERE " + filter);
  statement.define_and_bind();
  statement.execute(false);
  Page page;
  for (; statement.fetch(); ++page.size) {
    page.last_id = columns.id;
    if (auto view = columns.to_view()) {
      page.views.rows.push_back(*std::move(view));
    } else {
      page.views.unreadable.push_back(columns.id);
    }
  }
  return page;
}

void append(Views* all, Views more) {
  std::ranges::move(more.rows, std::back_inserter(all->rows));
  std::ranges::move(more.unreadable, std::back_inserter(all->unreadable));
}

void tell_unreadable(const Views& views, std::set<std::string>* told) {
  for (const std::string& id : views.unreadable) {
    if (told->insert(id).second)
      log::warn("the row of sandbox {} holds words this program does not know", id);
  }
}

}  // namespace

Task<Views> Store::live_rows(std::string host_id) {
  Views all;
  std::string after;
  while (true) {
    Page page = CO_TRY(co_await state_->read([host_id, after](soci::session& sql) -> Result<Page> {
      return select_views(sql,
                          std::string("host_id = :host AND id > :after AND ") + kLive +
                              " ORDER BY id LIMIT " + std::to_string(kRowsPerPage),
                          host_id, after);
    }));
    after = page.last_id;
    const bool last = page.size < kRowsPerPage;
    append(&all, std::move(page.views));
    if (last) break;
  }
  tell_unreadable(all, &state_->unreadable);
  co_return all;
}

Task<Views> Store::ended_rows(std::vector<std::string> ids) {
  Views all = CO_TRY(co_await state_->read([ids = std::move(ids)](soci::session& sql) -> Result<Views> {
    Views views;
    for (const std::string& id : ids) {
      append(&views, select_views(sql, std::string("id = :id AND NOT ") + kLive, id).views);
    }
    return views;
  }));
  tell_unreadable(all, &state_->unreadable);
  co_return all;
}

Task<bool> Store::is_live(std::string id) {
  return state_->read([id = std::move(id)](soci::session& sql) -> Result<bool> {
    long long count = 0;
    sql << std::string("SELECT COUNT(*) FROM sandboxes WHERE id = :id AND ") + kLive, into(count), use(id);
    return count > 0;
  });
}

Task<> Store::renew_transitions(std::vector<Lease> leases, Time now) {
  return state_->write([leases = std::move(leases), now = to_ms(now)](soci::session& sql) -> Result<> {
    for (const Lease& lease : leases) {
      const long long version = lease.version;
      execute(sql,
              "UPDATE sandboxes SET transition_at = :now WHERE id = :id AND version = :version AND "
              "transition <> ''",
              now, lease.id, version);
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

}  // namespace wrenn::store
