#include "sys/pagemap.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>

#include <algorithm>

#include "sys/file.h"

namespace wrenn::sys {
namespace {

// linux/fs.h of kernel 6.7; Debian 12's headers are older.
struct PmScanArg {
  std::uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  std::uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
struct PageRegion {
  std::uint64_t start, end, categories;
};
constexpr std::uint64_t kPageIsFile = 1U << 2U;
constexpr std::uint64_t kPageIsPresent = 1U << 3U;
constexpr std::uint64_t kPageIsSwapped = 1U << 4U;
constexpr unsigned long kPagemapScan = _IOWR('f', 16, PmScanArg);
// pagemap entry bits: Documentation/admin-guide/mm/pagemap.rst
constexpr std::uint64_t kBitFile = 1ULL << 61U;
constexpr std::uint64_t kBitSwapped = 1ULL << 62U;
constexpr std::uint64_t kBitPresent = 1ULL << 63U;
constexpr std::size_t kRegionsPerScan = 4096;
constexpr std::size_t kEntriesPerRead = 16384;

Result<std::vector<PageRun>> scan(int fd, std::uint64_t address, std::uint64_t size) {
  std::vector<PageRegion> regions(kRegionsPerScan);
  std::vector<PageRun> runs;
  PmScanArg arg{};
  arg.size = sizeof arg;
  arg.start = address;
  arg.end = address + size;
  arg.vec = reinterpret_cast<std::uint64_t>(regions.data());
  arg.vec_len = regions.size();
  // Present or swapped, and not of the file.
  arg.category_inverted = kPageIsFile;
  arg.category_mask = kPageIsFile;
  arg.category_anyof_mask = kPageIsPresent | kPageIsSwapped;
  arg.return_mask = kPageIsPresent | kPageIsSwapped;
  while (arg.start < arg.end) {
    const int found = ::ioctl(fd, kPagemapScan, &arg);
    if (found < 0) return fail_errno("PAGEMAP_SCAN");
    for (int i = 0; i < found; ++i) {
      const PageRegion& region = regions[static_cast<std::size_t>(i)];
      append_pages(&runs, (region.start - address) / kPageBytes, (region.end - region.start) / kPageBytes);
      arg.start = region.end;
    }
    // The kernel works in batches of 512 regions and lets walk_end stand where the last full one ended, so it
    // may lie before regions already told.
    if (static_cast<std::size_t>(found) < regions.size()) break;
    arg.start = std::max(arg.start, arg.walk_end);
  }
  return runs;
}

Result<std::vector<PageRun>> read_pagemap(int fd, std::uint64_t address, std::uint64_t size) {
  std::vector<std::uint64_t> entries(kEntriesPerRead);
  std::vector<PageRun> runs;
  const std::uint64_t pages = size / kPageBytes;
  for (std::uint64_t page = 0; page < pages;) {
    const std::uint64_t want = std::min<std::uint64_t>(entries.size(), pages - page);
    TRY(pread_all(fd, reinterpret_cast<char*>(entries.data()), want * sizeof(std::uint64_t),
                  (address / kPageBytes + page) * sizeof(std::uint64_t)));
    for (std::uint64_t i = 0; i < want; ++i) {
      const std::uint64_t entry = entries[i];
      if ((entry & (kBitPresent | kBitSwapped)) != 0 && (entry & kBitFile) == 0)
        append_pages(&runs, page + i, 1);
    }
    page += want;
  }
  return runs;
}

}  // namespace

void append_pages(std::vector<PageRun>* runs, std::uint64_t first, std::uint64_t count) {
  if (!runs->empty() && runs->back().first + runs->back().count == first) {
    runs->back().count += count;
  } else {
    runs->push_back({first, count});
  }
}

Result<std::vector<PageRun>> private_pages(pid_t pid, std::uint64_t address, std::uint64_t size) {
  const auto fd = TRY(open_file(fmt::format("/proc/{}/pagemap", pid), O_RDONLY));
  auto runs = scan(fd.get(), address, size);
  const bool unsupported =
      !runs && (runs.error().sys_errno() == ENOTTY || runs.error().sys_errno() == EINVAL);
  return unsupported ? read_pagemap(fd.get(), address, size) : runs;
}

}  // namespace wrenn::sys
