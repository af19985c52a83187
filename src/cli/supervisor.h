#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/async.h"
#include "sys/process.h"

// Keeps child programs running: starts them, restarts what dies with growing pauses, bounds their logs, and
// stops them in order.
namespace wrenn::cli {

struct Program {
  std::string name;
  std::vector<std::string> argv;
  std::vector<std::string> env;
  std::string log_path;  // output is appended; see trim_log
  // Answers once the program serves; polled after each start.
  std::function<Task<>()> ready;
};

// A process named for ever: pids are reused, start times are not.
struct ProcessName {
  std::string name;
  pid_t pid = 0;
  std::uint64_t start_time = 0;
};
bool is_alive(const ProcessName& process);

struct SupervisorOptions {
  Milliseconds ready_limit{30'000};
  Milliseconds first_backoff{500};
  Milliseconds max_backoff{30'000};
  Milliseconds healthy_after{60'000};
  Milliseconds stop_limit{60'000};
  std::uint64_t max_log_bytes = 10 * 1024 * 1024;
};

class Supervisor {
 public:
  // `changed` is called whenever a child was started, with the children that run.
  Supervisor(SupervisorOptions options, std::function<void(const std::vector<ProcessName>&)> changed);

  // Starts the program and waits until it is ready. When it exits or stays silent before, the error ends with
  // what it last logged.
  Task<> start(Program program);
  // Restarts what dies and trims the logs until cancelled.
  Task<> watch();
  // Ends the children, last started first: SIGTERM, then SIGKILL after the limit. Not cancellable.
  Task<> stop();

 private:
  struct Child {
    Program program;
    std::optional<sys::ChildProcess> process;
    std::uint64_t start_time = 0;
    std::chrono::steady_clock::time_point started;
    std::chrono::steady_clock::time_point restart_at;
    Milliseconds backoff{0};
  };
  Result<> launch(Child* child);
  Task<> wait_ready(Child* child);
  void restart_if_dead(Child* child);
  Task<> stop_all();
  Task<> stop_one(Child* child);
  void announce();

  SupervisorOptions options_;
  std::function<void(const std::vector<ProcessName>&)> changed_;
  std::vector<std::unique_ptr<Child>> children_;
};

// Moves the file's content to `path`.1 once it is larger than `limit` and empties it; writers must append.
Result<> trim_log(const std::string& path, std::uint64_t limit);
// The last `lines` lines, for error messages.
std::string log_tail(const std::string& path, std::size_t lines);

}  // namespace wrenn::cli
