#include "vmm/pager.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys/file.h"
#include "sys/process.h"

namespace wrenn::vmm {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

constexpr std::uint64_t kPages = 256;
constexpr std::uint64_t kBytes = kPages * sys::kPageBytes;

char of_page(std::uint64_t page) { return static_cast<char>('a' + page % 26); }

// Memory that is missing until somebody fills it; the "VM" is this process.
class MissingMemory {
 public:
  MissingMemory() {
    base_ = static_cast<char*>(
        ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    fd_.reset(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC)));
    uffdio_api api{};
    api.api = UFFD_API;
    uffdio_register range{};
    range.range = {.start = reinterpret_cast<std::uint64_t>(base_), .len = kBytes};
    range.mode = UFFDIO_REGISTER_MODE_MISSING;
    usable_ =
        fd_ && ::ioctl(fd_.get(), UFFDIO_API, &api) == 0 && ::ioctl(fd_.get(), UFFDIO_REGISTER, &range) == 0;
  }
  MissingMemory(const MissingMemory&) = delete;
  MissingMemory& operator=(const MissingMemory&) = delete;
  ~MissingMemory() { ::munmap(base_, kBytes); }
  bool usable() const { return usable_; }
  sys::ProcessMemory memory() const { return sys::own_memory(base_, kBytes); }
  volatile char& byte(std::uint64_t page) const { return base_[page * sys::kPageBytes]; }
  sys::Fd take_fd() { return std::move(fd_); }
  // Of those that are there.
  std::uint64_t pages_in(std::uint64_t first, std::uint64_t end) const {
    std::uint64_t count = 0;
    for (const auto& run : sys::private_pages(kBlocking, memory()).value_or(std::vector<sys::PageRun>{})) {
      const auto from = std::max(run.first, first);
      const auto to = std::min(run.first + run.count, end);
      if (to > from) count += to - from;
    }
    return count;
  }

 private:
  char* base_ = nullptr;
  sys::Fd fd_;
  bool usable_ = false;
};

class PagerNeedsRoot : public testing::Test {
 protected:
  void SetUp() override {
    if (!memory_.usable()) GTEST_SKIP() << "needs userfaultfd";
    const auto file = sys::open_file(path_, O_WRONLY | O_CREAT);
    for (std::uint64_t page = 0; page < kPages; ++page) {
      ASSERT_TRUE(sys::write_all(kBlocking, file->get(), std::string(sys::kPageBytes, of_page(page))));
    }
  }
  void start(MemoryImage image, std::vector<sys::PageRun> prefetch) {
    auto pager = Pager::start(memory_.take_fd(), memory_.memory(), std::move(image), std::move(prefetch));
    ASSERT_TRUE(pager) << pager.error().to_string();
    pager_ = std::move(*pager);
    ASSERT_TRUE(loop_.run_plain(pager_->wait_filled()));
  }

  Result<sys::TempDir> dir_ = sys::TempDir::make(kBlocking, "wrenn-pager");
  std::string path_ = dir_->path() + "/memory";
  MissingMemory memory_;
  async::Loop loop_{1};
  std::unique_ptr<Pager> pager_;
};

TEST_F(PagerNeedsRoot, ServesTheFileWithStoredPagesOverIt) {
  // Two runs, in a file that begins with something else.
  const std::string stored = dir_->path() + "/pages";
  ASSERT_TRUE(sys::write_file(kBlocking, stored, "table" + std::string(3 * sys::kPageBytes, '!')));
  auto image = MemoryImage::map(
      path_, kBytes,
      {.path = stored, .offset = 5, .runs = {{.first = 100, .count = 1}, {.first = 101, .count = 2}}});
  ASSERT_TRUE(image) << image.error().to_string();
  start(std::move(*image), {});
  ASSERT_TRUE(sys::remove_file(kBlocking, stored));
  EXPECT_EQ(memory_.pages_in(0, kPages), 3U) << "more than the stored pages is there already";
  for (std::uint64_t page = 0; page < kPages; ++page) {
    ASSERT_EQ(memory_.byte(page), page >= 100 && page < 103 ? '!' : of_page(page)) << page;
  }
  memory_.byte(3) = '?';
  EXPECT_EQ(memory_.byte(3), '?');
}

// As a fault meets it that comes before all stored pages are in place.
TEST_F(PagerNeedsRoot, AnImageIsOfOnePiece) {
  const std::string stored = dir_->path() + "/pages";
  ASSERT_TRUE(sys::write_file(kBlocking, stored, std::string(3 * sys::kPageBytes, '!')));
  const auto image = MemoryImage::map(
      path_, kBytes,
      {.path = stored, .offset = 0, .runs = {{.first = 9, .count = 2}, {.first = 255, .count = 1}}});
  ASSERT_TRUE(image);
  const auto read = [&](std::uint64_t first, std::uint64_t count) {
    std::string pages;
    const auto take = [&](const char* from, std::uint64_t size, std::uint64_t offset) -> Result<> {
      EXPECT_EQ(offset, (first + pages.size()) * sys::kPageBytes);
      for (std::uint64_t at = 0; at < size; at += sys::kPageBytes) pages += from[at];
      return {};
    };
    EXPECT_TRUE(image->for_each_piece(first * sys::kPageBytes, count * sys::kPageBytes, take));
    return pages;
  };
  EXPECT_EQ(read(8, 4), std::string({of_page(8), '!', '!', of_page(11)}));
  EXPECT_EQ(read(10, 1), "!");
  EXPECT_EQ(read(0, 2), std::string({of_page(0), of_page(1)}));
  EXPECT_EQ(read(254, 2), std::string({of_page(254), '!'}));
  for (const std::vector<sys::PageRun>& bad : {std::vector<sys::PageRun>{{.first = 256, .count = 1}},
                                               {{.first = 5, .count = 2}, {.first = 6, .count = 1}},
                                               {{.first = 0, .count = 9}},
                                               {{.first = 1, .count = 0}}}) {
    EXPECT_FALSE(MemoryImage::map(path_, kBytes, {.path = stored, .offset = 0, .runs = bad}));
  }
}

// Another process with memory that is missing, as a VM's monitor.
class MissingElsewhere {
 public:
  explicit MissingElsewhere(std::uint64_t bytes) {
    int ends[2] = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return;
    ours_.reset(ends[0]);
    child_ = ::fork();
    if (child_ == 0) {
      ::close(ends[0]);
      give_memory(ends[1], bytes);
    }
    ::close(ends[1]);
    receive(bytes);
  }
  MissingElsewhere(const MissingElsewhere&) = delete;
  MissingElsewhere& operator=(const MissingElsewhere&) = delete;
  ~MissingElsewhere() {
    ours_.reset();
    if (child_ <= 0) return;
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
  }
  const sys::ProcessMemory& memory() const { return memory_; }
  sys::Fd take_fd() { return std::move(fd_); }

 private:
  // Only system calls: the parent has threads.
  [[noreturn]] static void give_memory(int socket, std::uint64_t bytes) {
    void* base =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    const int fd = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC));
    uffdio_api api{};
    api.api = UFFD_API;
    uffdio_register range{};
    range.range = {.start = reinterpret_cast<std::uint64_t>(base), .len = bytes};
    range.mode = UFFDIO_REGISTER_MODE_MISSING;
    if (::ioctl(fd, UFFDIO_API, &api) != 0 || ::ioctl(fd, UFFDIO_REGISTER, &range) != 0) ::_exit(1);
    std::uint64_t words[2] = {static_cast<std::uint64_t>(fd), range.range.start};
    (void)!::write(socket, words, sizeof words);
    (void)!::read(socket, words, 1);  // until the parent hangs up
    ::_exit(0);
  }
  void receive(std::uint64_t bytes) {
    std::uint64_t words[2] = {};
    if (::read(ours_.get(), words, sizeof words) != sizeof words) return;
    const auto pidfd = sys::open_pidfd(child_);
    if (pidfd) fd_.reset(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd->get(), words[0], 0)));
    memory_ = {.pid = child_, .parts = {{.offset = 0, .size = bytes, .address = words[1]}}};
  }
  pid_t child_ = -1;
  sys::Fd ours_;
  sys::Fd fd_;
  sys::ProcessMemory memory_;
};

// Kilobytes by the name of a line of /proc/self/status.
long status_kib(const std::string& name) {
  const auto text = sys::read_file("/proc/self/status").value_or("");
  const auto at = text.find("\n" + name + ":");
  return at == std::string::npos ? -1 : std::atol(text.c_str() + at + name.size() + 2);
}

TEST_F(PagerNeedsRoot, TakesNoMemoryOfThisProcess) {
  constexpr std::uint64_t kMany = 32'768;  // 128 MiB
  constexpr std::uint64_t kManyBytes = kMany * sys::kPageBytes;
  const std::string memory_file = dir_->path() + "/big";
  const std::string stored = dir_->path() + "/pages";
  for (const std::string& path : {memory_file, stored}) {
    const auto file = sys::open_file(path, O_WRONLY | O_CREAT);
    const std::string block(std::size_t{1} << 20U, path == stored ? 's' : 'm');
    for (std::uint64_t at = 0; at < kManyBytes; at += block.size())
      ASSERT_TRUE(sys::write_all(kBlocking, file->get(), block));
  }
  MissingElsewhere vm(kManyBytes);
  ASSERT_EQ(vm.memory().size(), kManyBytes);
  // Forgets the peak until now (proc(5)).
  ASSERT_TRUE(sys::write_existing("/proc/self/clear_refs", "5"));
  const long before = status_kib("VmRSS");
  auto image = MemoryImage::map(memory_file, kManyBytes,
                                {.path = stored, .offset = 0, .runs = {{.first = 0, .count = kMany / 2}}});
  ASSERT_TRUE(image);
  const std::vector<sys::PageRun> rest{{.first = kMany / 2, .count = kMany / 2}};
  auto pager = Pager::start(vm.take_fd(), vm.memory(), std::move(*image), rest);
  ASSERT_TRUE(pager);
  ASSERT_TRUE(loop_.run_plain((*pager)->wait_filled()));
  const auto there = [&] {
    return sys::page_count(sys::private_pages(kBlocking, vm.memory()).value_or(std::vector<sys::PageRun>{}));
  };
  for (int i = 0; i < 2'000 && there() < kMany; ++i) ::usleep(10'000);
  ASSERT_EQ(there(), kMany);
  const long grown = status_kib("VmHWM") - before;
  std::printf("128 MiB loaded for another process: this one grew by %ld KiB at most\n", grown);
  EXPECT_LT(grown, 16 * 1024);
  const auto access = sys::MemoryAccess::open(vm.memory(), O_RDONLY);
  std::string middle(2, '\0');
  ASSERT_TRUE(access->read(kBlocking, middle.data(), 2, kManyBytes / 2 - 1));
  EXPECT_EQ(middle, "sm");
}

TEST_F(PagerNeedsRoot, RemembersWhatWasNeededAndBringsItInNextTime) {
  start(std::move(*MemoryImage::map(path_, kBytes)), {{.first = 200, .count = 8}});
  for (int i = 0; i < 500 && memory_.pages_in(200, 208) < 8; ++i) ::usleep(10'000);
  EXPECT_EQ(memory_.pages_in(200, 208), 8U);
  EXPECT_EQ(memory_.pages_in(0, 200), 0U);
  EXPECT_EQ(memory_.byte(17), of_page(17));
  EXPECT_EQ(memory_.byte(21), of_page(21));
  // In blocks of four pages, neighbours as one run.
  const auto set = pager_->working_set();
  ASSERT_EQ(set.size(), 2U);
  EXPECT_EQ(set[0].first, 16U);
  EXPECT_EQ(set[0].count, 8U);
  EXPECT_EQ(set[1].first, 200U);
  EXPECT_EQ(set[1].count, 8U);
}

}  // namespace
}  // namespace wrenn::vmm
