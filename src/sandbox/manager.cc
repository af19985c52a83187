#include "sandbox/manager.h"

#include <algorithm>
#include <thread>

#include "base/bytes.h"
#include "base/log.h"
#include "sandbox/disk_reserve.h"
#include "sandbox/limits.h"
#include "sandbox/parallel.h"
#include "sys/file.h"

namespace wrenn::sandbox {
namespace {

constexpr std::size_t kMaxDigestBytes = 4 * 1024;
// Network namespaces, routes and nftables rules are the host's, so one agent owns them.
constexpr char kHostLock[] = "/run/wrenn-agent.lock";

}  // namespace

Manager::Manager(asio::any_io_executor executor, asio::thread_pool* pool, Config config)
    : context_{.executor = executor, .pool = pool, .config = std::move(config)},
      templates_(&context_),
      nursery_(executor) {
  context_.http = std::make_shared<net::HttpClient>(executor);
  const unsigned processors = std::max(1U, std::thread::hardware_concurrency());
  context_.starts = std::make_unique<async::Semaphore>(executor, kStartsPerProcessor * processors);
}

Manager::~Manager() = default;

Sandbox::Owner Manager::owner() {
  return {&context_, &templates_, &nursery_, [this](const std::string& id) { sandboxes_.erase(id); }};
}

// ---- life of the agent

// A child that an agent was starting when it was killed holds the agent's locks until its own exec.
Task<sys::Fd> Manager::take_lock(std::string path) {
  const auto until = std::chrono::steady_clock::now() + kLockLimit;
  while (true) {
    auto lock = sys::lock_file(path);
    if (lock || lock.error().code() != Code::kFailedPrecondition) co_return lock;
    if (std::chrono::steady_clock::now() > until) {
      co_return fail(
          Error(Code::kFailedPrecondition, "another wrenn-agent runs on this host (" + path + " is locked)")
              .with_reason("agent_running"));
    }
    CO_TRY(co_await async::sleep_for(kLockPoll));
  }
}

Task<> Manager::lock_host() {
  CO_TRY(sys::mkdirs(context_.config.sandboxes_dir, 0700));
  CO_TRY(sys::mkdirs(context_.config.snapshots_dir, 0700));
  for (const std::string& path : {std::string(kHostLock), context_.config.sandboxes_dir + "/.lock"}) {
    locks_.push_back(CO_TRY(co_await take_lock(path)));
  }
  co_return Result<>{};
}

Task<> Manager::read_kernel_digest() {
  const std::string path = context_.config.kernels_dir + "/digest";
  auto digest = sys::read_file(path, kMaxDigestBytes);
  if (!digest) {
    co_return fail(Error(Code::kFailedPrecondition, "no guest kernel at " + context_.config.kernels_dir +
                                                        "; make it with scripts/build-guest.sh")
                       .with_reason("no_kernel"));
  }
  context_.kernel_digest = std::string(trim(*digest));
  co_return Result<>{};
}

Task<> Manager::take_host() {
  CO_TRY(co_await lock_host());
  CO_TRY(co_await read_kernel_digest());
  CO_TRY(sys::mkdirs(context_.config.cache_dir, 0700));
  vmm::DriverChoice choice{context_.config.driver, context_.config.kernels_dir, context_.config.cache_dir,
                           context_.config.firecracker};
  context_.driver = CO_TRY(co_await vmm::choose_driver(context_.executor, context_.pool, std::move(choice)));
  const vmm::Shape shape = context_.driver->base_shape();
  log::info("VMM {} {} on {}, CPU {}", shape.driver, shape.version, shape.accel, shape.cpu_model);
  context_.cgroups = std::make_unique<host::CgroupManager>(CO_TRY(co_await async::offload(
      *context_.pool, [](async::Blocking blocking) { return host::CgroupManager::detect(blocking); })));
  context_.slots =
      std::make_unique<host::SlotPool>(context_.executor, context_.pool, context_.config.network);
  co_return Result<>{};
}

Task<> Manager::start() {
  CO_TRY(co_await take_host());
  co_return co_await recover();
}

Task<> Manager::stop() {
  co_await nursery_.cancel_and_join();
  const Result<> saved = co_await save_activity();
  if (!saved) log::warn("{}", saved.error().to_string());
  if (context_.slots != nullptr) co_return co_await context_.slots->stop();
  co_return Result<>{};
}

Task<> Manager::save_activity() {
  const auto all = std::make_shared<std::vector<std::shared_ptr<Sandbox>>>(list());
  co_return co_await for_each(context_.executor, "saving activity", all->size(), kParallelRecoveries,
                              [all](std::size_t i) { return (*all)[i]->save_activity(); });
}

Task<> Manager::prepare(TemplateStore::Progress progress) {
  CO_TRY(co_await take_host());
  const Template from = CO_TRY(templates_.find(model::kDefaultTemplate));
  const Inventory inventory = CO_TRY(co_await async::offload(
      *context_.pool, [this](async::Blocking blocking) { return take_inventory(blocking, context_); }));
  CO_TRY(co_await context_.slots->start(inventory.slots()));
  co_return co_await templates_.build(from, model::kDefaultVcpus, model::kDefaultMemoryMb,
                                      std::move(progress));
}

// ---- sandboxes

Result<Record> Manager::new_record(const CreateSpec& spec, const Template& from) const {
  Record record;
  record.vcpus = static_cast<int>(spec.vcpus == 0 ? model::kDefaultVcpus : spec.vcpus);
  record.memory_mib = static_cast<int>(spec.memory_mib == 0 ? model::kDefaultMemoryMb : spec.memory_mib);
  record.id = spec.id.empty() ? random_id("sb-") : spec.id;
  if (!model::is_sandbox_id(record.id)) {
    return fail(Error(Code::kInvalidArgument, "sandbox_id must be letters, digits, '-' and '_', at most 64")
                    .with_field("sandbox_id"));
  }
  if (sandboxes_.contains(record.id)) {
    return fail(
        Error(Code::kAlreadyExists, "sandbox " + record.id + " exists").with_reason("sandbox_exists"));
  }
  if (!spec.access_token.empty() &&
      (spec.access_token.size() < kMinTokenBytes || spec.access_token.size() > kMaxTokenBytes)) {
    return fail(Error(Code::kInvalidArgument, fmt::format("access_token must have {} to {} characters",
                                                          kMinTokenBytes, kMaxTokenBytes))
                    .with_field("access_token"));
  }
  record.token = spec.access_token;
  record.template_name = from.name;
  record.timeout_sec = spec.timeout_sec;
  record.created_ms = unix_ms();
  return record;
}

Task<std::shared_ptr<Sandbox>> Manager::create(CreateSpec spec) {
  if (spec.vcpus != 0) CO_TRY(model::check_vcpus(spec.vcpus));
  if (spec.memory_mib != 0) CO_TRY(model::check_memory_mb(spec.memory_mib));
  CO_TRY(model::check_timeout_sec(spec.timeout_sec));
  if (spec.template_name.empty()) spec.template_name = model::kDefaultTemplate;
  Template from = CO_TRY(templates_.find(spec.template_name));
  auto place = CO_TRY(co_await take_start(&context_));
  Record record = CO_TRY(new_record(spec, from));
  const std::string id = record.id;
  auto sandbox = std::make_shared<Sandbox>(owner(), std::move(record));
  sandboxes_.emplace(id, sandbox);
  CO_TRY(co_await sandbox->create(std::move(from), std::move(place)));
  log::info("sandbox {}: created from {} in {}", id, spec.template_name, sandbox->host_ip());
  co_return sandbox;
}

Result<std::shared_ptr<Sandbox>> Manager::find(const std::string& id) const {
  const auto it = sandboxes_.find(id);
  if (it == sandboxes_.end())
    return fail(Error(Code::kNotFound, "no sandbox " + id).with_reason("sandbox_not_found"));
  return it->second;
}

std::vector<std::shared_ptr<Sandbox>> Manager::list() const {
  std::vector<std::shared_ptr<Sandbox>> all;
  all.reserve(sandboxes_.size());
  for (const auto& [id, sandbox] : sandboxes_) all.push_back(sandbox);
  return all;
}

std::vector<std::string> Manager::auto_paused() const {
  std::vector<std::string> ids;
  for (const auto& [id, sandbox] : sandboxes_) {
    if (sandbox->record().auto_paused && sandbox->status() == model::HostStatus::kPaused) ids.push_back(id);
  }
  return ids;
}

Task<> Manager::acknowledge_auto_paused(std::vector<std::string> ids) {
  auto acknowledge = [](std::shared_ptr<Sandbox> sandbox) -> Task<> {
    co_return co_await sandbox->acknowledge_auto_pause();
  };
  // Beside each other: each writes a journal through to the disk.
  async::Nursery all(context_.executor);
  for (const auto& id : ids) {
    if (auto sandbox = find(id)) all.spawn("acknowledging " + id, acknowledge(*std::move(sandbox)));
  }
  co_return co_await all.wait();
}

Task<> Manager::measure() {
  while (true) {
    for (const auto& sandbox : list()) {
      // A VM that has just ended has nothing to tell.
      const Result<> sampled = co_await sandbox->sample();
      if (!sampled && sampled.error().code() == Code::kCanceled) co_return sampled;
    }
    const Result<> reserved = co_await async::offload(
        *context_.pool, [dir = context_.config.sandboxes_dir](async::Blocking blocking) {
          return keep_disk_reserve(blocking, dir);
        });
    if (!reserved) log::warn("no space is reserved for journals: {}", reserved.error().to_string());
    CO_TRY(co_await async::sleep_for(kSamplePeriod));
  }
}

// ---- the reaper

Task<> Manager::reap() {
  async::Nursery pauses(context_.executor);
  std::set<std::string> pausing;
  auto pause_one = [](std::shared_ptr<Sandbox> sandbox, std::set<std::string>* running) -> Task<> {
    const std::string id = sandbox->record().id;
    const Result<> paused = co_await sandbox->pause_if_idle();
    running->erase(id);
    if (!paused) co_return fail(Error(paused.error()).in("auto-pause of " + id));
    if (sandbox->status() == model::HostStatus::kPaused) log::info("sandbox {}: auto-paused", id);
    co_return Result<>{};
  };
  Result<> tick;
  while (tick) {
    const auto now = Sandbox::Clock::now();
    for (const auto& sandbox : list()) {
      const std::string& id = sandbox->record().id;
      if (pausing.size() >= kMaxParallelPauses) break;
      if (!sandbox->auto_pause_due(now) || !pausing.insert(id).second) continue;
      pauses.spawn("auto-pause", pause_one(sandbox, &pausing));
    }
    tick = co_await async::sleep_for(kReapTick);
  }
  // A pause in flight is finished, never cut.
  co_await pauses.join();
  co_return tick;
}

// ---- mending

Task<> Manager::mend() {
  async::Nursery retries(context_.executor);
  std::set<std::string> trying;
  auto try_one = [](std::shared_ptr<Sandbox> sandbox, std::set<std::string>* running) -> Task<> {
    const std::string id = sandbox->record().id;
    const Result<> tried = co_await sandbox->retry();
    running->erase(id);
    co_return tried;
  };
  Result<> tick;
  while (tick) {
    for (const auto& sandbox : list()) {
      const std::string& id = sandbox->record().id;
      if (trying.size() >= kMaxParallelMends) break;
      if (sandbox->status() != model::HostStatus::kError || !may_pass(sandbox->fault())) continue;
      if (trying.insert(id).second) retries.spawn("another look at " + id, try_one(sandbox, &trying));
    }
    tick = co_await async::sleep_for(kMendPeriod);
  }
  co_await retries.cancel_and_join();
  co_return tick;
}

}  // namespace wrenn::sandbox
