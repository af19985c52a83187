#include "vmm/firecracker/firecracker_vm.h"

#include "sys/file.h"
#include "vmm/jail.h"
#include "vmm/limits.h"

namespace wrenn::vmm::firecracker {
namespace {

// What a save writes of the RAM, which the capture takes from the process itself.
constexpr const char* kSavedMemory = "/saved-memory";

}  // namespace

FirecrackerVm::FirecrackerVm(const asio::any_io_executor& executor, VmSpec spec, VmProcess process)
    : spec_(std::move(spec)), process_(std::move(process)), api_(executor, socket_path(spec_)) {}

// The process may end before it has made its socket, and nobody would ever answer then.
Task<> FirecrackerVm::connect(Milliseconds limit) {
  auto gone = [](FirecrackerVm* self) -> Task<> {
    while (self->alive()) CO_TRY(co_await async::sleep_for(Milliseconds(5)));
    co_return Result<>{};
  };
  const Result<> ready = co_await async::run_until(api_.wait_ready(limit), gone(this));
  if (!ready && !alive()) co_return fail(process_.exit_error());
  co_return ready;
}

Task<> FirecrackerVm::command(std::string method, std::string target, boost::json::object body,
                              Milliseconds limit) {
  if (!alive()) co_return fail(process_.exit_error());
  Result<> done = co_await api_.request(std::move(method), std::move(target), std::move(body), limit);
  if (!done && done.error().code() == Code::kUnavailable && !alive()) co_return fail(process_.exit_error());
  co_return done;
}

Task<> FirecrackerVm::load_state(Version version, FillMemory fill) {
  CO_TRY(co_await command("PUT", "/snapshot/load", load_request(version), kDiskCommandLimit));
  if (!fill) co_return Result<>{};
  const RamRegion region = CO_TRY(co_await ram());
  co_return co_await fill(process().pid, region);
}

Task<> FirecrackerVm::set_state(std::string state) {
  co_return co_await command("PATCH", "/vm", {{"state", state}}, kDiskCommandLimit);
}

Task<> FirecrackerVm::pause() { return set_state("Paused"); }

Task<> FirecrackerVm::resume() { return set_state("Resumed"); }

Task<> FirecrackerVm::save_device_state(std::string path) {
  if (sys::exists(path)) co_return fail(Code::kAlreadyExists, path + " exists already");
  const std::string jail = jail_path(spec_);
  CO_TRY(add_output(jail, spec_, kJailSaved));
  CO_TRY(add_output(jail, spec_, kSavedMemory));
  const Result<> saved =
      co_await command("PUT", "/snapshot/create", save_request(kJailSaved, kSavedMemory), kDiskCommandLimit);
  CO_TRY(sys::remove_file(jail + kSavedMemory));
  CO_TRY(saved);
  co_return take_output(jail, kJailSaved, path);
}

// A VM that was booted here has its memory from nowhere, one that was loaded from the memory file.
Task<RamRegion> FirecrackerVm::ram() {
  const auto of_file = process_.ram(spec_.shape.memory_mib, RamKind::kFile);
  co_return of_file ? of_file : process_.ram(spec_.shape.memory_mib, RamKind::kAnonymous);
}

Task<VmStats> FirecrackerVm::stats() { co_return process_.stats(); }

}  // namespace wrenn::vmm::firecracker
