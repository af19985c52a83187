#include "vmm/vmm.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "sys/file.h"
#include "vmm/firecracker/api.h"
#include "vmm/firecracker/config.h"
#include "vmm/firecracker/firecracker_driver.h"
#include "vmm/firecracker/memory_layout.h"
#include "vmm/firecracker/metrics.h"
#include "vmm/limits.h"
#include "vmm/proc.h"
#include "vmm/qemu/command_line.h"
#include "vmm/qemu/qmp.h"

namespace wrenn::vmm {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

constexpr std::uint64_t kMiB = 1024 * 1024;

VmSpec small_vm() {
  VmSpec spec;
  spec.id = "sb-test";
  spec.run_dir = "/run/x";
  spec.shape = {
      .driver = "qemu", .accel = "tcg", .version = "7.2", .cpu_model = "max", .vcpus = 1, .memory_mib = 512};
  spec.kernel = "/k";
  spec.initramfs = "/i";
  spec.kernel_args = "quiet";
  spec.base = {.path = "/base", .read_only = true};
  spec.overlay = {.path = "/over,lay", .read_only = false};
  spec.memory_file = "/mem";
  spec.uid = 70000;
  spec.gid = 70000;
  return spec;
}

std::uint64_t start_of(const Result<sys::ProcessMemory>& memory) {
  return memory && memory->parts.size() == 1 ? memory->parts[0].address : 0;
}

TEST(FindRam, TakesThePrivateFileMappingOfTheRightSize) {
  const auto ram = find_ram(
      "7f0000000000-7f0010000000 rw-s 00000000 fe:00 11 /other\n"
      "7f1000000000-7f1010000000 rw-p 00000000 fe:00 12 /memory (deleted)\n"
      "7f2000000000-7f2010000000 rw-p 00000000 00:00 0 \n"
      "7f3000000000-7f3000100000 rw-p 00000000 fe:00 13 /lib\n",
      1, 256 * kMiB);
  EXPECT_EQ(start_of(ram), 0x7f1000000000U);
  EXPECT_EQ(ram->size(), 256 * kMiB);
}

TEST(FindRam, JoinsNeighboursOfOneFileOnly) {
  EXPECT_EQ(start_of(find_ram("7f1000000000-7f1008000000 rw-p 00000000 fe:00 12 /memory\n"
                              "7f1008000000-7f1010000000 rw-p 08000000 fe:00 12 /memory\n"
                              "7f1010000000-7f1020000000 ---p 00000000 00:00 0\n",
                              1, 256 * kMiB)),
            0x7f1000000000U);
  EXPECT_FALSE(
      find_ram("7f1000000000-7f1008000000 rw-p 00000000 fe:00 12 /memory\n"
               "7f1008000000-7f1010000000 rw-p 00000000 fe:00 13 /memory2\n",
               1, 256 * kMiB));
}

TEST(FindRam, RefusesToGuess) {
  EXPECT_FALSE(find_ram("", 1, kMiB));
  EXPECT_FALSE(find_ram("nonsense\n\n- - - -\nzz-yy rw-p 0 0 1\n", 1, kMiB));
  EXPECT_FALSE(find_ram("100000-200000 rw-p 0 fe:00 1 /a\n300000-400000 rw-p 0 fe:00 2 /b\n", 1, kMiB));
}

TEST(ReadStats, ShowsThisProcessAndNoOther) {
  const auto stats = read_stats(::getpid());
  ASSERT_TRUE(stats);
  EXPECT_GT(stats->rss_bytes, kMiB);
  EXPECT_FALSE(read_stats(0x7ffffffe));
}

TEST(PacketsSent, AreCountedByInterface) {
  constexpr std::string_view kText =
      "Inter-|   Receive                                                |  Transmit\n"
      " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop\n"
      "  eth0:    1  2    0    0    0     0          0         0     3       4    0    0    0     0       0\n"
      "  tap0: 9000 12    0    0    0     0          0         0  1234      56    0    0    0     0       "
      "0\n";
  EXPECT_EQ(packets_sent(kText, "tap0"), 56U);
  EXPECT_EQ(packets_sent(kText, "eth0"), 4U);
  EXPECT_EQ(packets_sent(kText, "tap"), 0U);
  EXPECT_EQ(packets_sent("", "tap0"), 0U);
}

TEST(TscClock, MeasuresAPlausibleSpeed) {
  async::Loop loop(1);
  std::uint64_t khz = 0;
  const auto task = [](std::uint64_t* out) -> Task<> {
    const TscClock clock;
    *out = CO_TRY(co_await clock.khz());
    const auto again = CO_TRY(co_await clock.khz());
    EXPECT_NEAR(static_cast<double>(again) / static_cast<double>(*out), 1.0, 1e-3);
    co_return Result<>{};
  };
  ASSERT_TRUE(loop.run_plain(task(&khz)));
  EXPECT_GT(khz, 200'000U);
  EXPECT_LT(khz, 10'000'000U);
}

TEST(CommandLine, MapsMemoryPrivatelyAndDoublesCommas) {
  const auto argv = qemu::command_line(small_vm(), Start::kBoot, 2'600'000);
  EXPECT_THAT(argv, Contains(HasSubstr("share=off,mem-path=/mem")));
  EXPECT_THAT(argv, Contains(HasSubstr("file=/over,,lay")));
  EXPECT_THAT(argv, Contains("quiet tsc_early_khz=2600000"));
  EXPECT_THAT(argv, Not(Contains("-incoming")));
  EXPECT_THAT(argv, Not(Contains("-serial")));
}

TEST(CommandLine, LimitsDisks) {
  VmSpec spec = small_vm();
  EXPECT_THAT(qemu::command_line(spec, Start::kBoot, 0), Not(Contains(HasSubstr("throttling"))));
  spec.limits.disk_bytes_per_sec = 1000;
  EXPECT_THAT(qemu::command_line(spec, Start::kBoot, 0),
              Contains(HasSubstr("throttling.bps-total=1000,throttling.bps-total-max=1000,file=/over")));
}

TEST(Footprint, HoldsWhatTheMonitorStarts) {
  Shape shape{.vcpus = 32, .memory_mib = 65536};
  const Footprint big = footprint_of(shape);
  // Main thread, RCU's, a vCPU's each, the pool's as they end and as others begin.
  EXPECT_GE(big.threads, 2U + 32 + 2 * kDiskThreads);
  // Page tables of the process, of the guest and back: 8 bytes a page each.
  EXPECT_GE(big.memory_bytes, shape.memory_bytes() + 3 * shape.memory_bytes() / 512 + 256 * kMiB);
  EXPECT_THAT(qemu::command_line(small_vm(), Start::kBoot, 0),
              Contains(HasSubstr("thread-pool-max=" + std::to_string(kDiskThreads))));
}

TEST(CommandLine, LoadsPausedWithTheSameDevicesAsBoot) {
  const auto devices = [](const std::vector<std::string>& argv) {
    std::vector<std::string> out;
    for (std::size_t i = 0; i + 1 < argv.size(); ++i) {
      if (argv[i] == "-device" || argv[i] == "-machine" || argv[i] == "-object") out.push_back(argv[i + 1]);
    }
    return out;
  };
  const auto boot = qemu::command_line(small_vm(), Start::kBoot, 0);
  const auto load = qemu::command_line(small_vm(), Start::kLoad, 0);
  EXPECT_EQ(devices(boot), devices(load));
  EXPECT_THAT(load, Contains("-S"));
  EXPECT_THAT(load, Contains("defer"));
  EXPECT_THAT(load, Not(Contains("-kernel")));
}

TEST(CheckSpec, RefusesBadShapesAndSmuggledLines) {
  EXPECT_TRUE(check_spec(small_vm()));
  VmSpec spec = small_vm();
  spec.shape.vcpus = 33;
  EXPECT_FALSE(check_spec(spec));
  spec = small_vm();
  spec.shape.memory_mib = 127;
  EXPECT_FALSE(check_spec(spec));
  spec = small_vm();
  spec.kernel_args = "a\nb";
  EXPECT_FALSE(check_spec(spec));
  spec = small_vm();
  spec.netns = "../../etc";
  EXPECT_FALSE(check_spec(spec));
  spec = small_vm();
  spec.uid = 0;
  EXPECT_FALSE(check_spec(spec));
}

// A peer that sends `script` and hangs up: what a QEMU that dies or talks nonsense looks like.
Result<> connect_to(std::string script, Milliseconds limit) {
  const auto folder = TRY(sys::TempDir::make(kBlocking));
  // Longer than a socket address can hold.
  const std::string deep = folder.path() + "/" + std::string(120, 'd');
  TRY(sys::mkdirs(deep));
  const std::string path = deep + "/qmp.sock";
  const auto listener = TRY(sys::listen_unix(path));
  async::Loop loop(1);
  const auto task = [](async::Loop* on, std::string at, int fd, std::string text,
                       Milliseconds until) -> Task<> {
    qemu::QmpClient client(on->executor());
    auto serve = [fd, text]() -> Result<> {
      const sys::Fd peer(::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC));
      // The client may hang up first.
      (void)!::send(peer.get(), text.data(), text.size(), MSG_NOSIGNAL);
      ::usleep(200'000);
      return {};
    };
    async::Nursery nursery(on->executor());
    nursery.spawn("peer", async::offload(on->pool(), serve));
    auto result = co_await client.connect(std::move(at), until);
    co_await nursery.join();
    co_return result;
  };
  return loop.run_plain(task(&loop, path, listener.get(), std::move(script), limit));
}

constexpr const char* kGreeting = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";

TEST(Qmp, SkipsEventsAndLateAnswers) {
  EXPECT_TRUE(connect_to(std::string(kGreeting) +
                             "{\"event\": \"STOP\"}\r\n{\"return\": {}, \"id\": 99}\r\n" +
                             "{\"return\": {}, \"id\": 1}\r\n",
                         Milliseconds(2000)));
}

TEST(Qmp, TellsWhatWentWrong) {
  const auto refused =
      connect_to(std::string(kGreeting) +
                     "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no way\"}, \"id\": 1}\r\n",
                 Milliseconds(2000));
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), HasSubstr("no way"));
  EXPECT_EQ(connect_to("", Milliseconds(2000)).error().code(), Code::kUnavailable);
  EXPECT_EQ(connect_to("garbage\n", Milliseconds(2000)).error().code(), Code::kInternal);
  EXPECT_EQ(connect_to("[1]\n", Milliseconds(2000)).error().code(), Code::kInternal);
  EXPECT_EQ(connect_to(std::string(kGreeting), Milliseconds(50)).error().code(), Code::kDeadlineExceeded);
  EXPECT_FALSE(connect_to(std::string(std::size_t{2} * 1024 * 1024, 'x'), Milliseconds(2000)));
}

TEST(Firecracker, TellsWhyItRefused) {
  const Error full = firecracker::refusal(
      "PUT /snapshot/create", 400,
      R"x({"fault_message":"Cannot write memory file: No space left on device (os error 28)"})x");
  EXPECT_EQ(full.reason(), "disk_full");
  EXPECT_EQ(full.code(), Code::kResourceExhausted);
  EXPECT_THAT(full.message(), HasSubstr("Firecracker refused PUT /snapshot/create (400): Cannot write"));
  EXPECT_EQ(
      firecracker::refusal("PUT", 400, R"(Os { code: 28, message: \"No space left on device\" })").reason(),
      "disk_full");
  const Error other = firecracker::refusal("PATCH /vm", 400, "(os error 2)");
  EXPECT_EQ(other.code(), Code::kInternal);
  EXPECT_EQ(other.reason(), "");
}

TEST(Firecracker, IsRefusedByItsVersion) {
  const auto folder = sys::TempDir::make(kBlocking);
  ASSERT_TRUE(folder);
  const std::string program = folder->path() + "/firecracker";
  async::Loop loop(1);
  for (const auto& [printed, reason] : {std::pair{"Firecracker v1.11.9", "firecracker_refused"},
                                        std::pair{"Firecracker v1.14.3", "firecracker_refused"},
                                        std::pair{"Firecracker", "firecracker_missing"}}) {
    ASSERT_TRUE(sys::write_file(kBlocking, program, std::string("#!/bin/sh\necho ") + printed + "\n", 0755));
    const auto made = firecracker::FirecrackerDriver::make(kBlocking, loop.executor(), &loop.pool(), program);
    ASSERT_FALSE(made) << printed;
    EXPECT_EQ(made.error().reason(), reason) << printed;
  }
}

constexpr std::uint64_t kGiB = 1024 * kMiB;

TEST(FirecrackerMemory, IsAsItsMessageSays) {
  const auto small = firecracker::parse_mappings(
      R"([{"base_host_virt_addr":139637976727552,"size":268435456,"offset":0,"page_size":4096}])", 7,
      256 * kMiB);
  EXPECT_EQ(start_of(small), 139637976727552U);
  EXPECT_EQ(small->pid, 7);
  const auto big = firecracker::parse_mappings(
      R"([{"base_host_virt_addr":8192,"size":3221225472,"offset":0},
          {"base_host_virt_addr":4096,"size":1073741824,"offset":3221225472}])",
      7, 4 * kGiB);
  ASSERT_TRUE(big);
  EXPECT_EQ(big->parts[1].address, 4096U);
  EXPECT_EQ(big->size(), 4 * kGiB);
  for (const char* text :
       {"", "{}", "[]", "[1]", "[{}]", "[{},{}]", R"([{"base_host_virt_addr":-1,"size":1}])",
        R"([{"base_host_virt_addr":4096,"size":4096,"offset":4096}])",
        R"([{"base_host_virt_addr":4096,"size":18446744073709547520,"offset":0}])",
        R"([{"base_host_virt_addr":4096,"size":268435455,"offset":0}])"}) {
    EXPECT_FALSE(firecracker::parse_mappings(text, 7, 256 * kMiB)) << text;
  }
}

TEST(FirecrackerMemory, IsRememberedAsItWasFound) {
  const sys::ProcessMemory memory{.pid = 7,
                                  .parts = {{.offset = 0, .size = 3 * kGiB, .address = 0x7f10'0000'0000},
                                            {.offset = 3 * kGiB, .size = kGiB, .address = 0x7f00'0000'0000}}};
  const auto again = firecracker::parse_mappings(firecracker::mappings_text(memory), 7, 4 * kGiB);
  ASSERT_TRUE(again) << again.error().to_string();
  ASSERT_EQ(again->parts.size(), 2U);
  EXPECT_EQ(again->parts[0].address, 0x7f10'0000'0000U);
  EXPECT_EQ(again->parts[1].address, 0x7f00'0000'0000U);
  EXPECT_EQ(again->parts[1].offset, 3 * kGiB);
}

TEST(FirecrackerMemory, IsFoundThroughWhatTheGuestGaveBack) {
  const auto ram = firecracker::find_mapped(
      "7f1000000000-7f1004000000 rw-p 00000000 fe:00 12 /memory\n"
      "7f1004000000-7f1008000000 rw-p 00000000 00:00 0\n"
      "7f1008000000-7f100c000000 rw-p 08000000 fe:00 12 /memory\n"
      "7f100c000000-7f1010100000 rw-p 00000000 00:00 0\n"
      "7f1010100000-7f1010200000 rw-p 00010000 fe:00 13 /lib\n",
      1, 256 * kMiB);
  EXPECT_EQ(start_of(ram), 0x7f1000000000U);
}

TEST(FirecrackerMemory, IsFoundOnBothSidesOfTheHole) {
  // The upper part's first pages were given back.
  const auto mapped = firecracker::find_mapped(
      "7f0000000000-7f0000010000 rw-p 00000000 00:00 0\n"
      "7f0000010000-7f0030000000 rw-p d0010000 fe:00 12 /memory\n"
      "7f1000000000-7f10d0000000 rw-p 00000000 fe:00 12 /memory\n",
      1, 4 * kGiB);
  ASSERT_TRUE(mapped) << mapped.error().to_string();
  EXPECT_EQ(mapped->parts[0].address, 0x7f1000000000U);
  EXPECT_EQ(mapped->parts[0].size, 3328 * kMiB);
  EXPECT_EQ(mapped->parts[1].address, 0x7f0000000000U);
  EXPECT_EQ(mapped->size(), 4 * kGiB);
  EXPECT_EQ(
      firecracker::find_mapped("7f0000000000-7f0000010000 rw-p 00000000 00:00 0\n", 1, kGiB).error().code(),
      Code::kNotFound);
}

TEST(FirecrackerMemory, OfABootedVmStartsWhereItsTablesAre) {
  const auto starts_at = [](std::uint64_t wanted) {
    return [wanted](std::uint64_t address) { return address == wanted; };
  };
  // One mapping since the kernel joined the two, and two.
  const auto joined = firecracker::find_booted("7f0000000000-7f0100000000 rw-p 00000000 00:00 0\n", 1,
                                               4 * kGiB, starts_at(0x7f0030000000));
  ASSERT_TRUE(joined) << joined.error().to_string();
  EXPECT_EQ(joined->parts[0].address, 0x7f0030000000U);
  EXPECT_EQ(joined->parts[0].size, 3328 * kMiB);
  EXPECT_EQ(joined->parts[1].address, 0x7f0000000000U);
  constexpr std::string_view kTwo =
      "7f0000000000-7f0040000000 rw-p 00000000 00:00 0\n"
      "7f1000000000-7f10c0000000 rw-p 00000000 00:00 0\n";
  const auto two = firecracker::find_booted(kTwo, 1, 4 * kGiB, starts_at(0x7f1000000000));
  ASSERT_TRUE(two);
  EXPECT_EQ(two->parts[0].size, 3072 * kMiB);
  EXPECT_EQ(two->parts[1].address, 0x7f0000000000U);
  EXPECT_FALSE(firecracker::find_booted(kTwo, 1, 4 * kGiB, starts_at(1)));
  EXPECT_EQ(start_of(firecracker::find_booted(kTwo, 1, kGiB, starts_at(0x7f0000000000))), 0x7f0000000000U);
}

TEST(Firecracker, CountsTheTimesThatDevicesWaited) {
  EXPECT_EQ(firecracker::throttled_in(R"({"block":{"rate_limiter_throttled_events":3},"block_base":{},"net":
      {"rx_rate_limiter_throttled":4,"tx_rate_limiter_throttled":5}})"),
            12U);
  for (const char* text :
       {"", "[]", "{", R"({"net":1})", R"({"block":{"rate_limiter_throttled_events":-3}})"}) {
    EXPECT_EQ(firecracker::throttled_in(text), 0U) << text;
  }
}

TEST(Firecracker, ReadsAFifoAndNoFileInItsPlace) {
  const auto folder = sys::TempDir::make(kBlocking);
  ASSERT_TRUE(folder);
  const std::string path = folder->path() + "/metrics";
  firecracker::Metrics metrics;
  metrics.drain();
  ASSERT_TRUE(sys::write_file(kBlocking, path, "x"));
  EXPECT_FALSE(metrics.open(path));
  ASSERT_TRUE(sys::remove_file(kBlocking, path));
  VmSpec owner;
  owner.uid = ::getuid();
  owner.gid = ::getgid();
  ASSERT_TRUE(firecracker::Metrics::make_pipe(path, owner));
  ASSERT_TRUE(metrics.open(path));
  const auto writer = sys::open_file(path, O_WRONLY | O_NONBLOCK);
  ASSERT_TRUE(writer);
  const std::string line = R"({"block":{"rate_limiter_throttled_events":1}})";
  ASSERT_TRUE(sys::write_all(kBlocking, writer->get(), line + "\n" + line.substr(0, 9)));
  metrics.drain();
  EXPECT_EQ(metrics.throttled(), 1U);
  ASSERT_TRUE(sys::write_all(kBlocking, writer->get(), line.substr(9) + "\n"));
  metrics.drain();
  EXPECT_EQ(metrics.throttled(), 2U);
}

TEST(ChooseDriver, RefusesUnknownNames) {
  async::Loop loop(1);
  const auto task = [](async::Loop* on) -> Task<> {
    DriverChoice choice;
    choice.preference = "hyper-v";
    const auto driver = co_await choose_driver(on->executor(), &on->pool(), std::move(choice));
    EXPECT_FALSE(driver);
    if (!driver) EXPECT_EQ(driver.error().code(), Code::kInvalidArgument);
    co_return Result<>{};
  };
  EXPECT_TRUE(loop.run_plain(task(&loop)));
}

}  // namespace
}  // namespace wrenn::vmm
