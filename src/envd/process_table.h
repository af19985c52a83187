#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>

#include "async/async.h"
#include "envd/process_groups.h"
#include "envd/session.h"
#include "process/process.pb.h"
#include "sys/process.h"

namespace wrenn::envd {

using process::ProcessEvent;
using EventChannel = async::Channel<ProcessEvent>;

// A subscriber's end; dropping it stops the delivery without disturbing anyone else.
class Subscription {
 public:
  explicit Subscription(std::shared_ptr<EventChannel> channel) : channel_(std::move(channel)) {}
  Subscription(Subscription&&) noexcept = default;
  Subscription& operator=(Subscription&&) = delete;
  ~Subscription() {
    if (channel_) channel_->close();
  }
  EventChannel* channel() const { return channel_.get(); }

 private:
  std::shared_ptr<EventChannel> channel_;
};

struct StartSpec {
  process::StartRequest request;
  sys::User user;
  std::string cwd;
  std::vector<std::string> env;
  std::optional<Milliseconds> lifetime;  // killed with all that it started after this
};

// kInvalidArgument, field "cwd", for what is no folder. It may lie on a file system of the guest's own that
// does not answer.
Result<> check_cwd(async::Blocking blocking, const std::string& cwd);

// The processes started through the API. Output goes to whoever listens; a listener that lags holds the
// process back, one that left does not.
class ProcessTable {
 public:
  ProcessTable(asio::any_io_executor executor, ProcessGroups* groups);
  ~ProcessTable();

  // The first event of the subscription is start. kResourceExhausted when too many run. The cwd is checked.
  Result<Subscription> start(StartSpec spec);
  // start, then what follows; or start and end of a process that ended within the last 30 s.
  Result<Subscription> connect(const process::ProcessSelector& selector);
  std::vector<process::ProcessInfo> list() const;
  Result<> resize(const process::ProcessSelector& selector, const process::PTY& pty);
  Task<> send_input(process::ProcessSelector selector, process::ProcessInput input);
  // SIGKILL ends the process with all that it started, also what left its process group; other signals go to
  // that group.
  Result<> signal(const process::ProcessSelector& selector, int number);
  Result<> close_stdin(const process::ProcessSelector& selector);
  // Kills what runs and waits for it.
  asio::awaitable<void> shutdown();

 private:
  struct Entry;
  struct Ended;
  Result<std::shared_ptr<Entry>> find(const process::ProcessSelector& selector) const;
  static Task<> wait_exited(std::shared_ptr<Entry> entry);
  static void kill_all_of(const Entry& entry);
  Task<> supervise(std::shared_ptr<Entry> entry);
  Task<> pump(std::shared_ptr<Entry> entry, int fd, int kind);
  Task<> publish(std::shared_ptr<Entry> entry, ProcessEvent event);
  Task<> enforce_lifetime(std::shared_ptr<Entry> entry, Milliseconds lifetime);
  void remember(const Entry& entry, ProcessEvent end);

  asio::any_io_executor executor_;
  ProcessGroups* groups_;
  std::map<std::uint32_t, std::shared_ptr<Entry>> entries_;
  std::list<Ended> ended_;
  async::Nursery nursery_;
};

}  // namespace wrenn::envd
