#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "model/sandbox.h"
#include "sandbox/context.h"
#include "sandbox/examine.h"
#include "sandbox/guest_client.h"
#include "sandbox/journal.h"
#include "sandbox/machine.h"
#include "sandbox/metrics.h"
#include "sandbox/recovery.h"
#include "sandbox/templates.h"

// One sandbox. Transitions (create, pause, resume, destroy) take turns and run to their end whatever becomes
// of their caller; operations inside the guest run beside each other while the sandbox runs and are dropped
// when it stops running.
namespace wrenn::sandbox {

// What an operation works on, taken once when it is admitted: the sandbox's next life has another.
struct RunningGuest {
  std::string host_ip;
  std::shared_ptr<GuestClient> client;  // with the address and token of this life
  // True by the time an operation is cancelled because the sandbox stopped running, not by its client.
  std::shared_ptr<bool> dropping;
};

class Sandbox : public std::enable_shared_from_this<Sandbox> {
 public:
  struct Owner {
    Context* context = nullptr;
    TemplateStore* templates = nullptr;
    async::Nursery* nursery = nullptr;                // for the watch over the VM
    std::function<void(const std::string& id)> gone;  // nothing of the sandbox is left
  };
  Sandbox(Owner owner, Record record);
  ~Sandbox();

  // ---- transitions; on failure of create() nothing is left of the sandbox
  Task<> create(Template from, async::Semaphore::Guard place);
  // failed_precondition when not running. A failure before the snapshot is durable leaves it running.
  Task<> pause();
  // As pause(), if still idle when its turn comes; otherwise ok without effect.
  Task<> pause_if_idle();
  Task<> resume(std::int64_t timeout_sec);
  Task<> destroy();

  // ---- what an earlier agent left, or what went wrong here
  Task<> recover(Leftover leftover);
  // Its journal cannot be read: it is listed as error, and nothing of it is touched.
  void keep_unreadable(std::string problem);
  // Looks at a sandbox in error again, from disk, and takes it over, pauses it or keeps it accordingly;
  // without effect on others.
  Task<> retry();
  // Writes down when it was last active, for the next agent.
  Task<> save_activity();

  // ---- operations inside the guest
  // Runs `body(RunningGuest, args...)`, a coroutine, while the sandbox runs, as activity while it lasts.
  // Waits for a transition that leads to running. kUnavailable with reason "sandbox_paused" or
  // "sandbox_stopped" when it stops running meanwhile; the guest is given up only when the body has returned.
  template <class Body, class... Args>
  auto operate(Body body, Args... args) -> std::invoke_result_t<Body, RunningGuest, Args...> {
    CO_TRY(co_await wait_running());
    Operation operation(this);
    std::optional<typename std::invoke_result_t<Body, RunningGuest, Args...>::value_type> result;
    operation.nursery.spawn("operation",
                            store(body(running_guest(), std::move(args)...), &result, &operation));
    co_await finish(&operation);
    touch();
    if (operation.dropped && (!result || !*result)) co_return fail(dropped_error());
    if (!result) co_return fail(async::canceled_error());
    co_return std::move(*result);
  }
  Result<> ping();
  Task<> acknowledge_auto_pause();

  // Takes one sample of what the VM uses, if one runs.
  Task<> sample();

  // ---- views
  // What the running VM stands still for, "disk_space"; empty: nothing.
  std::string waiting_for() const { return waits_for_disk_ ? "disk_space" : ""; }
  const Metrics& metrics() const { return metrics_; }
  const Record& record() const { return record_; }
  model::HostStatus status() const { return status_; }
  std::string host_ip() const { return machine_.slot.host_ip; }  // for display; empty without a machine
  // With status kError.
  const Fault& fault() const { return fault_; }
  std::int64_t last_active_ms() const { return last_active_ms_; }
  // By the monotonic clock: a host whose clock is set pauses nothing.
  using Clock = std::chrono::steady_clock;
  bool idle(Clock::time_point now) const;
  bool auto_pause_due(Clock::time_point now) const { return idle(now) && now >= next_auto_pause_; }

 private:
  struct Operation {
    explicit Operation(Sandbox* of);
    ~Operation();
    Sandbox* sandbox;
    async::Nursery nursery;
    async::Condition done;
    bool finished = false;
    bool dropped = false;
  };
  template <class T>
  static Task<> store(Task<T> task, std::optional<Result<T>>* out, Operation* operation) {
    *out = co_await std::move(task);
    operation->finished = true;
    operation->done.notify_all();
    co_return Result<>{};
  }
  asio::awaitable<void> finish(Operation* operation);
  asio::awaitable<void> drop_operations();
  Task<> wait_running();
  RunningGuest running_guest() const { return {machine_.slot.host_ip, guest_, dropping_}; }
  Error dropped_error() const;
  Result<> require_running() const;
  void touch();

  // sandbox.cc
  Task<> write_journal(Phase phase, Durability durability);
  void set_status(model::HostStatus status);
  void set_fault(std::string reason, std::string message);
  Error fault_error() const;
  void note_process();
  // Takes a VM and watches over it: whoever has one learns of its end.
  void hold(std::shared_ptr<vmm::Vm> vm);
  void tell_throttled(std::uint64_t times);
  Task<> go_on_if_space();
  Task<> watch(std::shared_ptr<vmm::Vm> vm);
  Task<> discard(Grounds grounds);
  Task<> locked_destroy();
  std::vector<std::pair<std::string, std::string>> guest_envs() const;
  Task<> init_guest();
  Task<> give_place_back(Milliseconds after);

  // create.cc
  Task<> locked_create(Template from);
  Task<> start_new(Template from);
  Task<TemplateStore::SnapshotPtr> make_files(Template from);

  // pause.cc
  Task<> locked_pause(bool automatic);
  Task<> stop_and_publish();
  Task<> reclaim_memory(std::uint64_t free);
  Task<> write_snapshot();
  Task<> fill_snapshot(snapshot::Writer* writer);
  Task<> finish_pause();
  Task<> roll_back_pause(Error cause);

  // resume.cc
  Result<> check_paused(bool or_error) const;
  Task<> locked_resume(std::int64_t timeout_sec);
  Task<> load_paused();
  Task<> back_to_paused();
  Task<> run_resumed();
  asio::awaitable<void> retire_resumed();

  // sandbox_recovery.cc
  Task<std::optional<Leftover>> look_again();
  Result<> take_record(Record record);
  Task<> settle(Leftover leftover);
  Task<> adopt();

  Owner owner_;
  Context* context_;
  Paths paths_;
  Record record_;
  model::HostStatus status_ = model::HostStatus::kStarting;
  Machine machine_;
  Metrics metrics_;
  std::shared_ptr<GuestClient> guest_;
  async::Mutex turn_;
  std::optional<async::Semaphore::Guard> start_place_;  // while it starts; see take_start
  async::Condition changed_;
  std::set<Operation*> operations_;
  std::shared_ptr<bool> dropping_ = std::make_shared<bool>(false);
  Clock::time_point last_active_;
  std::int64_t last_active_ms_ = 0;  // Unix time, for display
  Clock::time_point next_auto_pause_;
  bool waits_for_disk_ = false;
  std::uint64_t throttled_ = 0;  // of this VM, told so far
  Fault fault_;
  std::optional<Grounds> giving_up_;  // since discard() began
  bool journal_read_ = true;          // record_ is more than the id
  bool gone_ = false;
};

}  // namespace wrenn::sandbox
