#include "vmm/qemu/qemu_vm.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>

#include "base/bytes.h"
#include "sys/file.h"
#include "vmm/limits.h"
#include "vmm/proc.h"
#include "vmm/qemu/command_line.h"

namespace wrenn::vmm::qemu {
namespace {

constexpr std::size_t kTailBytes = 2000;
constexpr std::size_t kMaxMapsBytes = std::size_t{4} * 1024 * 1024;

}  // namespace

std::string qmp_path(const VmSpec& spec) { return spec.run_dir + "/qmp.sock"; }

QemuVm::QemuVm(const asio::any_io_executor& executor, VmSpec spec, ProcessIdentity process, sys::Fd pidfd,
               std::optional<sys::ChildProcess> child, sys::Fd log)
    : spec_(std::move(spec)),
      process_(process),
      pidfd_(std::move(pidfd)),
      child_(std::move(child)),
      log_(std::move(log)),
      qmp_(executor) {}

Task<> QemuVm::connect(Milliseconds limit) { return qmp_.connect(qmp_path(spec_), limit); }

Task<boost::json::value> QemuVm::command(std::string name, boost::json::object arguments,
                                         Milliseconds limit) {
  if (!alive()) co_return fail(Code::kUnavailable, describe_exit());
  if (!qmp_.connected()) CO_TRY(co_await connect(kCommandLimit));
  auto answer = co_await qmp_.execute(std::move(name), std::move(arguments), limit);
  if (!answer && answer.error().code() == Code::kUnavailable && !alive()) {
    co_return fail(Code::kUnavailable, describe_exit());
  }
  co_return answer;
}

Task<std::string> QemuVm::status() {
  const auto answer = CO_TRY(co_await command("query-status", {}, kCommandLimit));
  const auto* text = answer.is_object() ? answer.get_object().if_contains("status") : nullptr;
  if (text == nullptr || !text->is_string()) co_return fail(Code::kInternal, "QEMU sent a malformed status");
  co_return std::string(text->get_string().c_str());
}

Task<> QemuVm::load_state(FillMemory fill) {
  if (fill) {
    const RamRegion region = CO_TRY(co_await ram());
    CO_TRY(co_await fill(process_.pid, region));
  }
  CO_TRY(co_await command("migrate-incoming", {{"uri", fmt::format("fd:{}", kStateFd)}}, kCommandLimit));
  // QEMU answers from the loop that also loads, so this is rarely asked twice.
  while (CO_TRY(co_await status()) == "inmigrate") CO_TRY(co_await async::sleep_for(Milliseconds(1)));
  co_return Result<>{};
}

Task<> QemuVm::pause() {
  CO_TRY(co_await command("stop", {}, kDiskCommandLimit));
  co_return Result<>{};
}

Task<> QemuVm::resume() {
  CO_TRY(co_await command("cont", {}, kDiskCommandLimit));
  co_return Result<>{};
}

Task<> QemuVm::save_device_state(std::string path) {
  if (CO_TRY(co_await status()) == "running") {
    co_return fail(Code::kFailedPrecondition, "the VM must be paused to save its device state");
  }
  if (sys::exists(path)) co_return fail(Code::kAlreadyExists, path + " exists already");
  // live=false: the disks stay usable, so the VM may go on after the capture.
  CO_TRY(
      co_await command("xen-save-devices-state", {{"filename", path}, {"live", false}}, kDiskCommandLimit));
  if (CO_TRY(sys::file_size(path)) == 0) co_return fail(Code::kInternal, "QEMU wrote an empty device state");
  co_return Result<>{};
}

Task<RamRegion> QemuVm::ram() {
  const auto maps = CO_TRY(sys::read_file(fmt::format("/proc/{}/maps", process_.pid), kMaxMapsBytes));
  co_return find_ram(maps, static_cast<std::uint64_t>(spec_.shape.memory_mib) << 20);
}

bool QemuVm::alive() const {
  pollfd poller{.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
  return ::poll(&poller, 1, 0) == 0;
}

Task<> QemuVm::wait_gone() {
  CO_TRY(co_await sys::wait_readable(pidfd_.get()));
  if (child_) CO_TRY(child_->try_wait());
  co_return Result<>{};
}

Task<> QemuVm::kill() {
  killed_ = true;
  const auto sent = sys::signal_pidfd(pidfd_.get(), SIGKILL);
  if (!sent && sent.error().sys_errno() != ESRCH) co_return std::unexpected(sent.error());
  CO_TRY(co_await async::with_timeout(wait_gone(), kKillLimit,
                                      fmt::format("killing VM process {}", process_.pid)));
  qmp_.close();
  co_return Result<>{};
}

Task<> QemuVm::wait_exit() {
  CO_TRY(co_await wait_gone());
  if (killed_) co_return Result<>{};
  co_return fail(Code::kUnavailable, describe_exit());
}

std::string QemuVm::describe_exit() {
  std::string how = "it is gone";
  if (child_) {
    const auto status = child_->try_wait();
    if (status && *status) how = (*status)->to_string();
  }
  const std::string tail = log_tail();
  return fmt::format("the VM process {} ended ({}){}{}", process_.pid, how, tail.empty() ? "" : ": ", tail);
}

std::string QemuVm::log_tail() const {
  if (!log_) return {};
  std::string text(kMonitorLogBytes, '\0');
  const ssize_t n = ::pread(log_.get(), text.data(), text.size(), 0);
  text.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  // The file has its full size from the start; what is not written yet is zero.
  text.resize(std::min(text.size(), text.find('\0')));
  if (text.size() > kTailBytes) text.erase(0, text.size() - kTailBytes);
  return std::string(trim(text));
}

Task<VmStats> QemuVm::stats() {
  if (!alive()) co_return fail(Code::kUnavailable, describe_exit());
  co_return read_stats(process_.pid);
}

}  // namespace wrenn::vmm::qemu
