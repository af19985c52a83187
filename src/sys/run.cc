#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>

#include "base/bytes.h"
#include "sys/process.h"

namespace wrenn::sys {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaxErrorText = 2000;
constexpr Milliseconds kKillGrace{5'000};

// The three pipes of a running program, moved by poll.
struct Pump {
  Fd input;
  Fd output;
  Fd errors;
  std::string_view pending;
  std::size_t max_output;
  RunOutput* result;

  void feed() {
    const ssize_t put = ::write(input.get(), pending.data(), pending.size());
    if (put > 0) pending.remove_prefix(static_cast<std::size_t>(put));
    // EPIPE: the program does not want more.
    if (pending.empty() || (put < 0 && errno != EAGAIN && errno != EINTR)) input.reset();
  }

  void drain(Fd* from, std::string* into) const {
    std::array<char, 32 * 1024> buffer;
    const ssize_t got = ::read(from->get(), buffer.data(), buffer.size());
    if (got > 0) {
      into->append(buffer.data(), std::min(static_cast<std::size_t>(got), max_output - into->size()));
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
      from->reset();
    }
  }

  // False when nothing is left to move.
  Result<bool> step(Milliseconds left) {
    if (!output && !errors) return false;
    std::array<pollfd, 3> entries = {pollfd{input.get(), POLLOUT, 0}, pollfd{output.get(), POLLIN, 0},
                                     pollfd{errors.get(), POLLIN, 0}};
    const int ready = ::poll(entries.data(), entries.size(), static_cast<int>(left.count()));
    if (ready < 0 && errno != EINTR) return fail_errno("poll");
    if (ready <= 0) return true;
    if (entries[0].revents != 0) feed();
    if (entries[1].revents != 0) drain(&output, &result->stdout_text);
    if (entries[2].revents != 0) drain(&errors, &result->stderr_text);
    return true;
  }
};

// Writing to a program that closed its input must be an error, not a signal.
class IgnoredSigpipe {
 public:
  IgnoredSigpipe() {
    ::sigemptyset(&set_);
    ::sigaddset(&set_, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &set_, &old_);
  }
  IgnoredSigpipe(const IgnoredSigpipe&) = delete;
  IgnoredSigpipe& operator=(const IgnoredSigpipe&) = delete;
  ~IgnoredSigpipe() {
    if (::sigismember(&old_, SIGPIPE) == 0) {
      const timespec now{};
      while (::sigtimedwait(&set_, nullptr, &now) > 0) {
      }
    }
    ::pthread_sigmask(SIG_SETMASK, &old_, nullptr);
  }

 private:
  sigset_t set_{};
  sigset_t old_{};
};

Milliseconds until(Clock::time_point deadline) {
  return std::max(Milliseconds(0), std::chrono::duration_cast<Milliseconds>(deadline - Clock::now()));
}

}  // namespace

Result<RunOutput> run(async::Blocking blocking, SpawnSpec spec, Milliseconds limit, std::string_view input,
                      std::size_t max_output) {
  const auto deadline = Clock::now() + limit;
  const IgnoredSigpipe no_sigpipe;
  RunOutput result;
  Pipe in = TRY(make_pipe());
  Pipe out = TRY(make_pipe());
  Pipe err = TRY(make_pipe());
  TRY(set_nonblocking(in.write.get()));
  spec.stdin_fd = in.read.get();
  spec.stdout_fd = out.write.get();
  spec.stderr_fd = err.write.get();
  spec.new_session = true;
  ChildProcess child = TRY(spawn(spec));
  in.read.reset();
  out.write.reset();
  err.write.reset();
  if (input.empty()) in.write.reset();
  Pump pump{std::move(in.write), std::move(out.read), std::move(err.read), input, max_output, &result};

  const auto finish = [&]() -> Result<ExitStatus> {
    while (Clock::now() < deadline) {
      if (!TRY(pump.step(until(deadline)))) return child.wait_blocking(blocking, until(deadline));
    }
    return fail(Code::kDeadlineExceeded, "timed out");
  };
  const Result<ExitStatus> status = finish();
  if (!status) {
    (void)child.signal_group(SIGKILL);
    (void)child.wait_blocking(blocking, kKillGrace);
    if (status.error().code() != Code::kDeadlineExceeded) return fail(status.error());
    return fail(Code::kDeadlineExceeded,
                fmt::format("{} took longer than {} ms", spec.argv[0], limit.count()));
  }
  result.status = *status;
  return result;
}

Result<std::string> run_checked(async::Blocking blocking, SpawnSpec spec, Milliseconds limit,
                                std::string_view input) {
  const std::string name = spec.argv.empty() ? "" : spec.argv[0];
  RunOutput output = TRY(run(blocking, std::move(spec), limit, input));
  if (output.status.ok()) return std::move(output.stdout_text);
  const std::string_view text = trim(output.stderr_text);
  return fail(Code::kInternal,
              fmt::format("{}: {}: {}", name, output.status.to_string(), text.substr(0, kMaxErrorText)));
}

}  // namespace wrenn::sys
