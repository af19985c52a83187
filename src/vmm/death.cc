#include "vmm/death.h"

#include <poll.h>

#include <cerrno>

#include "sys/process.h"

namespace wrenn::vmm {

std::optional<DeathProof> DeathProof::of(const Vm& vm) {
  if (vm.alive()) return std::nullopt;
  return DeathProof();
}

Result<std::optional<DeathProof>> DeathProof::of(const ProcessIdentity& process) {
  using Answer = std::optional<DeathProof>;
  if (process.pid <= 0) return fail(Code::kInvalidArgument, "no VM process is known");
  auto pidfd = sys::open_pidfd(process.pid);
  if (!pidfd) {
    // No process has the number, or a thread of another process does.
    const int why = pidfd.error().sys_errno();
    if (why == ESRCH || why == EINVAL || why == ENOENT) return Answer(DeathProof());
    return std::unexpected(std::move(pidfd).error());
  }
  // Asked after the pidfd is open: whoever has the number now keeps it meanwhile, or the pidfd tells.
  const auto started = sys::process_start_time(process.pid);
  if (sys::has_exited(pidfd->get())) return Answer(DeathProof());
  if (!started) return std::unexpected(started.error());
  // A start time that was never learned tells nothing.
  if (process.start_time != 0 && *started != process.start_time) return Answer(DeathProof());
  return Answer(std::nullopt);
}

}  // namespace wrenn::vmm
