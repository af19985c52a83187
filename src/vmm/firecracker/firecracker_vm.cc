#include "vmm/firecracker/firecracker_vm.h"

#include <fmt/format.h>
#include <unistd.h>

#include "base/log.h"
#include "sys/file.h"
#include "vmm/firecracker/memory_layout.h"
#include "vmm/jail.h"
#include "vmm/limits.h"
#include "vmm/proc.h"

namespace wrenn::vmm::firecracker {
namespace {

// What a save writes of the RAM, which the capture takes from the process itself.
constexpr const char* kSavedMemory = "/saved-memory";
constexpr const char* kPagerSocket = "/pager.sock";
constexpr const char* kMappingsFile = "/memory-mappings.json";
// Each after a packet that came in the very moment after the one before.
constexpr int kSaveTries = 10;
constexpr Milliseconds kBalloonPoll{5};
// A balloon that has not grown for so long has all that the guest gives. The first step takes longest.
constexpr Milliseconds kBalloonPatience{500};

}  // namespace

FirecrackerVm::FirecrackerVm(const asio::any_io_executor& executor, asio::thread_pool* pool, VmSpec spec,
                             VmProcess process)
    : pool_(pool), spec_(std::move(spec)), process_(std::move(process)), api_(executor, socket_path(spec_)) {}

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
  if (std::exchange(held_, false)) process_.go_on();
  Result<> done = co_await api_.request(std::move(method), std::move(target), std::move(body), limit);
  if (!done && done.error().code() == Code::kUnavailable && !alive()) co_return fail(process_.exit_error());
  co_return done;
}

Task<> FirecrackerVm::load_state(model::Version version, SavedState from) {
  CO_TRY(co_await load_memory(version, std::move(from)));
  for (auto& [target, body] : limit_requests(spec_))
    CO_TRY(co_await command("PATCH", target, std::move(body), kCommandLimit));
  co_return Result<>{};
}

Task<> FirecrackerVm::load_memory(model::Version version, SavedState from) {
  if (!from.pages.path.empty()) co_return co_await load_on_demand(version, std::move(from));
  CO_TRY(co_await command("PUT", "/snapshot/load", load_request(version, "File", kJailMemory),
                          kDiskCommandLimit));
  co_return co_await remember_memory();
}

Task<> FirecrackerVm::load_on_demand(model::Version version, SavedState from) {
  MemoryImage image = CO_TRY(MemoryImage::map(spec_.memory_file, spec_.shape.memory_bytes(), from.pages));
  const std::string path = jail_path(spec_) + kPagerSocket;
  const sys::Fd listener = CO_TRY(sys::listen_unix(path));
  CO_TRY(own(path, spec_));

  // Firecracker sends its memory's whereabouts in the middle of the load, which then waits for pages.
  std::optional<Result<Handover>> handover;
  auto take_over = [](int socket, FirecrackerVm* self, MemoryImage image, std::vector<sys::PageRun> prefetch,
                      std::optional<Result<Handover>>* out) -> Task<> {
    *out = co_await receive_handover(socket);
    if (!**out) co_return Result<>{};
    auto pager = co_await self->start_pager(std::move(***out), std::move(image), std::move(prefetch));
    if (pager) self->pager_ = std::move(*pager);
    if (!pager) *out = std::unexpected(std::move(pager).error());
    co_return Result<>{};
  };
  async::Nursery nursery(co_await asio::this_coro::executor);
  nursery.spawn("memory handover",
                take_over(listener.get(), this, std::move(image), std::move(from.prefetch), &handover));
  const Result<> loaded = co_await command("PUT", "/snapshot/load",
                                           load_request(version, "Uffd", kPagerSocket), kDiskCommandLimit);
  co_await nursery.cancel_and_join();
  ::unlink(path.c_str());
  if (handover && !*handover && handover->error().code() != Code::kCanceled) {
    co_return std::unexpected(handover->error());
  }
  CO_TRY(loaded);
  if (pager_ == nullptr) co_return fail(Code::kInternal, "Firecracker did not hand its memory over");
  co_return co_await async::with_timeout(pager_->wait_filled(), kDiskCommandLimit, "filling the VM's memory");
}

Task<std::unique_ptr<Pager>> FirecrackerVm::start_pager(Handover handover, MemoryImage image,
                                                        std::vector<sys::PageRun> prefetch) {
  auto ram = CO_TRY(parse_mappings(handover.mappings, process().pid, spec_.shape.memory_bytes()));
  // For the next agent: nobody but Firecracker can tell.
  CO_TRY(co_await async::offload(
      *pool_, [path = spec_.run_dir + kMappingsFile, text = handover.mappings](async::Blocking blocking) {
        return sys::write_file_atomic(blocking, path, text, 0600);
      }));
  co_return Pager::start(std::move(handover.fault_fd), std::move(ram), std::move(image), std::move(prefetch));
}

Task<> FirecrackerVm::adopt_memory() {
  auto fault_fd = co_await async::offload(
      *pool_, [pid = process().pid, pidfd = process_.pidfd()](async::Blocking blocking) {
        return take_fault_fd(blocking, pid, pidfd);
      });
  if (!fault_fd && fault_fd.error().code() == Code::kNotFound) co_return Result<>{};
  if (!fault_fd) co_return std::unexpected(std::move(fault_fd).error());
  // What an earlier agent had to fill in was in place before the VM ran.
  sys::ProcessMemory memory = CO_TRY(co_await ram());
  MemoryImage image = CO_TRY(MemoryImage::map(spec_.memory_file, memory.size()));
  pager_ = CO_TRY(Pager::start(std::move(*fault_fd), std::move(memory), std::move(image), {}));
  co_return Result<>{};
}

Task<> FirecrackerVm::set_state(std::string state) {
  co_return co_await command("PATCH", "/vm", {{"state", state}}, kDiskCommandLimit);
}

Task<> FirecrackerVm::pause() {
  CO_TRY(co_await set_state("Paused"));
  // For the last stats() of this life. A FIFO that nobody has emptied for long takes no more; that is no
  // reason not to pause.
  metrics_.drain();
  const auto told = co_await command("PUT", "/actions", {{"action_type", "FlushMetrics"}}, kCommandLimit);
  if (!told) log::debug("{}: {}", spec_.id, told.error().to_string());
  co_return Result<>{};
}

Task<> FirecrackerVm::resume() {
  CO_TRY(co_await set_balloon(0));
  co_return co_await set_state("Resumed");
}

Task<> FirecrackerVm::set_balloon(int mib) {
  co_return co_await command("PATCH", "/balloon", {{"amount_mib", mib}}, kCommandLimit);
}

Task<int> FirecrackerVm::reclaim(int mib, Milliseconds limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  CO_TRY(co_await set_balloon(mib));
  int size = 0;
  auto grown = std::chrono::steady_clock::now();
  while (size < mib && std::chrono::steady_clock::now() < std::min(deadline, grown + kBalloonPatience)) {
    CO_TRY(co_await async::sleep_for(kBalloonPoll));
    const int before = std::exchange(size, CO_TRY(co_await balloon_size()));
    if (size != before) grown = std::chrono::steady_clock::now();
  }
  co_return size;
}

Task<int> FirecrackerVm::balloon_size() {
  const auto statistics = CO_TRY(co_await api_.get("/balloon/statistics", kCommandLimit));
  const auto* actual = statistics.if_contains("actual_mib");
  if (actual == nullptr || !actual->is_int64())
    co_return fail(Code::kInternal, "Firecracker tells no balloon");
  co_return static_cast<int>(actual->get_int64());
}

// Also while its VM is paused Firecracker takes packets from the TAP and puts them into the guest's memory,
// of which the device state must know. So after the save it stands still until its next command; and where it
// took a packet in between, which is short, the save is made again.
Task<> FirecrackerVm::save_device_state(std::string path) {
  if (sys::exists(path)) co_return fail(Code::kAlreadyExists, path + " exists already");
  for (int tries = 1; tries <= kSaveTries; ++tries) {
    const std::uint64_t before = CO_TRY(packets_taken());
    CO_TRY(co_await save_once());
    held_ = true;
    CO_TRY(co_await process_.hold());
    if (CO_TRY(packets_taken()) != before) continue;
    co_return co_await async::offload(*pool_,
                                      [jail = jail_path(spec_), path](async::Blocking blocking) -> Result<> {
                                        return take_output(blocking, jail, kJailSaved, path);
                                      });
  }
  co_return fail(Code::kUnavailable, "packets came during each of several saves of the VM");
}

Result<std::uint64_t> FirecrackerVm::packets_taken() const {
  if (spec_.tap.empty()) return 0;
  return packets_sent(TRY(sys::read_file(fmt::format("/proc/{}/net/dev", process().pid))), spec_.tap);
}

Task<> FirecrackerVm::save_once() {
  const std::string jail = jail_path(spec_);
  CO_TRY(co_await async::offload(*pool_, [jail, spec = spec_](async::Blocking blocking) -> Result<> {
    TRY(add_output(blocking, jail, spec, kJailSaved));
    TRY(add_output(blocking, jail, spec, kSavedMemory));
    const std::string memory = jail + kSavedMemory;
    // Firecracker empties a file of another size, and ext4 then writes it to disk at its close.
    if (::truncate(memory.c_str(), static_cast<off_t>(spec.shape.memory_bytes())) != 0)
      return fail_errno("truncate " + memory);
    return {};
  }));
  const Result<> saved =
      co_await command("PUT", "/snapshot/create", save_request(kJailSaved, kSavedMemory), kDiskCommandLimit);
  CO_TRY(co_await async::offload(
      *pool_, [jail](async::Blocking blocking) { return sys::remove_file(blocking, jail + kSavedMemory); }));
  co_return saved;
}

Task<sys::ProcessMemory> FirecrackerVm::ram() {
  const std::string told = spec_.run_dir + kMappingsFile;
  // A VM that an agent started which did not write it down.
  if (!sys::exists(told)) CO_TRY(co_await remember_memory());
  co_return parse_mappings(CO_TRY(sys::read_file(told, kMaxMonitorMessageBytes)), process().pid,
                           spec_.shape.memory_bytes());
}

// A guest may give back any page of a mapped file and change any byte of its own: neither must keep the VM
// from being paused.
Task<> FirecrackerVm::remember_memory() {
  const sys::ProcessMemory memory = CO_TRY(co_await find_memory());
  co_return co_await async::offload(
      *pool_, [path = spec_.run_dir + kMappingsFile, text = mappings_text(memory)](async::Blocking blocking) {
        return sys::write_file_atomic(blocking, path, text, 0600);
      });
}

Task<sys::ProcessMemory> FirecrackerVm::find_memory() {
  const pid_t pid = process().pid;
  const std::uint64_t size = spec_.shape.memory_bytes();
  std::string maps = CO_TRY(process_.maps());
  auto mapped = find_mapped(maps, pid, size);
  if (mapped || mapped.error().code() != Code::kNotFound) co_return mapped;
  co_return co_await async::offload(*pool_, [maps = std::move(maps), pid, size](async::Blocking blocking) {
    return find_booted(maps, pid, size, [blocking, pid](std::uint64_t address) {
      return has_root_pointer(blocking, pid, address);
    });
  });
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
