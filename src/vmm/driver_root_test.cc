// What every driver must do with a VM: see driver_root_test.h.
#include "vmm/driver_root_test.h"

#include <filesystem>
#include <map>
#include <sstream>

#include "vmm/jail_audit_test.h"

namespace wrenn::vmm {

using testing::HasSubstr;

namespace {

// Pages of the process that nobody else has.
long private_kib(pid_t pid) {
  const auto text = sys::read_file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  long total = 0;
  for (const char* name : {"\nPrivate_Clean:", "\nPrivate_Dirty:"}) {
    const auto at = text ? text->find(name) : std::string::npos;
    if (at != std::string::npos) total += std::atol(text->c_str() + at + std::string_view(name).size());
  }
  return total;
}

}  // namespace

Task<> DriverNeedsRoot::save_and_load() {
  auto began = Clock::now();
  auto vm = CO_TRY(co_await boot(spec("console1")));
  std::printf("boot: spawn to control connection %.1f ms\n", since_ms(began));
  CO_TRY(co_await wait_for_tick(path("console1"), 5));
  std::printf("boot: spawn to a program's output %.0f ms\n", since_ms(began));
  EXPECT_FALSE(co_await vm->save_device_state(path("early"))) << "saved a running VM";

  began = Clock::now();
  CO_TRY(co_await vm->pause());
  CO_TRY(co_await vm->pause());  // idempotent
  CO_TRY(co_await vm->save_device_state(path("state")));
  std::printf("pause and save device state: %.1f ms\n", since_ms(began));
  const int stopped_at = last_tick(path("console1"));
  const auto ram = CO_TRY(co_await vm->ram());
  CO_TRY(copy_ram(ram, path("memory")));

  // A capture without killing: the guest goes on, then is stopped for good.
  CO_TRY(co_await vm->resume());
  CO_TRY(co_await wait_for_tick(path("console1"), stopped_at + 3));
  CO_TRY(co_await vm->kill());
  CO_TRY(co_await vm->kill());
  EXPECT_FALSE(vm->alive());
  CO_TRY(co_await vm->wait_exit());
  EXPECT_EQ((co_await vm->stats()).error().code(), Code::kUnavailable);

  VmSpec again = spec("console2");
  again.memory_file = path("memory");
  began = Clock::now();
  auto loaded = CO_TRY(co_await load(again, path("state")));
  std::printf("load: spawn to loaded %.1f ms\n", since_ms(began));
  CO_TRY(co_await async::sleep_for(Milliseconds(300)));
  EXPECT_EQ(first_tick(path("console2")), -1) << "a loaded VM ran before resume";
  began = Clock::now();
  CO_TRY(co_await loaded->resume());
  std::printf("resume: %.1f ms\n", since_ms(began));
  CO_TRY(co_await wait_for_tick(path("console2"), stopped_at + 20));
  const int first = first_tick(path("console2"));
  EXPECT_GE(first, stopped_at);
  EXPECT_LE(first, stopped_at + 1) << "the guest did not go on where it stood";
  const auto stats = CO_TRY(co_await loaded->stats());
  EXPECT_GT(stats.cpu_time_us, 0U);
  std::printf("loaded and counting: RSS %llu KiB, private %ld KiB\n",
              static_cast<unsigned long long>(stats.rss_bytes / 1024), private_kib(loaded->process().pid));
  co_return co_await loaded->kill();
}

TEST_P(DriverNeedsRoot, SavedGuestGoesOnWhereItStood) { run(save_and_load()); }

namespace {

// In a file whose content begins anywhere, as behind a table.
Result<sys::StoredPages> save_pages(const sys::ProcessMemory& ram, const std::string& path) {
  constexpr std::size_t kTable = 40;
  sys::StoredPages saved{.path = path, .offset = kTable, .runs = TRY(sys::private_pages(kBlocking, ram))};
  const auto memory = TRY(sys::MemoryAccess::open(ram, O_RDONLY));
  const auto file = TRY(sys::open_file(path, O_WRONLY | O_CREAT | O_TRUNC));
  TRY(sys::write_all(kBlocking, file.get(), std::string(kTable, 't')));
  for (const auto& run : saved.runs) {
    std::string block(run.count * kPage, '\0');
    TRY(memory.read(kBlocking, block.data(), block.size(), run.first * kPage));
    TRY(sys::write_all(kBlocking, file.get(), block));
  }
  return saved;
}

}  // namespace

// A second life from the first memory file and the pages written since, as a paused sandbox resumes; then a
// third, to see that what was filled in is found again, and one taken over while its memory is still being
// loaded.
Task<> DriverNeedsRoot::load_and_fill() {
  auto vm = CO_TRY(co_await boot(spec("console1")));
  CO_TRY(co_await wait_for_tick(path("console1"), 2));
  CO_TRY(co_await capture_and_kill(vm, "state0"));

  SavedState from;
  int reached = last_tick(path("console1"));
  for (int life = 1; life <= 3; ++life) {
    const std::string console = "console" + std::to_string(life % 2 + 1);
    CO_TRY(sys::remove_file(kBlocking, path(console)));
    VmSpec again = spec(console);
    again.memory_file = path("memory");
    from.device_state = path("state" + std::to_string(life - 1));
    auto loaded = CO_TRY(co_await driver_->load(again, from));
    pids_.push_back(loaded->process().pid);
    CO_TRY(co_await loaded->resume());
    if (life == 3) {
      const ProcessIdentity identity = loaded->process();
      loaded.reset();
      loaded = CO_TRY(co_await driver_->adopt(again, identity));
    }
    CO_TRY(co_await wait_for_tick(path(console), reached + 5));
    EXPECT_GE(first_tick(path(console)), reached) << "life " << life;
    EXPECT_LE(first_tick(path(console)), reached + 1) << "life " << life << " did not go on where it stood";
    CO_TRY(co_await loaded->pause());
    reached = last_tick(path(console));
    CO_TRY(co_await loaded->save_device_state(path("state" + std::to_string(life))));
    const auto ram = CO_TRY(co_await loaded->ram());
    // Of its own for each life: one that runs may still read it.
    from.pages = CO_TRY(save_pages(ram, path("pages" + std::to_string(life))));
    EXPECT_FALSE(from.pages.runs.empty());
    EXPECT_LT(sys::page_count(from.pages.runs) * kPage, ram.size() / 2) << "more was loaded than was needed";
    from.prefetch = loaded->working_set();
    if (life == 2) EXPECT_EQ(!from.prefetch.empty(), again.shape.driver == "firecracker");
    CO_TRY(co_await loaded->kill());
  }
  co_return Result<>{};
}

TEST_P(DriverNeedsRoot, FilledMemoryIsThereBeforeTheDevicesLoad) { run(load_and_fill()); }

// Memory goes on above the hole for devices below 4 GiB.
TEST_P(DriverNeedsRoot, BigGuestGoesOnWhereItStood) {
  memory_mib_ = 4096;
  run(load_and_fill());
}

Task<> DriverNeedsRoot::adopt() {
  auto vm = CO_TRY(co_await boot(spec("console")));
  CO_TRY(co_await wait_for_tick(path("console"), 1));
  const ProcessIdentity identity = vm->process();
  vm.reset();  // as when the agent dies: the connection closes, the VM stays

  ProcessIdentity other = identity;
  ++other.start_time;
  const auto wrong = co_await driver_->adopt(spec("console"), other);
  EXPECT_EQ(wrong.error().code(), Code::kNotFound);

  auto adopted = CO_TRY(co_await driver_->adopt(spec("console"), identity));
  EXPECT_TRUE(adopted->alive());
  CO_TRY(co_await adopted->pause());
  CO_TRY(co_await async::sleep_for(Milliseconds(100)));
  const int stopped_at = last_tick(path("console"));
  CO_TRY(co_await async::sleep_for(Milliseconds(300)));
  EXPECT_EQ(last_tick(path("console")), stopped_at);
  CO_TRY(co_await adopted->ram());
  CO_TRY(co_await adopted->resume());
  CO_TRY(co_await wait_for_tick(path("console"), stopped_at + 2));

  ::kill(identity.pid, SIGKILL);
  const auto exit = co_await adopted->wait_exit();
  EXPECT_FALSE(exit);
  EXPECT_EQ((co_await adopted->pause()).error().code(), Code::kUnavailable);
  const auto late = co_await driver_->adopt(spec("console"), identity);
  EXPECT_EQ(late.error().code(), Code::kNotFound);
  co_return Result<>{};
}

TEST_P(DriverNeedsRoot, AdoptsARunningVmAndNoOther) { run(adopt()); }

Task<> DriverNeedsRoot::refuse() {
  VmSpec no_disk = spec("console");
  no_disk.base.path = path("absent.ext4");
  const auto failed = co_await boot(no_disk);
  EXPECT_FALSE(failed);
  if (!failed) EXPECT_THAT(failed.error().message(), HasSubstr("absent.ext4"));

  CO_TRY(sys::write_file(kBlocking, path("bad-state"), "this is no device state, far from it"));
  VmSpec bad = spec("console");
  bad.memory_file = path("memory");
  CO_TRY(sys::write_file(kBlocking, path("memory"), "short"));
  const auto short_memory = co_await load(bad, path("bad-state"));
  EXPECT_EQ(short_memory.error().reason(), "snapshot_corrupt");
  EXPECT_EQ(::truncate(path("memory").c_str(), off_t{256} << 20), 0);
  const auto corrupt = co_await load(bad, path("bad-state"));
  EXPECT_FALSE(corrupt);

  VmSpec other = spec("console");
  other.shape.version = "0.1";
  EXPECT_EQ((co_await boot(other)).error().reason(), "incompatible_vmm");
  co_return Result<>{};
}

TEST_P(DriverNeedsRoot, RefusesWhatCannotRunAndSaysWhy) { run(refuse()); }

Task<> DriverNeedsRoot::jail() {
  auto vm = CO_TRY(co_await boot(spec("console1")));
  CO_TRY(co_await wait_for_tick(path("console1"), 1));
  audit_jail(vm->process().pid, kUser);
  CO_TRY(co_await capture_and_kill(vm, "state"));
  const auto loaded = CO_TRY(co_await load_captured(spec("console2")));
  CO_TRY(co_await wait_for_tick(path("console2"), 1));
  audit_jail(loaded->process().pid, kUser);
  co_return co_await loaded->kill();
}

TEST_P(DriverNeedsRoot, MonitorIsJailed) { run(jail()); }

namespace {

// When each answer of the KVM check was written.
std::map<std::string, std::filesystem::file_time_type> answers(const std::string& folder) {
  std::map<std::string, std::filesystem::file_time_type> times;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with("kvm-probe"))
      times[entry.path()] = entry.last_write_time();
  }
  return times;
}

}  // namespace

Task<> DriverNeedsRoot::choose() {
  const auto proved = answers(path("cache"));
  const auto again = CO_TRY(co_await choose_driver(loop_.executor(), &loop_.pool(), choice(GetParam())));
  EXPECT_EQ(answers(path("cache")), proved) << "the proof was not remembered";
  EXPECT_EQ(again->base_shape().accel, driver_->base_shape().accel);
  EXPECT_EQ(again->base_shape().version, driver_->base_shape().version);
  co_return Result<>{};
}

TEST_P(DriverNeedsRoot, ChoosesByProof) { run(choose()); }

namespace {

std::vector<std::string> drivers_to_test() {
  const char* names = std::getenv("WRENN_VMM_DRIVERS");
  std::istringstream text(names != nullptr ? names : "qemu-tcg");
  std::vector<std::string> out;
  for (std::string name; std::getline(text, name, ',');) out.push_back(name);
  return out;
}

}  // namespace

INSTANTIATE_TEST_SUITE_P(All, DriverNeedsRoot, testing::ValuesIn(drivers_to_test()), [](const auto& info) {
  std::string name = info.param;
  std::erase(name, '-');
  return name;
});

}  // namespace wrenn::vmm
