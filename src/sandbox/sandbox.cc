#include "sandbox/sandbox.h"

#include <sys/stat.h>

#include "base/bytes.h"
#include "base/log.h"
#include "net/digest.h"
#include "sandbox/files.h"
#include "sandbox/limits.h"
#include "sys/file.h"

namespace wrenn::sandbox {

using model::HostStatus;

Sandbox::Sandbox(Owner owner, Record record)
    : owner_(std::move(owner)),
      context_(owner_.context),
      paths_(context_->config, record.id),
      record_(std::move(record)),
      turn_(context_->executor),
      changed_(context_->executor),
      last_active_(Clock::now()),
      last_active_ms_(record_.last_active_ms != 0 ? record_.last_active_ms : unix_ms()) {}

Sandbox::~Sandbox() = default;

// ---- operations

Sandbox::Operation::Operation(Sandbox* of)
    : sandbox(of), nursery(of->context_->executor), done(of->context_->executor) {
  sandbox->operations_.insert(this);
  sandbox->touch();
}

Sandbox::Operation::~Operation() {
  sandbox->operations_.erase(this);
  if (sandbox->operations_.empty()) sandbox->changed_.notify_all();
}

asio::awaitable<void> Sandbox::finish(Operation* operation) {
  while (!operation->finished) {
    const Result<> woken = co_await operation->done.wait();
    if (!woken) operation->nursery.cancel();
    if (!woken) break;
  }
  co_await operation->nursery.join();
}

asio::awaitable<void> Sandbox::drop_operations() {
  *dropping_ = true;
  for (auto waited = Milliseconds(0); !operations_.empty(); waited += kDropPeriod) {
    for (Operation* operation : operations_) {
      operation->dropped = true;
      operation->nursery.cancel();
      // One that was cancelled before its first step says nothing itself.
      operation->finished = true;
      operation->done.notify_all();
    }
    if (waited >= kSlowDrop) {
      log::warn("sandbox {}: {} operations have not ended {} ms after their cancellation", record_.id,
                operations_.size(), waited.count());
    }
    // A cancellation that met an operation between two waits is said again.
    const Result<> woken = co_await changed_.wait_for(kDropPeriod);
    if (!woken && woken.error().code() == Code::kCanceled) break;
  }
}

Task<> Sandbox::wait_running() {
  const auto transitional = [this] {
    return status_ == HostStatus::kStarting || status_ == HostStatus::kResuming ||
           status_ == HostStatus::kPausing;
  };
  while (!gone_ && transitional()) {
    const Result<> woken = co_await changed_.wait_for(kTransitionWait);
    if (woken) continue;
    if (woken.error().code() == Code::kCanceled) co_return woken;
    co_return fail(Error(Code::kUnavailable,
                         fmt::format("sandbox {} is still {}", record_.id, model::host_status_name(status_)))
                       .with_reason("in_transition"));
  }
  if (gone_) co_return fail(Code::kNotFound, "no sandbox " + record_.id);
  co_return require_running();
}

Error Sandbox::dropped_error() const {
  const bool paused = !gone_ && (status_ == HostStatus::kPausing || status_ == HostStatus::kPaused);
  return Error(Code::kUnavailable,
               fmt::format("sandbox {} was {}", record_.id, paused ? "paused" : "stopped"))
      .with_reason(paused ? "sandbox_paused" : "sandbox_stopped");
}

Result<> Sandbox::require_running() const {
  if (status_ == HostStatus::kRunning) return {};
  if (status_ == HostStatus::kError) return fail(fault_error());
  return fail(Error(Code::kFailedPrecondition, fmt::format("sandbox {} is {}, not running", record_.id,
                                                           model::host_status_name(status_)))
                  .with_reason("not_running"));
}

Result<> Sandbox::ping() {
  TRY(require_running());
  touch();
  return {};
}

void Sandbox::touch() {
  last_active_ = Clock::now();
  last_active_ms_ = unix_ms();
}

bool Sandbox::idle(Clock::time_point now) const {
  return status_ == HostStatus::kRunning &&
         model::idle_expired(model::seconds(record_.timeout_sec),
                             std::chrono::duration_cast<Milliseconds>(now - last_active_),
                             !operations_.empty());
}

Task<> Sandbox::acknowledge_auto_pause() {
  // Whoever has the turn resumes or destroys it, which ends the report too. If not, it is acknowledged again.
  if (turn_.locked()) co_return Result<>{};
  const auto guard = CO_TRY(co_await turn_.lock());
  if (gone_ || !record_.auto_paused) co_return Result<>{};
  record_.auto_paused = false;
  co_return co_await async::shielded(write_journal(record_.phase, Durability::kDurable));
}

// ---- metrics

namespace {

Result<std::int64_t> occupied_bytes(const std::string& path) {
  constexpr std::int64_t kBlockBytes = 512;  // of st_blocks, whatever the filesystem's are
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return fail_errno(path);
  return info.st_blocks * kBlockBytes;
}

}  // namespace

Task<> Sandbox::sample() {
  if (status_ != HostStatus::kRunning) {
    metrics_.restart();
    waits_for_disk_ = false;
    co_return Result<>{};
  }
  const auto vm = machine_.vm;
  const vmm::VmStats used = CO_TRY(co_await vm->stats());
  const std::int64_t disk = CO_TRY(occupied_bytes(paths_.overlay));
  if (machine_.vm != vm) co_return Result<>{};
  tell_throttled(used.throttled);
  metrics_.record(unix_ms(), used.cpu_time_us, static_cast<std::int64_t>(used.rss_bytes), disk);
  const bool waited = std::exchange(waits_for_disk_, used.disk_full);
  if (!used.disk_full) co_return Result<>{};
  if (!waited) log::warn("sandbox {}: stands still until its host's disk has space", record_.id);
  co_return co_await go_on_if_space();
}

// A VM that the full disk stopped goes on from the very write. In a transition it must not.
Task<> Sandbox::go_on_if_space() {
  if (turn_.locked() || !check_space(context_->config.sandboxes_dir, 0)) co_return Result<>{};
  const auto guard = CO_TRY(co_await turn_.lock());
  if (status_ != HostStatus::kRunning) co_return Result<>{};
  log::info("sandbox {}: its host's disk has space again, so it goes on", record_.id);
  co_return co_await machine_.vm->resume();
}

void Sandbox::tell_throttled(std::uint64_t times) {
  const std::uint64_t before = std::exchange(throttled_, times);
  if (times > before) log::info("sandbox {}: held to its device limits {} times", record_.id, times - before);
}

// ---- state

Task<> Sandbox::write_journal(Phase phase, Durability durability) {
  record_.last_active_ms = last_active_ms_;
  Record next = record_;
  next.phase = phase;
  CO_TRY(co_await async::offload(*context_->pool,
                                 [dir = paths_.dir, next, durability](async::Blocking blocking) {
                                   return write_record(blocking, dir, next, durability);
                                 }));
  record_.phase = phase;
  co_return Result<>{};
}

Task<> Sandbox::save_activity() {
  const auto guard = CO_TRY(co_await turn_.lock());
  if (gone_ || status_ != HostStatus::kRunning || record_.last_active_ms == last_active_ms_)
    co_return Result<>{};
  co_return co_await write_journal(Phase::kRunning, Durability::kAtomic);
}

void Sandbox::set_fault(std::string reason, std::string message) {
  // A fault that is found again and again is told once.
  if (fault_.reason != reason) log::error("sandbox {}: kept in error ({}): {}", record_.id, reason, message);
  fault_ = {std::move(reason), std::move(message)};
  set_status(HostStatus::kError);
}

Error Sandbox::fault_error() const {
  const Code code = may_pass(fault_) ? Code::kUnavailable : Code::kFailedPrecondition;
  return Error(code, fmt::format("sandbox {}: {}", record_.id, fault_.message)).with_reason(fault_.reason);
}

void Sandbox::set_status(HostStatus status) {
  status_ = status;
  if (status != HostStatus::kError) fault_ = {};
  if (status == HostStatus::kRunning) dropping_ = std::make_shared<bool>(false);
  changed_.notify_all();
}

std::vector<std::pair<std::string, std::string>> Sandbox::guest_envs() const {
  return {{"WRENN_SANDBOX", "true"},
          {"WRENN_SANDBOX_ID", record_.id},
          {"WRENN_TEMPLATE_ID", record_.template_name}};
}

namespace {

// The same in every life of a sandbox, and another one in each of its clones.
std::string machine_id(const std::string& sandbox_id) {
  constexpr std::size_t kBytes = 16;
  const auto digest = net::sha256("machine " + sandbox_id);
  return to_hex(std::span(digest).first(kBytes));
}

}  // namespace

// A guest may keep its host waiting on purpose; others start meanwhile.
Task<> Sandbox::give_place_back(Milliseconds after) {
  CO_TRY(co_await async::sleep_for(after));
  if (start_place_)
    log::info("sandbox {}: its guest is silent for {} ms, and keeps no others from starting", record_.id,
              after.count());
  start_place_.reset();
  co_return Result<>{};
}

Task<> Sandbox::init_guest() {
  const auto vm = machine_.vm;
  auto alive = [vm] { return vm->alive(); };
  async::Nursery waiting(context_->executor);
  waiting.spawn("start place", give_place_back(kStartPlaceLimit));
  Result<> done = co_await guest_->init(guest_envs(), machine_id(record_.id), std::move(alive), kInitLimit);
  co_await waiting.cancel_and_join();
  if (done || vm->alive()) co_return done;
  // How the VM ended says more than that nobody answered.
  Result<> exit = co_await vm->wait_exit();
  co_return exit ? std::move(done) : std::move(exit);
}

// What another agent needs to know the VM again.
void Sandbox::note_process() {
  const vmm::Shape shape = context_->driver->base_shape();
  record_.process = machine_.vm->process();
  record_.driver = shape.driver;
  record_.accel = shape.accel;
}

void Sandbox::hold(std::shared_ptr<vmm::Vm> vm) {
  if (machine_.vm == vm) return;
  machine_.vm = std::move(vm);
  // The watch outlives no sandbox: it holds one.
  auto held = [](std::shared_ptr<Sandbox> self, std::shared_ptr<vmm::Vm> watched) -> Task<> {
    co_return co_await self->watch(std::move(watched));
  };
  owner_.nursery->spawn("watch " + record_.id, held(shared_from_this(), machine_.vm));
}

Task<> Sandbox::watch(std::shared_ptr<vmm::Vm> vm) {
  Result<> exit = co_await vm->wait_exit();
  std::optional<vmm::DeathProof> death = vmm::DeathProof::of(*vm);
  while (!death) {
    if (!exit && exit.error().code() == Code::kCanceled) co_return Result<>{};
    log::error("sandbox {}: cannot watch its VM: {}", record_.id, exit ? "" : exit.error().to_string());
    CO_TRY(co_await async::sleep_for(kWatchRetry));
    exit = co_await vm->wait_exit();
    death = vmm::DeathProof::of(*vm);
  }
  const auto guard = CO_TRY(co_await turn_.lock());
  if (gone_ || machine_.vm != vm) co_return Result<>{};
  const std::string how = exit ? "killed" : exit.error().message();
  log::warn("sandbox {}: its VM ended by itself: {}", record_.id, how);
  // What is in error may have a snapshot after all.
  if (status_ == HostStatus::kError) {
    auto leftover = CO_TRY(co_await look_again());
    if (leftover) co_return co_await async::shielded(settle(std::move(*leftover)));
    co_return Result<>{};
  }
  co_return co_await async::shielded(discard(Grounds::vm_ended(*death, "its VM ended by itself")));
}

// ---- end

Task<> Sandbox::destroy() {
  auto all = [](std::shared_ptr<Sandbox> self) -> Task<> {
    const auto guard = CO_TRY(co_await self->turn_.lock());
    co_return co_await self->locked_destroy();
  };
  co_return co_await async::shielded(all(shared_from_this()));
}

Task<> Sandbox::locked_destroy() {
  if (gone_) co_return Result<>{};
  // Should the agent die now, the next one goes on with it. A disk too full to say so is a reason to go on.
  if (journal_read_ && sys::exists(paths_.dir)) {
    const Result<> written = co_await write_journal(Phase::kDestroying, Durability::kAtomic);
    if (!written) log::warn("sandbox {}: {}", record_.id, written.error().to_string());
  }
  co_return co_await discard(Grounds::owner_asked());
}

Task<> Sandbox::discard(Grounds grounds) {
  log::info("sandbox {}: removed, since {}", record_.id, grounds.why());
  giving_up_ = std::move(grounds);
  set_status(HostStatus::kStopping);
  // First, since an operation must not outlive the address that it works with.
  co_await drop_operations();
  guest_.reset();
  const Result<> dismantled = co_await dismantle(context_, record_.id, std::exchange(machine_, {}));
  if (!dismantled) {
    // Its folder tells the next agent whose the VM is. The mending ends it in the end.
    set_fault(kVmNotKilled, dismantled.error().to_string());
    co_return dismantled;
  }
  // The journal goes last: while it is there, a new agent knows what is left to remove.
  const Result<> removed =
      co_await async::offload(*context_->pool, [paths = paths_](async::Blocking blocking) -> Result<> {
        TRY(sys::remove_tree(blocking, paths.snapshot_dir));
        return remove_folder(blocking, paths.dir);
      });
  gone_ = true;
  changed_.notify_all();
  owner_.gone(record_.id);
  co_return removed;
}

}  // namespace wrenn::sandbox
