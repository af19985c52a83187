#include "sys/process_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys/file.h"

namespace wrenn::sys {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

// The kernel hands regions over in batches of its own and of the caller's; neither may show.
TEST(ProcessMemory, EveryOfManyRunsIsFoundOnceAndInOrder) {
  const auto folder = TempDir::make(kBlocking);
  for (const std::uint64_t wanted : {511, 512, 513, 700, 1500, 4095, 4096, 4097, 9000}) {
    const std::uint64_t bytes = 2 * wanted * kPageBytes;
    const auto file = open_file(folder->path() + "/memory", O_RDWR | O_CREAT | O_TRUNC);
    ASSERT_EQ(::ftruncate(file->get(), static_cast<off_t>(bytes)), 0);
    auto* base = static_cast<char*>(
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file->get(), 0));
    ASSERT_NE(base, MAP_FAILED);
    for (std::uint64_t run = 0; run < wanted; ++run) base[2 * run * kPageBytes] = 'X';
    const auto runs = private_pages(kBlocking, own_memory(base, bytes));
    ASSERT_TRUE(runs) << runs.error().to_string();
    ASSERT_EQ(runs->size(), wanted);
    for (std::uint64_t run = 0; run < wanted; ++run) {
      ASSERT_EQ((*runs)[run].first, 2 * run);
      ASSERT_EQ((*runs)[run].count, 1U);
    }
    ::munmap(base, bytes);
  }
}

TEST(ProcessMemory, PagesThatWereOnlyReadAreNobodysOwn) {
  constexpr std::uint64_t kBytes = 8 * kPageBytes;
  auto* base = static_cast<volatile char*>(
      ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  EXPECT_EQ(base[2 * kPageBytes], 0);
  base[5 * kPageBytes] = 0;
  const auto runs = private_pages(kBlocking, own_memory(const_cast<const char*>(base), kBytes));
  ASSERT_TRUE(runs);
  ASSERT_EQ(runs->size(), 1U);
  EXPECT_EQ((*runs)[0].first, 5U);
  EXPECT_EQ((*runs)[0].count, 1U);
  ::munmap(const_cast<char*>(base), kBytes);
}

// Two parts, the second at the lower address, as a VM's memory around the hole for its devices.
// The kernel then answers that it wrote nothing, which must not be tried for ever.
TEST(ProcessMemory, OfAProcessThatHasEndedTakesAndGivesNothing) {
  char page[kPageBytes] = {};
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  ProcessMemory memory = own_memory(page, sizeof page);
  memory.pid = child;
  const auto access = MemoryAccess::open(memory, O_RDWR);
  ASSERT_TRUE(access);
  EXPECT_TRUE(access->write(kBlocking, "alive", 0));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_FALSE(access->write(kBlocking, "gone", 0));
  EXPECT_FALSE(access->read(kBlocking, page, sizeof page, 0));
}

TEST(ProcessMemory, PartsAreOneRange) {
  constexpr std::uint64_t kPart = 4 * kPageBytes;
  auto* base = static_cast<char*>(
      ::mmap(nullptr, 2 * kPart, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(base, MAP_FAILED);
  const auto address = reinterpret_cast<std::uint64_t>(base);
  const ProcessMemory memory{.pid = ::getpid(),
                             .parts = {{.offset = 0, .size = kPart, .address = address + kPart},
                                       {.offset = kPart, .size = kPart, .address = address}}};
  const auto access = MemoryAccess::open(memory, O_RDWR);
  ASSERT_TRUE(access);
  const std::string text = std::string(kPageBytes, 'a') + std::string(kPageBytes, 'b');
  ASSERT_TRUE(access->write(kBlocking, text, kPart - kPageBytes)) << "across the parts' border";
  EXPECT_EQ(base[2 * kPart - 1], 'a');
  EXPECT_EQ(base[0], 'b');
  std::string back(text.size(), '\0');
  ASSERT_TRUE(access->read(kBlocking, back.data(), back.size(), kPart - kPageBytes));
  EXPECT_EQ(back, text);
  const auto runs = private_pages(kBlocking, memory);
  ASSERT_TRUE(runs);
  ASSERT_EQ(runs->size(), 1U);
  EXPECT_EQ((*runs)[0].first, 3U);
  EXPECT_EQ((*runs)[0].count, 2U);
  EXPECT_FALSE(access->read(kBlocking, back.data(), 1, 2 * kPart));
  EXPECT_FALSE(access->write(kBlocking, "x", 2 * kPart));
  EXPECT_FALSE(access->write(kBlocking, "xx", ~std::uint64_t{0}));
  ::munmap(base, 2 * kPart);
}

}  // namespace
}  // namespace wrenn::sys
