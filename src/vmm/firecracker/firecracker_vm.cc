#include "vmm/firecracker/firecracker_vm.h"

#include <unistd.h>

#include "sys/file.h"
#include "vmm/firecracker/handover.h"
#include "vmm/jail.h"
#include "vmm/limits.h"

namespace wrenn::vmm::firecracker {
namespace {

// What a save writes of the RAM, which the capture takes from the process itself.
constexpr const char* kSavedMemory = "/saved-memory";
constexpr const char* kPagerSocket = "/pager.sock";

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

Task<> FirecrackerVm::load_state(Version version, SavedState from) {
  CO_TRY(co_await load_memory(version, std::move(from)));
  for (auto& [target, body] : limit_requests(spec_))
    CO_TRY(co_await command("PATCH", target, std::move(body), kCommandLimit));
  co_return Result<>{};
}

Task<> FirecrackerVm::load_memory(Version version, SavedState from) {
  if (from.fill) co_return co_await load_on_demand(version, std::move(from));
  co_return co_await command("PUT", "/snapshot/load", load_request(version, "File", kJailMemory),
                             kDiskCommandLimit);
}

Task<> FirecrackerVm::load_on_demand(Version version, SavedState from) {
  const std::uint64_t size = static_cast<std::uint64_t>(spec_.shape.memory_mib) << 20;
  MemoryImage image = CO_TRY(MemoryImage::map(spec_.memory_file, size));
  CO_TRY(co_await from.fill(::getpid(), image.region()));
  PagerPlan plan{.first = CO_TRY(sys::private_pages(::getpid(), image.region().address, size)),
                 .prefetch = std::move(from.prefetch)};
  const std::string path = jail_path(spec_) + kPagerSocket;
  const sys::Fd listener = CO_TRY(sys::listen_unix(path));
  CO_TRY(own(path, spec_));

  // Firecracker sends its memory's whereabouts in the middle of the load, which then waits for pages.
  std::optional<Result<Handover>> handover;
  auto take_over = [](int socket, FirecrackerVm* self, MemoryImage image, PagerPlan plan,
                      std::optional<Result<Handover>>* out) -> Task<> {
    *out = co_await receive_handover(socket);
    if (!**out) co_return Result<>{};
    auto pager = Pager::start(std::move((**out)->fault_fd), (**out)->ram, std::move(image), std::move(plan));
    if (pager) self->pager_ = std::move(*pager);
    if (!pager) *out = std::unexpected(std::move(pager).error());
    co_return Result<>{};
  };
  async::Nursery nursery(co_await asio::this_coro::executor);
  nursery.spawn("memory handover",
                take_over(listener.get(), this, std::move(image), std::move(plan), &handover));
  const Result<> loaded = co_await command("PUT", "/snapshot/load",
                                           load_request(version, "Uffd", kPagerSocket), kDiskCommandLimit);
  co_await nursery.cancel_and_join();
  CO_TRY(sys::remove_file(path));
  if (handover && !*handover && handover->error().code() != Code::kCanceled) {
    co_return std::unexpected(handover->error());
  }
  CO_TRY(loaded);
  if (pager_ == nullptr) co_return fail(Code::kInternal, "Firecracker did not hand its memory over");
  co_return co_await async::with_timeout(pager_->wait_filled(), kDiskCommandLimit, "filling the VM's memory");
}

Task<> FirecrackerVm::adopt_memory() {
  auto fault_fd = take_fault_fd(process().pid, process_.pidfd());
  if (!fault_fd && fault_fd.error().code() == Code::kNotFound) co_return Result<>{};
  if (!fault_fd) co_return std::unexpected(std::move(fault_fd).error());
  // What an earlier agent had to fill in was in place before the VM ran.
  const RamRegion region = CO_TRY(co_await ram());
  MemoryImage image = CO_TRY(MemoryImage::map(spec_.memory_file, region.size));
  pager_ = CO_TRY(Pager::start(std::move(*fault_fd), region, std::move(image), {}));
  co_return Result<>{};
}

Task<> FirecrackerVm::set_state(std::string state) {
  co_return co_await command("PATCH", "/vm", {{"state", state}}, kDiskCommandLimit);
}

Task<> FirecrackerVm::pause() {
  CO_TRY(co_await set_state("Paused"));
  // Up to here, for the last stats() of this life.
  co_return co_await command("PUT", "/actions", {{"action_type", "FlushMetrics"}}, kCommandLimit);
}

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
  if (of_file) co_return of_file;
  RamRegion ram = CO_TRY(process_.ram(spec_.shape.memory_mib, RamKind::kAnonymous));
  ram.own_when_read = pager_ != nullptr;
  co_return ram;
}

std::vector<sys::PageRun> FirecrackerVm::working_set() const {
  return pager_ == nullptr ? std::vector<sys::PageRun>{} : pager_->working_set();
}

Result<> FirecrackerVm::open_metrics() { return metrics_.open(jail_path(spec_) + kJailMetrics); }

Task<VmStats> FirecrackerVm::stats() {
  metrics_.drain();
  VmStats stats = CO_TRY(process_.stats());
  stats.throttled = metrics_.throttled();
  co_return stats;
}

}  // namespace wrenn::vmm::firecracker
