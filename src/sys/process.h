#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "async/blocking.h"
#include "async/task.h"
#include "base/result.h"
#include "sys/fd.h"

// Child processes: started without copying the address space (vfork semantics), watched by pidfd.
namespace wrenn::sys {

struct Credentials {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
};

// A file system of its own for a child: `root` becomes its `/`, and of the host it sees only what is bound.
struct Jail {
  struct Bind {
    std::string source;  // on the host: a file or folder
    std::string target;  // exists below root, as a host path; mounted read-only, without set-uid and devices
  };
  std::string root;
  std::vector<Bind> binds;
};

struct SpawnSpec {
  // argv[0] is searched in the child's PATH unless it holds a slash.
  std::vector<std::string> argv;
  // "NAME=value" each; nullopt: the parent's environment.
  std::optional<std::vector<std::string>> env;
  std::string cwd;  // empty: the parent's
  // Descriptors of the parent that become 0, 1, 2; -1: /dev/null. They stay the caller's.
  int stdin_fd = -1;
  int stdout_fd = -1;
  int stderr_fd = -1;
  // Further descriptors as {parent's, child's (>= 3)}. Every other one is closed.
  std::vector<std::pair<int, int>> extra_fds;
  bool new_session = false;           // setsid: own session and process group
  bool controlling_terminal = false;  // descriptor 0 becomes it; needs new_session
  std::optional<Credentials> credentials;
  std::optional<Jail> jail;        // needs root; argv[0], env and cwd are then of the jail
  bool new_pid_namespace = false;  // and of IPC; the child is its first process, and all die with it
  bool no_new_privileges = false;  // nothing it executes can gain any
  bool ignores_sync = false;       // its fsync() and fdatasync() do nothing; needs root
  std::string netns;               // path of a network namespace to enter
  std::vector<std::string> cgroup_procs_files;  // the child writes its pid to each before exec
  std::optional<int> oom_score_adj;
  std::optional<int> nice;
  std::optional<std::uint64_t> max_open_files;  // soft limit; unset: the parent's
  std::optional<std::uint64_t> max_core_bytes;  // unset: the parent's
  std::optional<std::uint64_t> max_file_bytes;  // that it may write files to; unset: the parent's
  // True: when exec fails the child says so on its stderr and exits with 127 (126 if not executable), as a
  // shell does. False: spawn() fails.
  bool exec_failure_exits = false;
};

struct ExitStatus {
  int exit_code = 0;  // valid when signal is 0
  int signal = 0;     // that ended the process
  bool ok() const { return signal == 0 && exit_code == 0; }
  std::string to_string() const;  // "exit status 3", "signal: killed"
};

// A child. Destroying the handle neither kills nor reaps it in time: call wait() (or kill_and_wait()); a
// child abandoned on purpose is reaped when the parent ends.
class ChildProcess {
 public:
  ChildProcess(pid_t pid, Fd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}
  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }
  // Safe against pid reuse. kNotFound once it is gone.
  Result<> signal(int number) const;
  // Signals the process group led by the child (new_session).
  Result<> signal_group(int number) const;
  // Waits until it has exited, reaps it, remembers the answer for later calls. Cancelling leaves it running.
  Task<ExitStatus> wait();
  // Nullopt while it runs. Does not block.
  Result<std::optional<ExitStatus>> try_wait();
  // wait() for a thread without a loop; kDeadlineExceeded.
  Result<ExitStatus> wait_blocking(async::Blocking blocking, Milliseconds limit);

 private:
  pid_t pid_;
  Fd pidfd_;
  std::optional<ExitStatus> status_;
};

// Errors name the step that failed ("exec", "chdir", "setns", ...). Returns after the child's exec.
Result<ChildProcess> spawn(const SpawnSpec& spec);

struct RunOutput {
  ExitStatus status;
  std::string stdout_text;
  std::string stderr_text;
};
// Runs a program to its end and collects its output (each stream cut at `max_output`). Killed and
// kDeadlineExceeded when it takes longer than `limit`.
Result<RunOutput> run(async::Blocking blocking, SpawnSpec spec, Milliseconds limit,
                      std::string_view input = {}, std::size_t max_output = std::size_t{1024} * 1024);
// As run; a status other than 0 is kInternal "<argv[0]>: exit status 1: <stderr>".
Result<std::string> run_checked(async::Blocking blocking, SpawnSpec spec, Milliseconds limit,
                                std::string_view input = {});

// Lets this process have up to `wanted` descriptors, as far as it may; children inherit that.
void raise_open_files(std::uint64_t wanted);

// For PID 1: reaps every exited child that spawn() did not start, and keeps the status of those it did for
// their wait(). Call on SIGCHLD. Returns how many orphans it reaped.
int reap_orphans();

// Any process, for adopted ones. kNotFound when there is none.
Result<Fd> open_pidfd(pid_t pid);
Result<> signal_pidfd(int pidfd, int number);
// True once the process has ended; false also while that cannot be told.
bool has_exited(int pidfd);
// Field 22 of /proc/PID/stat; together with the pid it names a process for ever. kNotFound when gone (a
// zombie counts as gone), and only then.
Result<std::uint64_t> process_start_time(pid_t pid);

struct Pty {
  Fd master;
  Fd slave;
  std::string slave_path;
};
// The slave belongs to `owner`.
Result<Pty> open_pty(std::uint16_t cols, std::uint16_t rows, uid_t owner = 0);
Result<> resize_pty(int master, std::uint16_t cols, std::uint16_t rows);

}  // namespace wrenn::sys
