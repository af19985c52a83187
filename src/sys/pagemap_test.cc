#include "sys/pagemap.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sys/file.h"

namespace wrenn::sys {
namespace {

// The kernel hands regions over in batches of its own and of the caller's; neither may show.
TEST(Pagemap, EveryOfManyRunsIsFoundOnceAndInOrder) {
  const auto folder = TempDir::make();
  for (const std::uint64_t wanted : {511, 512, 513, 700, 1500, 4095, 4096, 4097, 9000}) {
    const std::uint64_t bytes = 2 * wanted * kPageBytes;
    const auto file = open_file(folder->path() + "/memory", O_RDWR | O_CREAT | O_TRUNC);
    ASSERT_EQ(::ftruncate(file->get(), static_cast<off_t>(bytes)), 0);
    auto* base = static_cast<char*>(
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file->get(), 0));
    ASSERT_NE(base, MAP_FAILED);
    for (std::uint64_t run = 0; run < wanted; ++run) base[2 * run * kPageBytes] = 'X';
    const auto runs = private_pages(::getpid(), reinterpret_cast<std::uint64_t>(base), bytes);
    ASSERT_TRUE(runs) << runs.error().to_string();
    ASSERT_EQ(runs->size(), wanted);
    for (std::uint64_t run = 0; run < wanted; ++run) {
      ASSERT_EQ((*runs)[run].first, 2 * run);
      ASSERT_EQ((*runs)[run].count, 1U);
    }
    ::munmap(base, bytes);
  }
}

}  // namespace
}  // namespace wrenn::sys
