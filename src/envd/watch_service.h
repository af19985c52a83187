#pragma once

#include <map>
#include <memory>
#include <string>

#include "connect/connect.h"
#include "envd/session.h"
#include "envd/watcher.h"

namespace wrenn::envd {

// The watching calls of filesystem.Filesystem, and the watchers that clients ask for events.
class WatchService {
 public:
  WatchService(asio::any_io_executor executor, asio::thread_pool* pool, const Settings* settings);
  ~WatchService();
  // The router must not outlive this.
  void serve(connect::Router* router);
  // Ends every watch.
  asio::awaitable<void> shutdown();

 private:
  struct Polled;
  template <class Request>
  Task<std::unique_ptr<Watcher>> open(connect::Context context, Request request);
  Task<> watch_dir(connect::Context context, filesystem::WatchDirRequest request,
                   connect::Writer<filesystem::WatchDirResponse> out);
  Task<filesystem::CreateWatcherResponse> create(connect::Context context,
                                                 filesystem::CreateWatcherRequest request);
  Task<filesystem::GetWatcherEventsResponse> events(filesystem::GetWatcherEventsRequest request);
  Task<filesystem::RemoveWatcherResponse> remove(filesystem::RemoveWatcherRequest request);
  Task<> collect(std::shared_ptr<Polled> polled);
  Result<std::shared_ptr<Polled>> find(const std::string& id) const;

  asio::any_io_executor executor_;
  asio::thread_pool* pool_;
  const Settings* settings_;
  std::map<std::string, std::shared_ptr<Polled>> polled_;
  async::Nursery nursery_;
};

}  // namespace wrenn::envd
