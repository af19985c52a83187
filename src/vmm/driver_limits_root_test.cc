// How drivers hold a VM to what it may use of its host, and what becomes of it when the host has no more: see
// driver_root_test.h.
#include <fmt/format.h>

#include "vmm/driver_root_test.h"

namespace wrenn::vmm {

namespace {

// Time the guest takes for a tick, with 2 MiB read from its disk.
Task<double> time_tick(std::string console) {
  const int first = last_tick(console) + 1;
  CO_TRY(co_await wait_for_tick(console, first));
  const auto began = Clock::now();
  CO_TRY(co_await wait_for_tick(console, first + 1));
  co_return since_ms(began);
}

}  // namespace

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
  // Not by the time it took, which on a busy machine says nothing.
  EXPECT_EQ(CO_TRY(co_await loaded->stats()).throttled, 0U);
  std::printf("2 MiB: %.0f ms limited to 1 MiB/s, %.0f ms without\n", limited, free);
  co_return co_await loaded->kill();
}

TEST_P(DriverNeedsRoot, HoldsDisksToTodaysLimits) { run(limit_disk()); }

namespace {

// A file system that can be filled up.
class SmallDisk {
 public:
  // `in_memory`: for a VM that maps no file of it, since a mapped hole would then take memory, and for lack
  // of loop devices in the KVM lab.
  SmallDisk(const std::string& folder, bool in_memory) : point_(folder + "/small") {
    const std::string image = folder + "/small.ext4";
    ready_ =
        sys::mkdirs(point_) && (in_memory ? run({"mount", "-t", "tmpfs", "-o", "size=320M", "small", point_})
                                          : run({"mke2fs", "-q", "-t", "ext4", "-m", "0", image, "2G"}) &&
                                                run({"mount", "-o", "loop", image, point_}));
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  ~SmallDisk() { run({"umount", "-l", point_}); }
  bool ready() const { return ready_; }
  std::string path(const std::string& name) const { return point_ + "/" + name; }
  // Leaves 8 MiB.
  bool fill() const {
    return run({"sh", "-c",
                "fallocate -l $(($(stat -f -c '%a * %S' " + point_ + ") - (8 << 20))) " + path("filler")});
  }
  bool make_room() const { return run({"rm", path("filler")}); }

 private:
  static bool run(std::vector<std::string> argv) {
    sys::SpawnSpec command;
    command.argv = std::move(argv);
    const auto done = sys::run_checked(kBlocking, std::move(command), kGuestLimit);
    EXPECT_TRUE(done) << done.error().to_string();
    return done.has_value();
  }
  std::string point_;
  bool ready_ = false;
};

Task<> wait_for_text(std::string console, std::string wanted) {
  const auto deadline = Clock::now() + kGuestLimit;
  while (sys::read_file(console).value_or("").find(wanted) == std::string::npos) {
    if (Clock::now() > deadline) co_return fail(Code::kDeadlineExceeded, "the guest did not say " + wanted);
    CO_TRY(co_await async::sleep_for(Milliseconds(50)));
  }
  co_return Result<>{};
}

Task<> wait_until_stopped(Vm* vm) {
  const auto deadline = Clock::now() + kGuestLimit;
  while (!CO_TRY(co_await vm->stats()).disk_full) {
    if (Clock::now() > deadline) co_return fail(Code::kDeadlineExceeded, "the VM does not say disk_full");
    CO_TRY(co_await async::sleep_for(Milliseconds(50)));
  }
  co_return Result<>{};
}

}  // namespace

Task<> DriverNeedsRoot::meet_a_full_disk() {
  const SmallDisk disk(dir_->path(), driver_->base_shape().driver == "firecracker");
  EXPECT_TRUE(disk.ready());
  VmSpec filling = spec("console1");
  filling.kernel_args += " wrenn.fill";
  filling.run_dir = disk.path("run");
  filling.overlay.path = disk.path("overlay.ext4");
  filling.serial_log = disk.path("console1");
  CO_TRY(sys::mkdirs(filling.run_dir));
  CO_TRY(sys::copy_sparse(kBlocking, path("overlay.ext4"), filling.overlay.path));
  auto vm = CO_TRY(co_await boot(filling));
  EXPECT_TRUE(disk.fill());
  if (filling.shape.driver == "qemu") {
    CO_TRY(co_await wait_until_stopped(vm.get()));
    // What an agent does that has just started; then, with no more space than before.
    const ProcessIdentity identity = vm->process();
    vm.reset();
    vm = CO_TRY(co_await driver_->adopt(filling, identity));
    CO_TRY(co_await wait_until_stopped(vm.get()));
    CO_TRY(co_await vm->resume());
    CO_TRY(co_await wait_until_stopped(vm.get()));
    EXPECT_TRUE(disk.make_room());
    CO_TRY(co_await vm->resume());
    CO_TRY(co_await wait_for_text(filling.serial_log, "FILLED 0 67108864"));
  } else {
    CO_TRY(co_await wait_for_text(filling.serial_log, "FILLED 1 "));
  }
  CO_TRY(co_await wait_for_tick(filling.serial_log, last_tick(filling.serial_log) + 2));
  EXPECT_FALSE(CO_TRY(co_await vm->stats()).disk_full);
  co_return co_await vm->kill();
}

TEST_P(DriverNeedsRoot, WaitsForSpaceOrTellsTheGuestWhenTheDiskIsFull) {
  if (driver_->base_shape().driver == "firecracker") GTEST_SKIP() << "not proved in the KVM lab";
  run(meet_a_full_disk());
}

// As many requests at a time as a virtio disk takes, which QEMU would meet with a thread each.
Task<> DriverNeedsRoot::many_disk_requests() {
  VmSpec busy = spec("console1");
  busy.kernel_args += " wrenn.burst";
  auto vm = CO_TRY(co_await boot(busy));
  const std::string tasks = fmt::format("/proc/{}/task", vm->process().pid);
  std::size_t most = 0;
  while (sys::read_file(path("console1")).value_or("").find("BURST 128") == std::string::npos) {
    most = std::max(most, sys::list_dir(kBlocking, tasks).value_or(std::vector<std::string>{}).size());
    if (last_tick(path("console1")) > 1200) co_return fail(Code::kDeadlineExceeded, "the reads do not end");
    CO_TRY(co_await async::sleep_for(Milliseconds(2)));
  }
  EXPECT_LE(most, footprint_of(busy.shape).threads);
  std::printf("128 reads at a time: %zu threads\n", most);
  co_return co_await vm->kill();
}

TEST_P(DriverNeedsRoot, StartsNoMoreThreadsThanItsFootprint) { run(many_disk_requests()); }

namespace {

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

}  // namespace

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
  EXPECT_EQ(CO_TRY(co_await loaded->stats()).throttled, 0U);
  std::printf("6 MiB from and to the guest: %.0f and %.0f ms limited to 1 MiB/s, %.0f and %.0f ms without\n",
              fetch, send, free_fetch, free_send);
  co_return co_await loaded->kill();
}

TEST_P(DriverNeedsRoot, HoldsTheNetworkToTodaysLimits) {
  if (driver_->base_shape().driver != "firecracker") GTEST_SKIP() << "the slot's rules hold it";
  run(limit_network());
}

}  // namespace wrenn::vmm
