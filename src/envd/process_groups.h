#pragma once

#include <list>
#include <optional>
#include <string>
#include <vector>

#include "async/blocking.h"
#include "async/task.h"
#include "base/result.h"

namespace wrenn::envd {

// The guest's cgroup v2 tree: user/<n> and pty/<n> hold one process of the API each, with all that it starts.
// Terminals get more of the CPU than commands; neither may take the last of the memory. Where there is no
// cgroup v2 (outside of a guest) processes run without. Calls are short,
// for control files of the kernel.
class ProcessGroups {
 public:
  enum class Kind { kUser, kPty };

  // Below `root` (/sys/fs/cgroup in a guest); empty: no groups.
  explicit ProcessGroups(std::string root);
  ProcessGroups(const ProcessGroups&) = delete;
  ProcessGroups& operator=(const ProcessGroups&) = delete;
  ~ProcessGroups();

  // A new group's folder; nullopt without cgroups. kUnavailable while frozen: a process that joined then
  // would stop before it runs its program.
  Result<std::optional<std::string>> add(Kind kind);
  // Ends every process of the group and of groups below it, wherever it went and however fast it forks.
  static Result<> kill(const std::string& group);
  // The process of the group has ended. The group goes once the last of what it started has.
  void release(std::string group);

  // Asks the kernel to stop every process of the API; answers the folders of the groups that will.
  std::vector<std::string> freeze();
  // How many of those groups stand still, waiting for them until `limit` has passed.
  static int count_frozen(async::Blocking blocking, const std::vector<std::string>& groups,
                          Milliseconds limit);
  Result<> thaw();
  bool frozen() const { return frozen_; }

 private:
  Result<> set_up();
  void sweep();

  std::string root_;
  std::uint64_t next_ = 0;
  std::list<std::string> emptying_;
  bool frozen_ = false;
};

}  // namespace wrenn::envd
