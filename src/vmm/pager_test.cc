#include "vmm/pager.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sys/file.h"

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
  void start(MemoryImage image, PagerPlan plan) {
    auto pager = Pager::start(memory_.take_fd(), memory_.memory(), std::move(image), std::move(plan));
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

TEST_F(PagerNeedsRoot, ServesTheFileWithWhatWasFilledInOverIt) {
  auto image = MemoryImage::map(path_, kBytes);
  ASSERT_TRUE(image);
  const_cast<char*>(image->at(100 * sys::kPageBytes))[0] = '!';
  start(std::move(*image), {.first = {{.first = 100, .count = 1}}, .prefetch = {}});
  EXPECT_EQ(memory_.pages_in(0, kPages), 1U) << "more than the first pages is there already";
  EXPECT_EQ(memory_.byte(100), '!');
  for (std::uint64_t page = 0; page < kPages; ++page) {
    if (page != 100) ASSERT_EQ(memory_.byte(page), of_page(page)) << page;
  }
  memory_.byte(3) = '?';
  EXPECT_EQ(memory_.byte(3), '?');
}

TEST_F(PagerNeedsRoot, RemembersWhatWasNeededAndBringsItInNextTime) {
  start(std::move(*MemoryImage::map(path_, kBytes)), {.first = {}, .prefetch = {{.first = 200, .count = 8}}});
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
