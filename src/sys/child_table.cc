#include "sys/child_table.h"

#include <sys/wait.h>

#include <cerrno>
#include <optional>
#include <unordered_map>

#include "sys/process.h"

namespace wrenn::sys {
namespace child_table {
namespace {

struct Table {
  std::mutex mutex;
  // Children of spawn() not collected yet; a value once reap_orphans() came first.
  std::unordered_map<pid_t, std::optional<siginfo_t>> children;
};

Table& table() {
  static Table* const instance = new Table;  // used by pool threads until the very end: never destroyed
  return *instance;
}

}  // namespace

std::unique_lock<std::mutex> lock() { return std::unique_lock(table().mutex); }

void add(pid_t pid) { table().children[pid] = std::nullopt; }

bool collect(pid_t pid, siginfo_t* out) {
  const auto guard = lock();
  auto& children = table().children;
  const auto found = children.find(pid);
  if (found != children.end() && found->second) {
    *out = *found->second;
    children.erase(found);
    return true;
  }
  *out = {};
  int result = 0;
  do {
    result = ::waitid(P_PID, static_cast<id_t>(pid), out, WEXITED | WNOHANG);
  } while (result != 0 && errno == EINTR);
  if (result == 0 && out->si_pid != 0) children.erase(pid);
  return result == 0;
}

}  // namespace child_table

int reap_orphans() {
  int reaped = 0;
  const auto guard = child_table::lock();
  while (true) {
    siginfo_t info{};
    if (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG) != 0) {
      if (errno == EINTR) continue;
      return reaped;
    }
    if (info.si_pid == 0) return reaped;
    auto& children = child_table::table().children;
    const auto found = children.find(info.si_pid);
    if (found == children.end()) {
      ++reaped;
    } else {
      found->second = info;
    }
  }
}

}  // namespace wrenn::sys
