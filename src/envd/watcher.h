#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "async/async.h"
#include "filesystem/filesystem.pb.h"
#include "sys/fd.h"

namespace wrenn::envd {

struct WatchOptions {
  bool recursive = false;
  bool include_entry = false;
  bool allow_network_mounts = false;
};

// What happens in a folder, by inotify.
class Watcher {
 public:
  using Events = std::vector<filesystem::FilesystemEvent>;

  // From its return on nothing is missed. kNotFound; kInvalidArgument (not a folder, a network filesystem);
  // kResourceExhausted (too many folders below). Blocks.
  static Result<std::unique_ptr<Watcher>> open(async::Blocking blocking, std::string path,
                                               WatchOptions options);

  // Waits for the next events, at least one. kDataLoss when the kernel dropped some; the watch goes on.
  Task<Events> next(asio::thread_pool* pool);

 private:
  Watcher(std::string path, WatchOptions options, sys::Fd fd)
      : path_(std::move(path)), options_(options), fd_(std::move(fd)) {}
  Result<Events> read_some(async::Blocking blocking);
  Result<> take(async::Blocking blocking, int watch, std::uint32_t mask, std::uint32_t cookie,
                const std::string& name, Events* out);
  Result<> take_upload(std::uint32_t mask, std::uint32_t cookie, const std::string& name, Events* out);
  Result<> add_folder(const std::string& relative);
  Result<> enter_folder(async::Blocking blocking, const std::string& relative, Events* out);
  void forget_below(const std::string& relative);
  void emit(const std::string& relative, filesystem::EventType type, Events* out);

  std::string path_;
  WatchOptions options_;
  sys::Fd fd_;
  std::map<int, std::string> folders_;     // by watch descriptor, relative; "" is the watched one
  std::map<std::uint32_t, bool> uploads_;  // by rename cookie: whether the file is new
  std::set<std::string> announced_;        // found by looking into a new folder; inotify may say it again
};

}  // namespace wrenn::envd
