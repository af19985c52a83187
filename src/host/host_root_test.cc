// Slots, cgroups and disks for real. The slots live in a network namespace of the test's own, so that an
// agent of this host is not disturbed. Needs root; skipped without.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>
#include <thread>

#include "host/host.h"
#include "host/slot_setup.h"
#include "sys/file.h"
#include "sys/process.h"

namespace wrenn::host {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

using testing::HasSubstr;
constexpr Milliseconds kLimit{20'000};
constexpr std::uint16_t kPort = 9'999;

std::string shell(const std::string& script) {
  sys::SpawnSpec spec;
  spec.argv = {"/bin/sh", "-ec", script};
  const auto out = sys::run_checked(kBlocking, std::move(spec), kLimit);
  EXPECT_TRUE(out) << script << ": " << out.error().to_string();
  return out.value_or("");
}

// Calls `work` on a thread inside the namespace.
template <class Work>
void inside(const std::string& netns, Work work) {
  std::thread([&] {
    const auto fd = sys::open_file("/run/netns/" + netns, O_RDONLY);
    ASSERT_TRUE(fd && ::setns(fd->get(), CLONE_NEWNET) == 0);
    work();
  }).join();
}

// The address as a number in network order.
in_addr_t address(const char* text) { return ::inet_addr(text); }

// The guest's end of a slot's TAP: sends frames a guest's kernel might send.
class Guest {
 public:
  explicit Guest(const std::string& netns) {
    inside(netns, [&] {
      tap_.reset(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
      ifreq request{};
      std::strncpy(request.ifr_name, "tap0", IFNAMSIZ - 1);
      request.ifr_flags = IFF_TAP | IFF_NO_PI;
      ASSERT_EQ(::ioctl(tap_.get(), TUNSETIFF, &request), 0);
    });
  }
  void send_udp(const char* from, const char* to, unsigned char mac_end = 0x05,
                std::uint16_t from_port = 1234) const {
    constexpr std::string_view kText = "hello";
    constexpr std::size_t kEthernet = 14;
    std::array<char, kEthernet + sizeof(iphdr) + sizeof(udphdr) + kText.size()> frame{};
    const unsigned char ethernet[kEthernet] = {2, 0xfc, 0, 0, 0, 6, 2, 0xfc, 0, 0, 0, mac_end, 8, 0};
    iphdr ip{};
    ip.version = 4;
    ip.ihl = 5;
    ip.ttl = 64;
    ip.protocol = IPPROTO_UDP;
    ip.tot_len = htons(frame.size() - kEthernet);
    ip.saddr = address(from);
    ip.daddr = address(to);
    std::array<std::uint16_t, sizeof ip / 2> words{};
    std::memcpy(words.data(), &ip, sizeof ip);
    std::uint32_t sum = 0;
    for (const std::uint16_t word : words) sum += word;
    while (sum >> 16U != 0) sum = (sum & 0xffffU) + (sum >> 16U);
    ip.check = static_cast<std::uint16_t>(~sum);
    const udphdr udp{{.uh_sport = htons(from_port),
                      .uh_dport = htons(kPort),
                      .uh_ulen = htons(sizeof(udphdr) + kText.size()),
                      .uh_sum = 0}};
    std::memcpy(frame.data(), ethernet, kEthernet);
    std::memcpy(frame.data() + kEthernet, &ip, sizeof ip);
    std::memcpy(frame.data() + kEthernet + sizeof ip, &udp, sizeof udp);
    std::memcpy(frame.data() + kEthernet + sizeof ip + sizeof udp, kText.data(), kText.size());
    ASSERT_EQ(::write(tap_.get(), frame.data(), frame.size()), static_cast<ssize_t>(frame.size()));
  }

 private:
  sys::Fd tap_;
};

// A UDP socket on every address of a namespace ("" is the host's).
class Listener {
 public:
  explicit Listener(const std::string& netns) {
    const auto open = [&] {
      socket_.reset(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      sockaddr_in any{};
      any.sin_family = AF_INET;
      any.sin_port = htons(kPort);
      ASSERT_EQ(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&any), sizeof any), 0);
    };
    netns.empty() ? open() : inside(netns, open);
  }
  // Whether a datagram comes; the first one through a new path waits for ARP.
  bool hears(Milliseconds limit) const {
    pollfd poll{.fd = socket_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&poll, 1, static_cast<int>(limit.count())) != 1) return false;
    std::array<char, 64> bytes{};
    return ::recv(socket_.get(), bytes.data(), bytes.size(), 0) == 5;
  }

 private:
  sys::Fd socket_;
};

// The test's own "host" with, beyond it, a namespace `wan` that owns a public and some private addresses.
class HostNetworkRoot : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (::geteuid() != 0) return;
    ASSERT_EQ(::unshare(CLONE_NEWNET | CLONE_NEWNS), 0);
    ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    ASSERT_TRUE(sys::mkdirs("/run/netns"));
    ASSERT_EQ(::mount("tmpfs", "/run/netns", "tmpfs", 0, nullptr), 0);
    shell(
        "ip link set lo up; ip netns add wan; ip link add wan0 type veth peer name eth0 netns wan;"
        "ip addr add 203.0.113.2/24 dev wan0; ip link set wan0 up; ip route add default via 203.0.113.1;"
        "ip -n wan link set lo up; ip -n wan link set eth0 up;"
        "for a in 203.0.113.1/24 10.99.0.1/32 192.168.7.7/32 169.254.169.254/32 100.64.0.1/32"
        "  168.63.129.16/32 100.100.100.200/32 192.0.0.192/32 192.88.99.1/32 198.18.0.1/32 240.0.0.1/32; do"
        "  ip -n wan addr add $a dev eth0; done");
  }
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  }
  // Runs `body` with a started pool, and checks that stopping it leaves nothing.
  template <class Body>
  static void with_pool(NetworkOptions options, Body body) {
    async::Loop loop(2);
    SlotPool pool(loop.executor(), &loop.pool(), options);
    const auto run = [](SlotPool* slots, Body* test) -> Task<> {
      CO_TRY(co_await slots->start({}));
      const Result<> done = co_await (*test)(slots);
      CO_TRY(co_await slots->stop());
      co_return done;
    };
    const Result<> done = loop.run_plain(run(&pool, &body));
    EXPECT_TRUE(done) << done.error().to_string();
    EXPECT_TRUE(existing_slots(kBlocking)->empty());
    EXPECT_EQ(shell("ip -o link").find("wrenn-v"), std::string::npos);
    EXPECT_EQ(shell("nft list tables"), "");
  }
};

Task<> wait_for_slots(std::size_t count) {
  for (int i = 0; i < 400; ++i) {
    if (CO_TRY(existing_slots(kBlocking)).size() == count) co_return Result<>{};
    CO_TRY(co_await async::sleep_for(Milliseconds(50)));
  }
  co_return fail(Code::kDeadlineExceeded, "the pool did not settle");
}

TEST_F(HostNetworkRoot, SlotsAreMadeAheadReusedAndRemoved) {
  with_pool({.ready_slots = 2, .max_slots = 3}, [](SlotPool* pool) -> Task<> {
    CO_TRY(co_await wait_for_slots(2));
    const Slot first = CO_TRY(co_await pool->acquire());
    EXPECT_EQ(first.index, 1);
    EXPECT_EQ(first.netns, "wrenn-1");
    EXPECT_EQ(first.host_ip, "10.11.0.1");
    EXPECT_EQ(SlotPool::describe(300).host_ip, "10.11.1.44");
    CO_TRY(co_await pool->acquire());
    CO_TRY(co_await pool->acquire());
    const auto none = co_await pool->acquire();
    EXPECT_EQ(none.error().reason(), "no_network_slots");
    pool->release(first.index);
    // A refused refill pauses for a second.
    CO_TRY(co_await wait_for_slots(2));
    CO_TRY(co_await wait_for_slots(3));
    EXPECT_EQ(CO_TRY(co_await pool->acquire()).index, first.index);
    for (const int index : {1, 2, 3}) pool->release(index);
    co_return Result<>{};
  });
}

TEST_F(HostNetworkRoot, SlotsOfAnEarlierAgentAreSweptButThoseInUseStay) {
  ASSERT_TRUE(create_slot(kBlocking, 7, {}));
  ASSERT_TRUE(create_slot(kBlocking, 8, {.bytes_per_sec = 1'000'000}));
  async::Loop loop(1);
  SlotPool pool(loop.executor(), &loop.pool(), {.ready_slots = 0});
  const auto run = [](SlotPool* slots) -> Task<> {
    CO_TRY(co_await slots->start({8}));
    EXPECT_EQ(CO_TRY(existing_slots(kBlocking)), std::vector<int>{8});
    CO_TRY(co_await slots->stop());
    co_return Result<>{};
  };
  EXPECT_TRUE(loop.run_plain(run(&pool)));
  EXPECT_EQ(*existing_slots(kBlocking), std::vector<int>{8}) << "its VM may go on";
  EXPECT_THAT(shell("nft list tables"), HasSubstr("wrenn_agent"));
  ASSERT_TRUE(remove_slot(kBlocking, 8));
  EXPECT_TRUE(remove_slot(kBlocking, 8)) << "absent is fine";
}

sys::ChildProcess live_in(int slot) {
  sys::SpawnSpec spec;
  spec.argv = {"/bin/sleep", "60"};
  spec.netns = "/run/netns/" + SlotPool::describe(slot).netns;
  auto child = sys::spawn(spec);
  EXPECT_TRUE(child) << child.error().to_string();
  return std::move(*child);
}

TEST_F(HostNetworkRoot, ASlotIsNobodyElsesWhileAProcessLivesInIt) {
  for (const int index : {5, 6}) ASSERT_TRUE(create_slot(kBlocking, index, {}));
  sys::ChildProcess found = live_in(5);  // of a sandbox whose journal cannot be read
  sys::ChildProcess slow = live_in(6);   // of a VM that could not be killed in time
  async::Loop loop(1);
  SlotPool pool(loop.executor(), &loop.pool(), {.ready_slots = 0});
  const auto run = [&](SlotPool* slots) -> Task<> {
    CO_TRY(co_await slots->start({6}));
    EXPECT_FALSE(slots->claim(6)) << "it is known";
    slots->release(6);
    slots->release(6);
    CO_TRY(co_await async::sleep_for(Milliseconds(100)));
    EXPECT_EQ(CO_TRY(existing_slots(kBlocking)).size(), 2u);
    EXPECT_EQ(remove_slot(kBlocking, 5).error().reason(), "slot_occupied");
    CO_TRY(slow.signal(SIGKILL));
    CO_TRY(co_await wait_for_slots(1));
    EXPECT_TRUE(slots->claim(5));
    CO_TRY(found.signal(SIGKILL));
    CO_TRY(co_await async::sleep_for(Milliseconds(1'000)));
    EXPECT_EQ(CO_TRY(existing_slots(kBlocking)), std::vector<int>{5}) << "its owner has not released it";
    slots->release(5);
    CO_TRY(co_await wait_for_slots(0));
    co_return co_await slots->stop();
  };
  EXPECT_TRUE(loop.run_plain(run(&pool)));
}

constexpr const char* kGuestAddress = "169.254.0.21";
constexpr const char* kPublic = "203.0.113.1";

TEST_F(HostNetworkRoot, GuestsReachPublicAddressesAndNothingElse) {
  with_pool({.ready_slots = 0}, [](SlotPool* pool) -> Task<> {
    const Slot slot = CO_TRY(co_await pool->acquire());
    const Slot other = CO_TRY(co_await pool->acquire());
    {
      const Guest guest(slot.netns);
      const Listener wan("wan");
      const Listener host("");
      const Listener neighbour(other.netns);
      guest.send_udp(kGuestAddress, kPublic);
      EXPECT_TRUE(wan.hears(Milliseconds(5'000)));
      for (const char* to : {"10.99.0.1", "192.168.7.7", "169.254.169.254", "100.64.0.1", "168.63.129.16",
                             "100.100.100.200", "192.0.0.192", "192.88.99.1", "198.18.0.1", "240.0.0.1"}) {
        guest.send_udp(kGuestAddress, to);
      }
      for (const char* to :
           {"203.0.113.2", "10.12.0.2", "169.254.0.22", other.host_ip.c_str(), "10.12.0.5"}) {
        guest.send_udp(kGuestAddress, to);
      }
      guest.send_udp("169.254.0.20", kPublic);
      guest.send_udp("203.0.113.77", kPublic);
      guest.send_udp(kGuestAddress, kPublic, 0x07);
      EXPECT_FALSE(wan.hears(Milliseconds(300))) << "private, or spoofed";
      EXPECT_FALSE(host.hears(Milliseconds(0))) << "the host itself";
      EXPECT_FALSE(neighbour.hears(Milliseconds(0))) << "another slot";
      guest.send_udp(kGuestAddress, kPublic);
      EXPECT_TRUE(wan.hears(Milliseconds(5'000))) << "still alive";
    }
    pool->release(slot.index);
    pool->release(other.index);
    co_return Result<>{};
  });
}

TEST_F(HostNetworkRoot, TrafficBeyondTheLimitIsDropped) {
  // A second's worth passes at once: 100 of these packets of 33 bytes and a frame's head.
  with_pool({.ready_slots = 0, .bytes_per_sec = 4'700}, [](SlotPool* pool) -> Task<> {
    const Slot slot = CO_TRY(co_await pool->acquire());
    {
      const Guest guest(slot.netns);
      const Listener wan("wan");
      for (int i = 0; i < 1'000; ++i) guest.send_udp(kGuestAddress, kPublic);
      int heard = 0;
      while (wan.hears(Milliseconds(300))) ++heard;
      EXPECT_GE(heard, 20);
      EXPECT_LE(heard, 300);
    }
    pool->release(slot.index);
    co_return Result<>{};
  });
}

// Connections that a namespace keeps track of ("" is the host's).
int tracked(const std::string& netns) {
  int count = -1;
  const auto read = [&] {
    count = std::atoi(sys::read_file("/proc/sys/net/netfilter/nf_conntrack_count").value_or("-1").c_str());
  };
  netns.empty() ? std::thread(read).join() : inside(netns, read);
  return count;
}

void begin_connections(const Guest& guest, int count) {
  for (int i = 0; i < count; ++i)
    guest.send_udp(kGuestAddress, kPublic, 0x05, static_cast<std::uint16_t>(2'000 + i));
}

TEST_F(HostNetworkRoot, AGuestHasSoManyConnectionsAndNoMore) {
  static constexpr int kMost = 50;
  with_pool({.ready_slots = 0, .connections = kMost, .connections_per_sec = 0}, [](SlotPool* pool) -> Task<> {
    const Slot slot = CO_TRY(co_await pool->acquire());
    const Slot other = CO_TRY(co_await pool->acquire());
    const int before = tracked("");
    {
      const Guest guest(slot.netns);
      const Guest neighbour(other.netns);
      const Listener wan("wan");
      // The first one waits for ARP.
      guest.send_udp(kGuestAddress, kPublic);
      EXPECT_TRUE(wan.hears(Milliseconds(5'000)));
      begin_connections(guest, 1'000);
      int heard = 1;
      while (wan.hears(Milliseconds(300))) ++heard;
      EXPECT_EQ(heard, kMost);
      EXPECT_LE(tracked(slot.netns), kMost + 2);
      EXPECT_LE(tracked("") - before, kMost + 2);
      std::printf("1000 connections begun: %d in the slot's table, %d in the host's\n", tracked(slot.netns),
                  tracked("") - before);
      for (int i = 0; i < 5; ++i) guest.send_udp(kGuestAddress, kPublic);
      for (int i = 0; i < 5; ++i) EXPECT_TRUE(wan.hears(Milliseconds(5'000))) << "one that it has goes on";
      neighbour.send_udp(kGuestAddress, kPublic);
      EXPECT_TRUE(wan.hears(Milliseconds(5'000))) << "a neighbour";
    }
    pool->release(slot.index);
    pool->release(other.index);
    CO_TRY(co_await wait_for_slots(0));
    for (int i = 0; i < 100 && tracked("") > before + 2; ++i)
      CO_TRY(co_await async::sleep_for(Milliseconds(50)));
    EXPECT_LE(tracked(""), before + 2) << "those of a guest that is gone are forgotten";
    co_return Result<>{};
  });
}

TEST_F(HostNetworkRoot, AGuestBeginsSoManyConnectionsASecond) {
  with_pool({.ready_slots = 0, .connections = 0, .connections_per_sec = 20}, [](SlotPool* pool) -> Task<> {
    const Slot slot = CO_TRY(co_await pool->acquire());
    {
      const Guest guest(slot.netns);
      const Listener wan("wan");
      guest.send_udp(kGuestAddress, kPublic);
      EXPECT_TRUE(wan.hears(Milliseconds(5'000)));
      // Of one that nobody answers every packet looks like the first.
      for (int i = 0; i < 200; ++i) {
        guest.send_udp(kGuestAddress, kPublic);
        EXPECT_TRUE(wan.hears(Milliseconds(5'000))) << "packets are not connections";
      }
      const auto began = std::chrono::steady_clock::now();
      begin_connections(guest, 1'000);
      int heard = 0;
      while (wan.hears(Milliseconds(100))) ++heard;
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
      EXPECT_GE(heard, 10);
      EXPECT_LE(heard, 20 * (took.count() + 2));
    }
    pool->release(slot.index);
    co_return Result<>{};
  });
}

// As a monitor might that its guest has taken over: it is inside of the namespace.
TEST_F(HostNetworkRoot, NoIpv6LeavesASlot) {
  with_pool({.ready_slots = 0}, [](SlotPool* pool) -> Task<> {
    const Slot slot = CO_TRY(co_await pool->acquire());
    inside(slot.netns, [] {
      const sys::Fd socket(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      sockaddr_in6 everybody{};
      everybody.sin6_family = AF_INET6;
      everybody.sin6_port = htons(kPort);
      ::inet_pton(AF_INET6, "ff02::1", &everybody.sin6_addr);
      everybody.sin6_scope_id = ::if_nametoindex("eth0");
      int refused = 0;
      // Until eth0 has an address.
      for (int i = 0; i < 200 && (refused == 0 || refused == EADDRNOTAVAIL); ++i) {
        ASSERT_LT(
            ::sendto(socket.get(), "hello", 5, 0, reinterpret_cast<sockaddr*>(&everybody), sizeof everybody),
            0);
        refused = errno;
        ::usleep(50'000);
      }
      EXPECT_EQ(refused, EPERM);
    });
    EXPECT_THAT(shell("nft list table ip6 wrenn_agent"), HasSubstr("iifname \"wrenn-v*\" drop"));
    pool->release(slot.index);
    co_return Result<>{};
  });
}

TEST_F(HostNetworkRoot, ASlotThatCannotBeRemovedIsRemovedLater) {
  with_pool({.ready_slots = 0, .max_slots = 1}, [](SlotPool* pool) -> Task<> {
    const Slot slot = CO_TRY(co_await pool->acquire());
    // Its name cannot go.
    EXPECT_EQ(::mount(nullptr, "/run/netns", nullptr, MS_REMOUNT | MS_RDONLY, nullptr), 0);
    pool->release(slot.index);
    EXPECT_EQ((co_await pool->acquire()).error().reason(), "no_network_slots");
    EXPECT_EQ(::mount(nullptr, "/run/netns", nullptr, MS_REMOUNT, nullptr), 0);
    CO_TRY(co_await wait_for_slots(0));
    pool->release(CO_TRY(co_await pool->acquire()).index);
    co_return Result<>{};
  });
}

TEST_F(HostNetworkRoot, WithoutInternetNothingLeaves) {
  with_pool({.ready_slots = 0, .internet = false}, [](SlotPool* pool) -> Task<> {
    const Slot slot = CO_TRY(co_await pool->acquire());
    {
      const Guest guest(slot.netns);
      const Listener wan("wan");
      for (int i = 0; i < 3; ++i) guest.send_udp(kGuestAddress, kPublic);
      EXPECT_FALSE(wan.hears(Milliseconds(500)));
    }
    pool->release(slot.index);
    co_return Result<>{};
  });
}

class CgroupRoot : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    auto found = CgroupManager::detect(kBlocking, "wrenn-test");
    ASSERT_TRUE(found) << found.error().to_string();
    manager_.emplace(std::move(*found));
  }
  void TearDown() override {
    if (!manager_) return;
    EXPECT_TRUE(manager_->list(kBlocking)->empty());
    for (const std::string& file : manager_->procs_files("..")) {
      // <root>/../cgroup.procs names the parent of the group to remove.
      const std::string root = file.substr(0, file.find("/../"));
      EXPECT_EQ(::rmdir(root.c_str()), 0) << root;
    }
  }
  sys::SpawnSpec in_group(const std::string& script) const {
    sys::SpawnSpec spec;
    spec.argv = {"/bin/sh", "-c", script};
    spec.cgroup_procs_files = manager_->procs_files("vm-1");
    return spec;
  }
  std::optional<CgroupManager> manager_;
};

TEST_F(CgroupRoot, EveryLimitIsSaid) {
  EXPECT_EQ(manager_->create(kBlocking, "vm-1", {.vcpus = 1, .memory_bytes = 64U << 20U, .max_pids = 0})
                .error()
                .code(),
            Code::kInvalidArgument);
}

TEST_F(CgroupRoot, RemovalEndsWhatIsInside) {
  ASSERT_TRUE(manager_->create(kBlocking, "vm-1", {.vcpus = 1, .memory_bytes = 64U << 20U, .max_pids = 16}));
  EXPECT_EQ(*manager_->list(kBlocking), std::vector<std::string>{"vm-1"});
  auto child = sys::spawn(in_group("sleep 300 & sleep 300"));
  ASSERT_TRUE(child) << child.error().to_string();
  EXPECT_GT(manager_->usage("vm-1")->memory_bytes, 0U);
  ASSERT_TRUE(manager_->remove(kBlocking, "vm-1"));
  EXPECT_EQ(child->wait_blocking(kBlocking, kLimit)->signal, SIGKILL);
  EXPECT_TRUE(manager_->remove(kBlocking, "vm-1")) << "absent is fine";
}

TEST_F(CgroupRoot, LimitsHold) {
  constexpr std::uint64_t kMemory = 32U << 20U;
  ASSERT_TRUE(manager_->create(kBlocking, "vm-1", {.vcpus = 1, .memory_bytes = kMemory, .max_pids = 4}));
  const auto forks =
      sys::run(kBlocking, in_group("for i in 1 2 3 4 5 6 7 8; do sleep 0.1 & done; wait"), kLimit);
  ASSERT_TRUE(forks);
  EXPECT_THAT(forks->stderr_text, HasSubstr("fork"));
  // Killed, or held where it stands: what the kernel does is its own setting.
  auto memory = sys::spawn(in_group("exec /usr/bin/python3 -c 'x = bytearray(200 << 20)'"));
  ASSERT_TRUE(memory);
  const auto ended = memory->wait_blocking(kBlocking, Milliseconds(2'000));
  EXPECT_FALSE(ended && ended->ok()) << "it got more than its limit";
  EXPECT_LE(manager_->usage("vm-1")->memory_bytes, kMemory);
  ASSERT_TRUE(manager_->remove(kBlocking, "vm-1"));
  (void)memory->wait_blocking(kBlocking, kLimit);
  ASSERT_TRUE(manager_->create(kBlocking, "vm-1", {.vcpus = 1, .memory_bytes = kMemory, .max_pids = 4}));
  const auto spin =
      sys::run(kBlocking, in_group("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"), kLimit);
  ASSERT_TRUE(spin);
  EXPECT_TRUE(spin->status.ok()) << "small work fits: " << spin->stderr_text;
  EXPECT_GT(manager_->usage("vm-1")->cpu_time_us, 10'000U);
  EXPECT_TRUE(manager_->remove(kBlocking, "vm-1"));
}

TEST(OverlayDisk, IsSparseAndSound) {
  const auto dir = sys::TempDir::make(kBlocking);
  ASSERT_TRUE(dir);
  const std::string path = dir->path() + "/overlay";
  constexpr std::uint64_t kGiB = std::uint64_t{1} << 30U;
  const auto made = make_overlay_disk(kBlocking, path, 20 * kGiB);
  ASSERT_TRUE(made) << made.error().to_string();
  struct stat info{};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(static_cast<std::uint64_t>(info.st_size), 20 * kGiB);
  EXPECT_LT(info.st_blocks * 512, 16 << 20);
  sys::SpawnSpec check;
  check.argv = {"e2fsck", "-fn", path};
  const auto sound = sys::run_checked(kBlocking, std::move(check), kLimit);
  EXPECT_TRUE(sound) << sound.error().to_string();
  sys::SpawnSpec describe;
  describe.argv = {"dumpe2fs", path};
  const auto described = sys::run_checked(kBlocking, std::move(describe), kLimit);
  ASSERT_TRUE(described) << described.error().to_string();
  const auto count = [&](std::string_view word) {
    std::size_t found = 0;
    for (std::size_t at = 0; (at = described->find(word, at)) != std::string::npos; ++at) ++found;
    return found;
  };
  EXPECT_EQ(count(": (Blocks "), 160U);
  EXPECT_EQ(count("ITABLE_ZEROED"), 160U) << "a guest's kernel would zero the rest";
  EXPECT_EQ(make_overlay_disk(kBlocking, path, kGiB).error().code(), Code::kAlreadyExists);
  EXPECT_GT(*free_bytes(dir->path()), 0U);
}

}  // namespace
}  // namespace wrenn::host
