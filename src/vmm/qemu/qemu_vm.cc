#include "vmm/qemu/qemu_vm.h"

#include <fmt/format.h>

#include "sys/file.h"
#include "vmm/jail.h"
#include "vmm/limits.h"
#include "vmm/qemu/command_line.h"

namespace wrenn::vmm::qemu {

std::string qmp_path(const VmSpec& spec) { return spec.run_dir + "/qmp.sock"; }

std::string jail_path(const VmSpec& spec) { return spec.run_dir + "/jail"; }

QemuVm::QemuVm(const asio::any_io_executor& executor, asio::thread_pool* pool, VmSpec spec, VmProcess process)
    : pool_(pool),
      spec_(std::move(spec)),
      process_(std::move(process)),
      commands_(executor),
      qmp_(executor) {}

Task<> QemuVm::connect(Milliseconds limit) { return qmp_.connect(qmp_path(spec_), limit); }

Task<boost::json::value> QemuVm::command(std::string name, boost::json::object arguments,
                                         Milliseconds limit) {
  const auto turn = CO_TRY(co_await commands_.lock());
  if (!alive()) co_return fail(process_.exit_error());
  if (!qmp_.connected()) CO_TRY(co_await connect(kCommandLimit));
  auto answer = co_await qmp_.execute(std::move(name), std::move(arguments), limit);
  if (!answer && answer.error().code() == Code::kUnavailable && !alive()) {
    co_return fail(process_.exit_error());
  }
  co_return answer;
}

Task<std::string> QemuVm::status() {
  const auto answer = CO_TRY(co_await command("query-status", {}, kCommandLimit));
  const auto* text = answer.is_object() ? answer.get_object().if_contains("status") : nullptr;
  if (text == nullptr || !text->is_string()) co_return fail(Code::kInternal, "QEMU sent a malformed status");
  // The answer is younger than any event that came before it.
  qmp_.forget_news();
  // The one reason for this status: QEMU tells the guest of all other errors (command_line.cc).
  disk_full_ = text->get_string() == "io-error";
  co_return std::string(text->get_string().c_str());
}

Task<> QemuVm::load_state(sys::StoredPages pages) {
  if (!pages.path.empty()) {
    sys::ProcessMemory memory = CO_TRY(co_await ram());
    CO_TRY(co_await async::offload(*pool_, [memory = std::move(memory), pages](async::Blocking blocking) {
      return sys::load_pages(blocking, memory, pages);
    }));
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
  const std::string jail = jail_path(spec_);
  CO_TRY(co_await async::offload(*pool_, [jail, spec = spec_](async::Blocking blocking) {
    return add_output(blocking, jail, spec, kJailSaved);
  }));
  // live=false: the disks stay usable, so the VM may go on after the capture.
  CO_TRY(co_await command("xen-save-devices-state", {{"filename", kJailSaved}, {"live", false}},
                          kDiskCommandLimit));
  CO_TRY(co_await async::offload(*pool_, [jail, path](async::Blocking blocking) {
    return take_output(blocking, jail, kJailSaved, path);
  }));
  if (CO_TRY(sys::file_size(path)) == 0) co_return fail(Code::kInternal, "QEMU wrote an empty device state");
  co_return Result<>{};
}

Task<sys::ProcessMemory> QemuVm::ram() {
  co_return find_ram(CO_TRY(process_.maps()), process().pid, spec_.shape.memory_bytes());
}

Task<int> QemuVm::reclaim(int /*mib*/, Milliseconds /*limit*/) {
  co_return fail(Code::kUnimplemented, "QEMU takes no memory from its guests");
}

Task<> QemuVm::kill() {
  CO_TRY(co_await process_.kill());
  qmp_.close();
  co_return Result<>{};
}

Task<> QemuVm::wait_exit() { return process_.wait_exit(); }

Task<VmStats> QemuVm::stats() {
  VmStats stats = CO_TRY(process_.stats());
  // Asked only after an event, and not behind a command that may take long.
  if (!commands_.locked() && (!qmp_.connected() || qmp_.has_news())) CO_TRY(co_await status());
  stats.disk_full = disk_full_;
  co_return stats;
}

}  // namespace wrenn::vmm::qemu
