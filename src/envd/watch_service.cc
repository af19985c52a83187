#include "envd/watch_service.h"

#include <deque>

#include "base/bytes.h"
#include "envd/limits.h"
#include "envd/process_service.h"

namespace wrenn::envd {

using connect::Context;
using connect::Writer;

struct WatchService::Polled {
  Polled(asio::any_io_executor executor, std::unique_ptr<Watcher> source)
      : watcher(std::move(source)), ended(std::move(executor)) {}
  std::unique_ptr<Watcher> watcher;
  std::deque<filesystem::FilesystemEvent> events;
  std::optional<Error> error;  // told once
  async::Condition ended;
  bool removed = false;
};

WatchService::WatchService(asio::any_io_executor executor, asio::thread_pool* pool, const Settings* settings)
    : executor_(executor), pool_(pool), settings_(settings), nursery_(std::move(executor)) {}
WatchService::~WatchService() = default;

template <class Request>
Task<std::unique_ptr<Watcher>> WatchService::open(Context context, Request request) {
  const auto user = CO_TRY(request_user(context->request_headers, *settings_));
  const auto path = CO_TRY(resolve_path(request.path(), user, *settings_));
  const WatchOptions options{.recursive = request.recursive(),
                             .include_entry = request.include_entry(),
                             .allow_network_mounts = request.allow_network_mounts()};
  co_return co_await async::offload(
      *pool_, [path, options](async::Blocking blocking) { return Watcher::open(blocking, path, options); });
}

Task<> WatchService::watch_dir(Context context, filesystem::WatchDirRequest request,
                               Writer<filesystem::WatchDirResponse> out) {
  const auto watcher = CO_TRY(co_await open(context, std::move(request)));
  filesystem::WatchDirResponse start;
  start.mutable_start();
  CO_TRY(co_await out.send(std::move(start)));
  const Milliseconds interval = keepalive_interval(context->request_headers);
  while (true) {
    auto events = co_await async::with_timeout(watcher->next(pool_), interval, "event");
    if (!events && events.error().code() == Code::kDeadlineExceeded) {
      filesystem::WatchDirResponse alive;
      alive.mutable_keepalive();
      CO_TRY(co_await out.send(std::move(alive)));
      continue;
    }
    if (!events) co_return fail(events.error());
    for (auto& event : *events) {
      filesystem::WatchDirResponse response;
      *response.mutable_filesystem() = std::move(event);
      CO_TRY(co_await out.send(std::move(response)));
    }
  }
}

Task<filesystem::CreateWatcherResponse> WatchService::create(Context context,
                                                             filesystem::CreateWatcherRequest request) {
  if (polled_.size() >= kMaxPolledWatchers) {
    co_return fail(Error(Code::kResourceExhausted, "too many watchers: remove those that are done with")
                       .with_reason("too_many_watchers"));
  }
  auto watcher = CO_TRY(co_await open(std::move(context), std::move(request)));
  const auto polled = std::make_shared<Polled>(executor_, std::move(watcher));
  filesystem::CreateWatcherResponse response;
  response.set_watcher_id(random_id("w-"));
  polled_[response.watcher_id()] = polled;
  nursery_.spawn("watcher", collect(polled));
  co_return response;
}

Task<> WatchService::collect(std::shared_ptr<Polled> polled) {
  const auto wait_removed = [](std::shared_ptr<Polled> p) -> Task<> {
    while (!p->removed) CO_TRY(co_await p->ended.wait());
    co_return Result<>{};
  };
  const auto gather = [](std::shared_ptr<Polled> p, asio::thread_pool* pool) -> Task<> {
    while (true) {
      auto events = co_await p->watcher->next(pool);
      if (!events && events.error().code() == Code::kCanceled) co_return fail(events.error());
      if (!events) {
        p->error = events.error();
        if (events.error().code() != Code::kDataLoss) co_return Result<>{};
        continue;
      }
      for (auto& event : *events) p->events.push_back(std::move(event));
      if (p->events.size() <= kMaxPolledEvents) continue;
      p->events.clear();
      p->error = Error(Code::kDataLoss, "too many events waited and are lost: ask more often")
                     .with_reason("watch_overflow");
    }
  };
  co_return co_await async::run_until(gather(polled, pool_), wait_removed(polled));
}

Result<std::shared_ptr<WatchService::Polled>> WatchService::find(const std::string& id) const {
  const auto found = polled_.find(id);
  if (found == polled_.end()) return fail(Code::kNotFound, "no watcher " + id);
  return found->second;
}

Task<filesystem::GetWatcherEventsResponse> WatchService::events(filesystem::GetWatcherEventsRequest request) {
  const auto polled = CO_TRY(find(request.watcher_id()));
  if (polled->error) co_return fail(*std::exchange(polled->error, std::nullopt));
  filesystem::GetWatcherEventsResponse response;
  for (auto& event : polled->events) *response.add_events() = std::move(event);
  polled->events.clear();
  co_return response;
}

Task<filesystem::RemoveWatcherResponse> WatchService::remove(filesystem::RemoveWatcherRequest request) {
  const auto polled = CO_TRY(find(request.watcher_id()));
  polled_.erase(request.watcher_id());
  polled->removed = true;
  polled->ended.notify_all();
  co_return filesystem::RemoveWatcherResponse();
}

asio::awaitable<void> WatchService::shutdown() { co_await nursery_.cancel_and_join(); }

void WatchService::serve(connect::Router* router) {
  const std::string prefix = "/filesystem.Filesystem/";
  router->server_stream<filesystem::WatchDirRequest, filesystem::WatchDirResponse>(
      prefix + "WatchDir",
      [this](Context context, filesystem::WatchDirRequest request, Writer<filesystem::WatchDirResponse> out) {
        return watch_dir(std::move(context), std::move(request), out);
      });
  router->unary<filesystem::CreateWatcherRequest, filesystem::CreateWatcherResponse>(
      prefix + "CreateWatcher", [this](Context context, filesystem::CreateWatcherRequest request) {
        return create(std::move(context), std::move(request));
      });
  router->unary<filesystem::GetWatcherEventsRequest, filesystem::GetWatcherEventsResponse>(
      prefix + "GetWatcherEvents",
      [this](Context, filesystem::GetWatcherEventsRequest request) { return events(std::move(request)); });
  router->unary<filesystem::RemoveWatcherRequest, filesystem::RemoveWatcherResponse>(
      prefix + "RemoveWatcher",
      [this](Context, filesystem::RemoveWatcherRequest request) { return remove(std::move(request)); });
}

}  // namespace wrenn::envd
