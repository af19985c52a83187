#include "sys/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "sys/child_table.h"
#include "sys/file.h"

namespace wrenn::sys {
namespace {

ExitStatus from_siginfo(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED) return {.exit_code = info.si_status, .signal = 0};
  return {.exit_code = -1, .signal = info.si_status};
}

std::string signal_name(int number) {
  switch (number) {
    case SIGKILL:
      return "killed";
    case SIGTERM:
      return "terminated";
    case SIGINT:
      return "interrupt";
    case SIGHUP:
      return "hangup";
    case SIGSEGV:
      return "segmentation fault";
    case SIGABRT:
      return "aborted";
    case SIGPIPE:
      return "broken pipe";
    default: {
      const char* text = ::sigdescr_np(number);
      std::string name = text != nullptr ? text : std::to_string(number);
      for (char& c : name) c = (c >= 'A' && c <= 'Z') ? static_cast<char>(c - 'A' + 'a') : c;
      return name;
    }
  }
}

}  // namespace

std::string ExitStatus::to_string() const {
  if (signal != 0) return "signal: " + signal_name(signal);
  return fmt::format("exit status {}", exit_code);
}

Result<> signal_pidfd(int pidfd, int number) {
  if (::syscall(SYS_pidfd_send_signal, pidfd, number, nullptr, 0) != 0)
    return fail_errno("pidfd_send_signal");
  return {};
}

Result<> ChildProcess::signal(int number) const {
  if (status_) return fail(Code::kNotFound, "the process has exited");
  return signal_pidfd(pidfd_.get(), number);
}

Result<> ChildProcess::signal_group(int number) const {
  // The group may outlive its leader, and its id stays taken as long as a member lives; before the leader is
  // reaped it cannot be reused at all.
  if (status_) return fail(Code::kNotFound, "the process has exited");
  if (::kill(-pid_, number) != 0) return fail_errno("kill process group");
  return {};
}

Result<std::optional<ExitStatus>> ChildProcess::try_wait() {
  if (status_) return status_;
  siginfo_t info{};
  if (child_table::collect(pid_, &info)) {
    if (info.si_pid != 0) status_ = from_siginfo(info);
    return status_;
  }
  return fail_errno("waitid");
}

Task<ExitStatus> ChildProcess::wait() {
  while (true) {
    const auto status = CO_TRY(try_wait());
    if (status) co_return *status;
    CO_TRY(co_await wait_readable(pidfd_.get()));
  }
}

Result<ExitStatus> ChildProcess::wait_blocking(async::Blocking /*blocking*/, Milliseconds limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (true) {
    const auto status = TRY(try_wait());
    if (status) return *status;
    const auto left =
        std::chrono::duration_cast<Milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    if (left <= 0) return fail(Code::kDeadlineExceeded, fmt::format("pid {} did not exit in time", pid_));
    pollfd entry{.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&entry, 1, static_cast<int>(left)) < 0 && errno != EINTR) return fail_errno("poll");
  }
}

Result<Fd> open_pidfd(pid_t pid) {
  Fd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!fd) return fail_errno(fmt::format("pidfd_open {}", pid));
  return fd;
}

bool has_exited(int pidfd) {
  pollfd entry{.fd = pidfd, .events = POLLIN, .revents = 0};
  return ::poll(&entry, 1, 0) == 1 && (entry.revents & POLLIN) != 0;
}

Result<std::uint64_t> process_start_time(pid_t pid) {
  auto stat = read_file(fmt::format("/proc/{}/stat", pid), 4096);
  if (!stat) {
    const int why = stat.error().sys_errno();
    if (why != ENOENT && why != ESRCH) return std::unexpected(std::move(stat).error());
    return fail(Code::kNotFound, fmt::format("no process {}", pid));
  }
  // The name may hold spaces and parentheses; fields are counted from the last ')'.
  const auto close = stat->rfind(')');
  if (close == std::string::npos || close + 2 >= stat->size()) return fail(Code::kInternal, "bad /proc stat");
  const char state = (*stat)[close + 2];
  if (state == 'Z' || state == 'X') return fail(Code::kNotFound, fmt::format("process {} has exited", pid));
  constexpr int kFieldsFromState = 19;  // state is field 3, start time field 22
  std::size_t at = close + 2;
  for (int i = 0; i < kFieldsFromState; ++i) {
    at = stat->find(' ', at);
    if (at == std::string::npos) return fail(Code::kInternal, "bad /proc stat");
    ++at;
  }
  return std::strtoull(stat->c_str() + at, nullptr, 10);
}

Result<Pty> open_pty(std::uint16_t cols, std::uint16_t rows, uid_t owner) {
  Pty pty;
  pty.master = TRY(open_file("/dev/ptmx", O_RDWR | O_NOCTTY));
  int unlock = 0;
  unsigned int number = 0;
  if (::ioctl(pty.master.get(), TIOCSPTLCK, &unlock) != 0) return fail_errno("TIOCSPTLCK");
  if (::ioctl(pty.master.get(), TIOCGPTN, &number) != 0) return fail_errno("TIOCGPTN");
  pty.slave_path = fmt::format("/dev/pts/{}", number);
  pty.slave = TRY(open_file(pty.slave_path, O_RDWR | O_NOCTTY));
  TRY(resize_pty(pty.master.get(), cols, rows));
  if (owner != 0 && ::fchown(pty.slave.get(), owner, static_cast<gid_t>(-1)) != 0)
    return fail_errno("chown pty");
  return pty;
}

Result<> resize_pty(int master, std::uint16_t cols, std::uint16_t rows) {
  const winsize size{.ws_row = rows, .ws_col = cols, .ws_xpixel = 0, .ws_ypixel = 0};
  if (::ioctl(master, TIOCSWINSZ, &size) != 0) return fail_errno("TIOCSWINSZ");
  return {};
}

void raise_open_files(std::uint64_t wanted) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  // Root may raise the hard limit too; others take what they have.
  rlimit higher{.rlim_cur = wanted, .rlim_max = std::max<rlim_t>(limit.rlim_max, wanted)};
  if (::setrlimit(RLIMIT_NOFILE, &higher) == 0) return;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, wanted);
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace wrenn::sys
