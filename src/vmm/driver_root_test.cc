// What every driver must do, with real guests. WRENN_VMM_DRIVERS names the drivers to test, by default
// qemu-tcg, which runs anywhere; the KVM lab names the others. Needs root and what scripts/build-guest.sh
// makes; skipped without. The guest's agent is replaced, through the overlay disk, by a script that counts on
// the console.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <sstream>

#include "sys/file.h"
#include "sys/process.h"
#include "sys/process_memory.h"
#include "vmm/jail_audit_test.h"
#include "vmm/vmm.h"

namespace wrenn::vmm {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kGuestLimit{60};
constexpr std::size_t kPage = 4096;
constexpr uid_t kUser = 0x70000000 + 32767;
constexpr const char* kCounter =
    "#!/bin/bash\n"
    "mount -t proc proc /proc\n"
    "ip link set lo up; ip addr add 169.254.0.21/30 dev eth0 && ip link set eth0 up\n"
    "python3 -c 'import socket, threading\n"
    "def give(to): to.sendall(bytes(6 << 20))\n"
    "def take(of):\n"
    "  left = 6 << 20\n"
    "  while left: left -= len(of.recv(min(left, 65536)) or exit())\n"
    "  of.sendall(b\"taken\\n\")\n"
    "def serve(port, work):\n"
    "  listener = socket.create_server((\"0.0.0.0\", port))\n"
    "  while True: work(listener.accept()[0])\n"
    "threading.Thread(target=serve, args=(7778, give)).start()\n"
    "threading.Thread(target=serve, args=(7779, take)).start()\n"
    "serve(7777, lambda to: to.sendall(b\"hello\\n\"))' &\n"
    "grep -q wrenn.read /proc/cmdline && read_disk='dd if=/dev/vda of=/dev/null bs=64K count=32 "
    "iflag=direct'\n"
    "for ((n = 0;; n++)); do $read_disk 2>/dev/null; echo \"TICK $n\" >/dev/ttyS0; sleep 0.05; done\n";

std::string wrenn_dir() {
  const char* dir = std::getenv("WRENN_DIR");
  return dir != nullptr ? dir : "/var/lib/wrenn";
}

double since_ms(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// The last complete "TICK n" of a console, or -1.
int last_tick(const std::string& path) {
  const auto text = sys::read_file(path);
  if (!text) return -1;
  const auto end = text->rfind('\n');
  const auto at = text->rfind("TICK ", end);
  return end == std::string::npos || at == std::string::npos ? -1 : std::atoi(text->c_str() + at + 5);
}

int first_tick(const std::string& path) {
  const auto text = sys::read_file(path);
  const auto at = text ? text->find("TICK ") : std::string::npos;
  return at == std::string::npos ? -1 : std::atoi(text->c_str() + at + 5);
}

Task<> wait_for_tick(std::string path, int wanted) {
  const auto deadline = Clock::now() + kGuestLimit;
  while (last_tick(path) < wanted) {
    if (Clock::now() > deadline) {
      const auto text = sys::read_file(path);
      co_return fail(Code::kDeadlineExceeded, "the guest did not count; console: " + text.value_or(""));
    }
    CO_TRY(co_await async::sleep_for(Milliseconds(20)));
  }
  co_return Result<>{};
}

// All of RAM as one sparse file.
Result<> copy_ram(const sys::ProcessMemory& ram, const std::string& path) {
  const auto from = TRY(sys::MemoryAccess::open(ram, O_RDONLY));
  const auto to = TRY(sys::open_file(path, O_RDWR | O_CREAT | O_EXCL));
  if (::ftruncate(to.get(), static_cast<off_t>(ram.size())) != 0) return fail_errno("ftruncate");
  std::string page(kPage, '\0');
  for (const sys::PageRun& run : TRY(sys::private_pages(kBlocking, ram))) {
    for (std::uint64_t number = run.first; number < run.first + run.count; ++number) {
      TRY(from.read(kBlocking, page.data(), kPage, number * kPage));
      TRY(sys::pwrite_all(kBlocking, to.get(), page, number * kPage));
    }
  }
  return {};
}

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

class DriverNeedsRoot : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    base_ = wrenn_dir() + "/images/minimal/rootfs.ext4";
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    if (!sys::exists(base_) || !sys::exists(wrenn_dir() + "/kernels/digest")) {
      GTEST_SKIP() << "needs scripts/build-guest.sh to have run";
    }
    auto made = sys::TempDir::make(kBlocking, "wrenn-vmm");
    ASSERT_TRUE(made);
    dir_.emplace(std::move(*made));
    ASSERT_TRUE(make_overlay());
    ASSERT_TRUE(sys::mkdirs(path("cache")));
    run(choose_by_name());
  }

  Result<> make_overlay() {
    const std::string tree = path("tree") + "/upper/usr/local/bin";
    TRY(sys::mkdirs(tree));
    TRY(sys::write_file(kBlocking, tree + "/envd", kCounter, 0755));
    sys::SpawnSpec command;
    command.argv = {"mke2fs", "-q", "-t", "ext4", "-d", path("tree"), path("overlay.ext4"), "256M"};
    TRY(sys::run_checked(kBlocking, std::move(command), std::chrono::seconds(30)));
    return {};
  }

  void TearDown() override {
    for (const pid_t pid : pids_) ::kill(pid, SIGKILL);
  }

  // As the driver's, and whatever becomes of the test no VM is left.
  Task<std::shared_ptr<Vm>> boot(VmSpec of) {
    auto vm = CO_TRY(co_await driver_->boot(std::move(of)));
    pids_.push_back(vm->process().pid);
    co_return vm;
  }
  Task<std::shared_ptr<Vm>> load(VmSpec of, std::string device_state) {
    auto vm = CO_TRY(co_await driver_->load(
        std::move(of), {.device_state = std::move(device_state), .fill = {}, .prefetch = {}}));
    pids_.push_back(vm->process().pid);
    co_return vm;
  }

  // Leaves `state` and `memory`.
  Task<> capture_and_kill(std::shared_ptr<Vm> vm, std::string state) {
    CO_TRY(co_await vm->pause());
    CO_TRY(co_await vm->save_device_state(path(state)));
    const auto ram = CO_TRY(co_await vm->ram());
    CO_TRY(copy_ram(ram, path("memory")));
    co_return co_await vm->kill();
  }
  // The captured VM, running on.
  Task<std::shared_ptr<Vm>> load_captured(VmSpec again) {
    again.memory_file = path("memory");
    auto loaded = CO_TRY(co_await load(again, path("state")));
    CO_TRY(co_await loaded->resume());
    co_return loaded;
  }

  std::string path(const std::string& name) const { return dir_->path() + "/" + name; }

  VmSpec spec(const std::string& console) const {
    VmSpec out;
    out.id = "vmm-test";
    out.run_dir = dir_->path();
    out.shape = driver_->base_shape();
    out.shape.memory_mib = memory_mib_;
    const bool elf = out.shape.driver == "firecracker";
    out.kernel = wrenn_dir() + (elf ? "/kernels/vmlinux" : "/kernels/bzImage");
    out.initramfs = wrenn_dir() + "/kernels/initramfs.cpio.gz";
    out.kernel_args = default_kernel_args() + " console=ttyS0";
    out.base = {.path = base_, .read_only = true};
    out.overlay = {.path = path("overlay.ext4"), .read_only = false};
    out.tap.clear();
    out.uid = kUser;
    out.gid = kUser;
    out.serial_log = path(console);
    return out;
  }

  void run(Task<> task) {
    const auto result = loop_.run_plain(std::move(task));
    ASSERT_TRUE(result) << result.error().to_string();
  }

  Task<> choose_by_name() {
    driver_ = CO_TRY(co_await choose_driver(loop_.executor(), &loop_.pool(), choice(GetParam())));
    co_return Result<>{};
  }

  DriverChoice choice(std::string preference) const {
    return {.preference = std::move(preference),
            .kernels_dir = wrenn_dir() + "/kernels",
            .cache_dir = dir_->path() + "/cache",
            .firecracker = wrenn_dir() + "/bin/firecracker"};
  }

  Task<> save_and_load();
  Task<> load_and_fill();
  Task<> adopt();
  Task<> refuse();
  Task<> jail();
  Task<> reach_by_network();
  Task<> limit_disk();
  Task<> limit_network();
  Task<> choose();

  int memory_mib_ = 256;
  async::Loop loop_{2};
  std::optional<sys::TempDir> dir_;
  std::shared_ptr<Driver> driver_;
  std::vector<pid_t> pids_;
  std::string base_;
};

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

struct SavedPages {
  std::vector<sys::PageRun> runs;
  std::string bytes;
};

Result<SavedPages> save_pages(const sys::ProcessMemory& ram) {
  SavedPages saved{.runs = TRY(sys::private_pages(kBlocking, ram)), .bytes = {}};
  const auto memory = TRY(sys::MemoryAccess::open(ram, O_RDONLY));
  for (const auto& run : saved.runs) {
    std::string block(run.count * kPage, '\0');
    TRY(memory.read(kBlocking, block.data(), block.size(), run.first * kPage));
    saved.bytes += block;
  }
  return saved;
}

Task<> write_pages(const SavedPages* saved, sys::ProcessMemory ram) {
  const auto memory = CO_TRY(sys::MemoryAccess::open(std::move(ram), O_WRONLY));
  std::size_t at = 0;
  for (const auto& run : saved->runs) {
    CO_TRY(memory.write(kBlocking, std::string_view(saved->bytes).substr(at, run.count * kPage),
                        run.first * kPage));
    at += run.count * kPage;
  }
  co_return Result<>{};
}

// A second life from the first memory file and the pages written since, as a paused sandbox resumes; then a
// third, to see that what was filled in is found again, and one taken over while its memory is still being
// loaded.
Task<> DriverNeedsRoot::load_and_fill() {
  auto vm = CO_TRY(co_await boot(spec("console1")));
  CO_TRY(co_await wait_for_tick(path("console1"), 2));
  CO_TRY(co_await capture_and_kill(vm, "state0"));

  SavedPages saved;
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
    saved = CO_TRY(save_pages(ram));
    EXPECT_FALSE(saved.runs.empty());
    EXPECT_LT(saved.bytes.size(), ram.size() / 2) << "more was loaded than was needed";
    from.fill = [&saved](sys::ProcessMemory memory) { return write_pages(&saved, std::move(memory)); };
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

// Time the guest takes for a tick, with 2 MiB read from its disk.
Task<double> time_tick(std::string console) {
  const int first = last_tick(console) + 1;
  CO_TRY(co_await wait_for_tick(console, first));
  const auto began = Clock::now();
  CO_TRY(co_await wait_for_tick(console, first + 1));
  co_return since_ms(began);
}

// A snapshot made under limits does not keep them.
Task<> DriverNeedsRoot::limit_disk() {
  VmSpec slow = spec("console1");
  slow.kernel_args += " wrenn.read";
  slow.limits.disk_bytes_per_sec = std::uint64_t{1} << 20U;
  auto vm = CO_TRY(co_await boot(slow));
  CO_TRY(co_await wait_for_tick(path("console1"), 1));
  const double limited = CO_TRY(co_await time_tick(path("console1")));
  EXPECT_GT(limited, 1'500) << "2 MiB at 1 MiB/s";
  CO_TRY(co_await vm->pause());
  const VmStats stats = CO_TRY(co_await vm->stats());
  EXPECT_EQ(stats.throttled > 0, slow.shape.driver == "firecracker");
  CO_TRY(co_await capture_and_kill(vm, "state"));

  const auto loaded = CO_TRY(co_await load_captured(spec("console2")));
  CO_TRY(co_await wait_for_tick(path("console2"), 1));
  const double free = CO_TRY(co_await time_tick(path("console2")));
  EXPECT_LT(free, limited / 2);
  std::printf("2 MiB: %.0f ms limited to 1 MiB/s, %.0f ms without\n", limited, free);
  co_return co_await loaded->kill();
}

TEST_P(DriverNeedsRoot, HoldsDisksToTodaysLimits) { run(limit_disk()); }

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

// A network namespace with a TAP, as the host layer makes them.
class Slot {
 public:
  Slot() : name_("wrenn-vmm-test-" + std::to_string(::getpid())) {
    ready_ = shell("ip netns add " + name_) && shell("ip -n " + name_ + " tuntap add tap0 mode tap") &&
             shell("ip -n " + name_ + " addr add 169.254.0.22/30 dev tap0") &&
             shell("ip -n " + name_ + " link set tap0 up");
  }
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;
  ~Slot() { shell("ip netns del " + name_); }
  bool ready() const { return ready_; }
  VmSpec connect(VmSpec spec) const {
    spec.netns = name_;
    spec.tap = "tap0";
    return spec;
  }
  // Whether the guest's server says hello within 20 s.
  bool answers() const {
    return shell("ip netns exec " + name_ +
                 " timeout 20 bash -c 'until exec 3<>/dev/tcp/169.254.0.21/7777; do sleep 0.1; done;"
                 " read -r -t 5 line <&3; [ \"$line\" = hello ]' 2>/dev/null");
  }
  // Time that 6 MiB take from the guest, and to it; negative if they do not come whole.
  double fetch_ms() const {
    return time_ms("exec 3<>/dev/tcp/169.254.0.21/7778; [ $(head -c 6M <&3 | wc -c) = 6291456 ]");
  }
  double send_ms() const {
    return time_ms(
        "exec 3<>/dev/tcp/169.254.0.21/7779; head -c 6M /dev/zero >&3;"
        " read -r line <&3; [ \"$line\" = taken ]");
  }

 private:
  double time_ms(const std::string& script) const {
    const auto began = Clock::now();
    const bool done = shell("ip netns exec " + name_ + " timeout 30 bash -c '" + script + "'");
    return done ? since_ms(began) : -1;
  }
  static bool shell(const std::string& command) { return std::system(command.c_str()) == 0; }
  std::string name_;
  bool ready_ = false;
};

Task<> DriverNeedsRoot::reach_by_network() {
  const Slot slot;
  EXPECT_TRUE(slot.ready());
  auto vm = CO_TRY(co_await boot(slot.connect(spec("console"))));
  CO_TRY(co_await wait_for_tick(path("console"), 1));
  EXPECT_TRUE(slot.answers());
  co_return co_await vm->kill();
}

TEST_P(DriverNeedsRoot, ReachesTheGuestThroughItsTap) { run(reach_by_network()); }

// As with disks: a snapshot made under limits does not keep them.
Task<> DriverNeedsRoot::limit_network() {
  const Slot slot;
  EXPECT_TRUE(slot.ready());
  VmSpec slow = slot.connect(spec("console1"));
  slow.limits.network_bytes_per_sec = std::uint64_t{1} << 20U;
  auto vm = CO_TRY(co_await boot(slow));
  EXPECT_TRUE(slot.answers());
  const double fetch = slot.fetch_ms();
  const double send = slot.send_ms();
  EXPECT_GT(fetch, 3'500) << "6 MiB at 1 MiB/s after 1 MiB at once";
  EXPECT_GT(send, 3'500) << "6 MiB at 1 MiB/s after 1 MiB at once";
  CO_TRY(co_await vm->pause());
  EXPECT_GT(CO_TRY(co_await vm->stats()).throttled, 0U);
  CO_TRY(co_await capture_and_kill(vm, "state"));

  const auto loaded = CO_TRY(co_await load_captured(slot.connect(spec("console2"))));
  EXPECT_TRUE(slot.answers());
  EXPECT_GT(slot.fetch_ms(), 0) << "the first also waits for the guest's memory";
  const double free_fetch = slot.fetch_ms();
  const double free_send = slot.send_ms();
  EXPECT_GT(free_fetch, 0);
  EXPECT_GT(free_send, 0);
  EXPECT_LT(free_fetch, fetch / 2);
  EXPECT_LT(free_send, send / 2);
  std::printf("6 MiB from and to the guest: %.0f and %.0f ms limited to 1 MiB/s, %.0f and %.0f ms without\n",
              fetch, send, free_fetch, free_send);
  co_return co_await loaded->kill();
}

TEST_P(DriverNeedsRoot, HoldsTheNetworkToTodaysLimits) {
  if (driver_->base_shape().driver != "firecracker") GTEST_SKIP() << "the slot's rules hold it";
  run(limit_network());
}

// When each answer of the KVM check was written.
std::map<std::string, std::filesystem::file_time_type> answers(const std::string& cache) {
  std::map<std::string, std::filesystem::file_time_type> times;
  for (const auto& entry : std::filesystem::directory_iterator(cache)) {
    if (entry.path().filename().string().starts_with("kvm-probe-"))
      times[entry.path()] = entry.last_write_time();
  }
  return times;
}

Task<> DriverNeedsRoot::choose() {
  const auto proved = answers(path("cache"));
  const auto again = CO_TRY(co_await choose_driver(loop_.executor(), &loop_.pool(), choice(GetParam())));
  EXPECT_EQ(answers(path("cache")), proved) << "the proof was not remembered";
  EXPECT_EQ(again->base_shape().accel, driver_->base_shape().accel);
  EXPECT_EQ(again->base_shape().version, driver_->base_shape().version);
  co_return Result<>{};
}

TEST_P(DriverNeedsRoot, ChoosesByProof) { run(choose()); }

std::vector<std::string> drivers_to_test() {
  const char* names = std::getenv("WRENN_VMM_DRIVERS");
  std::istringstream text(names != nullptr ? names : "qemu-tcg");
  std::vector<std::string> out;
  for (std::string name; std::getline(text, name, ',');) out.push_back(name);
  return out;
}

INSTANTIATE_TEST_SUITE_P(All, DriverNeedsRoot, testing::ValuesIn(drivers_to_test()), [](const auto& info) {
  std::string name = info.param;
  std::erase(name, '-');
  return name;
});

}  // namespace
}  // namespace wrenn::vmm
