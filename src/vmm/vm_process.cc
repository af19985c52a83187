#include "vmm/vm_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "base/bytes.h"
#include "sys/file.h"
#include "vmm/death.h"
#include "vmm/limits.h"
#include "vmm/proc.h"

namespace wrenn::vmm {
namespace {

constexpr std::size_t kTailBytes = 2000;
constexpr std::size_t kMaxMapsBytes = std::size_t{4} * 1024 * 1024;
// PR_SET_MEMORY_MERGE of linux/prctl.h of kernel 6.4; Debian 12's headers are older.
constexpr int kSetMemoryMerge = 67;
// The kernel should take a VM before the agent when memory runs out.
constexpr int kOomScoreAdj = 500;

// Full size from the start and sealed: writes beyond it fail, so a guest that makes its monitor complain
// cannot fill anything.
Result<sys::Fd> make_log() {
  sys::Fd fd(::memfd_create("wrenn-vmm-log", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return fail_errno("memfd_create");
  if (::ftruncate(fd.get(), static_cast<off_t>(kMonitorLogBytes)) != 0) return fail_errno("ftruncate log");
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0)
    return fail_errno("seal log");
  return fd;
}

// For this process and, by inheritance, for monitors. Of huge pages and merged ones the kernel makes pages of
// zeros, which would then look as if the guest had never written them; page tables would be of another size
// than footprint_of has them; and an emulator's translation cache would take whole huge pages for little
// code.
void use_small_pages() {
  ::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  ::prctl(kSetMemoryMerge, 0, 0, 0, 0);
}

}  // namespace

VmProcess::VmProcess(ProcessIdentity identity, sys::Fd pidfd, std::optional<sys::ChildProcess> child,
                     sys::Fd log)
    : identity_(identity), pidfd_(std::move(pidfd)), child_(std::move(child)), log_(std::move(log)) {}

Result<VmProcess> VmProcess::start(sys::SpawnSpec spec) {
  sys::Fd log = TRY(make_log());
  if (spec.stdout_fd < 0) spec.stdout_fd = log.get();
  spec.stderr_fd = log.get();
  spec.cwd = "/";
  spec.new_session = true;
  spec.new_pid_namespace = true;
  spec.no_new_privileges = true;
  spec.oom_score_adj = kOomScoreAdj;
  spec.max_core_bytes = 0;
  use_small_pages();
  sys::ChildProcess child = TRY(sys::spawn(spec));
  // A child cannot be recycled before it is reaped, so both answers are about it.
  ProcessIdentity identity{.pid = child.pid(), .start_time = 0};
  const auto started = sys::process_start_time(child.pid());
  // Without it no later agent could tell this process from another of the same number. One that has ended
  // already says why when it is asked for.
  if (!started && started.error().code() != Code::kNotFound) {
    (void)child.signal(SIGKILL);
    return std::unexpected(started.error());
  }
  if (started) identity.start_time = *started;
  sys::Fd pidfd = TRY(sys::duplicate(child.pidfd()));
  return VmProcess(identity, std::move(pidfd), std::move(child), std::move(log));
}

Result<VmProcess> VmProcess::adopt(ProcessIdentity identity) {
  const auto gone = [&identity] {
    return fail(Code::kNotFound, fmt::format("the VM process {} is gone", identity.pid));
  };
  auto pidfd = sys::open_pidfd(identity.pid);
  if (!pidfd) {
    if (TRY(DeathProof::of(identity))) return gone();
    return std::unexpected(std::move(pidfd).error());
  }
  // Asked after the pidfd is open: from here on the number cannot pass to another process unnoticed.
  if (TRY(DeathProof::of(identity))) return gone();
  sys::Fd log(::open(fmt::format("/proc/{}/fd/2", identity.pid).c_str(), O_RDONLY | O_CLOEXEC));
  return VmProcess(identity, std::move(*pidfd), std::nullopt, std::move(log));
}

bool VmProcess::alive() const { return !sys::has_exited(pidfd_.get()); }

Task<> VmProcess::wait_gone() {
  CO_TRY(co_await sys::wait_readable(pidfd_.get()));
  if (child_) CO_TRY(child_->try_wait());
  co_return Result<>{};
}

Task<> VmProcess::hold() {
  CO_TRY(sys::signal_pidfd(pidfd_.get(), SIGSTOP));
  co_return co_await async::with_timeout(wait_held(), kCommandLimit,
                                         fmt::format("stopping VM process {}", identity_.pid));
}

// The first thread is the one that serves a monitor's devices; a vCPU's touches them for its guest only.
Task<> VmProcess::wait_held() {
  while (true) {
    const std::string stat = CO_TRY(sys::read_file(fmt::format("/proc/{}/stat", identity_.pid)));
    if (stat.find(") T ") != std::string::npos) co_return Result<>{};
    CO_TRY(co_await async::sleep_for(Milliseconds(1)));
  }
}

void VmProcess::go_on() const { (void)sys::signal_pidfd(pidfd_.get(), SIGCONT); }

Task<> VmProcess::kill() {
  killed_ = true;
  const auto sent = sys::signal_pidfd(pidfd_.get(), SIGKILL);
  if (!sent && sent.error().sys_errno() != ESRCH) co_return std::unexpected(sent.error());
  co_return co_await async::with_timeout(wait_gone(), kKillLimit,
                                         fmt::format("killing VM process {}", identity_.pid));
}

Task<> VmProcess::wait_exit() {
  CO_TRY(co_await wait_gone());
  if (killed_) co_return Result<>{};
  co_return fail(exit_error());
}

Result<VmStats> VmProcess::stats() {
  if (!alive()) return fail(exit_error());
  return read_stats(identity_.pid);
}

Result<std::string> VmProcess::maps() const {
  return sys::read_file(fmt::format("/proc/{}/maps", identity_.pid), kMaxMapsBytes);
}

Error VmProcess::exit_error() {
  std::string how = "it is gone";
  if (child_) {
    const auto status = child_->try_wait();
    if (status && *status) how = (*status)->to_string();
  }
  const std::string tail = log_tail();
  return Error(Code::kUnavailable, fmt::format("the VM process {} ended ({}){}{}", identity_.pid, how,
                                               tail.empty() ? "" : ": ", tail));
}

// The connection may break a moment before the process is gone; killing it settles both.
Task<> VmProcess::give_up(Error why, std::string monitor) {
  CO_TRY(co_await async::shielded(kill()));
  if (why.code() == Code::kCanceled) co_return fail(std::move(why));
  const std::string tail = log_tail();
  co_return fail(
      std::move(why).in(tail.empty() ? "starting the VM" : fmt::format("{} said: {}", monitor, tail)));
}

Result<> VmProcess::check_adopted(Result<> connected) const {
  if (!connected && !alive()) return fail(Code::kNotFound, "the VM process is gone");
  return connected;
}

std::string VmProcess::log_tail() const {
  if (!log_) return {};
  std::string text(kMonitorLogBytes, '\0');
  const ssize_t n = ::pread(log_.get(), text.data(), text.size(), 0);
  text.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  // The file has its full size from the start; what is not written yet is zero.
  text.resize(std::min(text.size(), text.find('\0')));
  if (text.size() > kTailBytes) text.erase(0, text.size() - kTailBytes);
  return std::string(trim(text));
}

}  // namespace wrenn::vmm
