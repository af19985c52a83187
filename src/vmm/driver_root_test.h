#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>

#include "sys/file.h"
#include "sys/process.h"
#include "sys/process_memory.h"
#include "vmm/vmm.h"

// What every driver must do, with real guests. WRENN_VMM_DRIVERS names the drivers to test, by default
// qemu-tcg, which runs anywhere; the KVM lab names the others. Needs root and what scripts/build-guest.sh
// makes; skipped without. The guest's agent is replaced, through the overlay disk, by a script that counts on
// the console.
namespace wrenn::vmm {

inline constexpr auto kBlocking = async::Blocking::without_loop();

using Clock = std::chrono::steady_clock;

inline constexpr std::chrono::seconds kGuestLimit{60};
inline constexpr std::size_t kPage = 4096;
inline constexpr uid_t kUser = 0x70000000 + 32767;
inline constexpr const char* kCounter =
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
    // Writes until its disk takes no more, or all is written.
    "grep -q wrenn.fill /proc/cmdline && (dd if=/dev/zero of=/filled bs=1M count=64 oflag=direct "
    "2>/dev/null\n"
    "  echo \"FILLED $? $(stat -c %s /filled)\" >/dev/ttyS0) &\n"
    // Threads that read the disk past the page cache, all at once, 20 times each.
    "grep -q wrenn.burst /proc/cmdline && python3 -c 'import mmap, os, threading\n"
    "disk = os.open(\"/dev/vdb\", os.O_RDONLY | os.O_DIRECT)\n"
    "go = threading.Barrier(128)\n"
    "done = []\n"
    "def read(number):\n"
    "  page = mmap.mmap(-1, 4096)\n"
    "  for turn in range(20):\n"
    "    go.wait()\n"
    "    os.preadv(disk, [page], (number * 20 + turn) * 65536)\n"
    "  done.append(number)\n"
    "readers = [threading.Thread(target=read, args=(number,)) for number in range(128)]\n"
    "for each in readers: each.start()\n"
    "for each in readers: each.join()\n"
    "print(\"BURST\", len(done), flush=True)' >/dev/ttyS0 &\n"
    "for ((n = 0;; n++)); do $read_disk 2>/dev/null; echo \"TICK $n\" >/dev/ttyS0; sleep 0.05; done\n";

inline std::string wrenn_dir() {
  const char* dir = std::getenv("WRENN_DIR");
  return dir != nullptr ? dir : "/var/lib/wrenn";
}

inline double since_ms(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// The last complete "TICK n" of a console, or -1.
inline int last_tick(const std::string& path) {
  const auto text = sys::read_file(path);
  if (!text) return -1;
  const auto end = text->rfind('\n');
  const auto at = text->rfind("TICK ", end);
  return end == std::string::npos || at == std::string::npos ? -1 : std::atoi(text->c_str() + at + 5);
}

inline int first_tick(const std::string& path) {
  const auto text = sys::read_file(path);
  const auto at = text ? text->find("TICK ") : std::string::npos;
  return at == std::string::npos ? -1 : std::atoi(text->c_str() + at + 5);
}

inline Task<> wait_for_tick(std::string path, int wanted) {
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
inline Result<> copy_ram(const sys::ProcessMemory& ram, const std::string& path) {
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
        std::move(of), {.device_state = std::move(device_state), .pages = {}, .prefetch = {}}));
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
  Task<> meet_a_full_disk();
  Task<> many_disk_requests();

  int memory_mib_ = 256;
  async::Loop loop_{2};
  std::optional<sys::TempDir> dir_;
  std::shared_ptr<Driver> driver_;
  std::vector<pid_t> pids_;
  std::string base_;
};

}  // namespace wrenn::vmm
