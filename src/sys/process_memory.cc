#include "sys/process_memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

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
// The one page of zeros, mapped where nothing was written.
constexpr std::uint64_t kPageIsZero = 1U << 5U;
constexpr unsigned long kPagemapScan = _IOWR('f', 16, PmScanArg);
// pagemap entry bits: Documentation/admin-guide/mm/pagemap.rst
constexpr std::uint64_t kBitFile = 1ULL << 61U;
constexpr std::uint64_t kBitSwapped = 1ULL << 62U;
constexpr std::uint64_t kBitPresent = 1ULL << 63U;
constexpr std::uint64_t kFrameBits = (1ULL << 55U) - 1;
constexpr std::size_t kRegionsPerScan = 4096;
constexpr std::size_t kEntriesPerRead = 16384;
constexpr std::size_t kCopyBytes = std::size_t{1} << 20U;

Result<> scan(int fd, const MemoryPart& part, std::vector<PageRun>* runs) {
  std::vector<PageRegion> regions(kRegionsPerScan);
  PmScanArg arg{};
  arg.size = sizeof arg;
  arg.start = part.address;
  arg.end = part.address + part.size;
  arg.vec = reinterpret_cast<std::uint64_t>(regions.data());
  arg.vec_len = regions.size();
  // Present or swapped, and not of the file or the page of zeros.
  arg.category_inverted = kPageIsFile | kPageIsZero;
  arg.category_mask = kPageIsFile | kPageIsZero;
  arg.category_anyof_mask = kPageIsPresent | kPageIsSwapped;
  arg.return_mask = kPageIsPresent | kPageIsSwapped;
  while (arg.start < arg.end) {
    const int found = ::ioctl(fd, kPagemapScan, &arg);
    if (found < 0) return fail_errno("PAGEMAP_SCAN");
    for (int i = 0; i < found; ++i) {
      const PageRegion& region = regions[static_cast<std::size_t>(i)];
      append_pages(runs, (part.offset + region.start - part.address) / kPageBytes,
                   (region.end - region.start) / kPageBytes);
      arg.start = region.end;
    }
    // The kernel works in batches of 512 regions and lets walk_end stand where the last full one ended, so it
    // may lie before regions already told.
    if (static_cast<std::size_t>(found) < regions.size()) break;
    arg.start = std::max(arg.start, arg.walk_end);
  }
  return {};
}

// The frame of the page of zeros, which a page that was only read has; 0 when the kernel hides frames.
Result<std::uint64_t> zero_frame(async::Blocking blocking) {
  void* page = ::mmap(nullptr, kPageBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return fail_errno("mmap");
  std::uint64_t entry = *static_cast<volatile const char*>(page) == 0 ? 0 : 1;
  const auto fd = open_file("/proc/self/pagemap", O_RDONLY);
  const std::uint64_t at = reinterpret_cast<std::uint64_t>(page) / kPageBytes * sizeof entry;
  const Result<> read = fd ? pread_all(blocking, fd->get(), reinterpret_cast<char*>(&entry), sizeof entry, at)
                           : Result<>(std::unexpected(fd.error()));
  ::munmap(page, kPageBytes);
  if (!read) return std::unexpected(read.error());
  return entry & kFrameBits;
}

Result<> read_pagemap(async::Blocking blocking, int fd, const MemoryPart& part, std::vector<PageRun>* runs) {
  const std::uint64_t zero = TRY(zero_frame(blocking));
  std::vector<std::uint64_t> entries(kEntriesPerRead);
  const std::uint64_t pages = part.size / kPageBytes;
  for (std::uint64_t page = 0; page < pages;) {
    const std::uint64_t want = std::min<std::uint64_t>(entries.size(), pages - page);
    TRY(pread_all(blocking, fd, reinterpret_cast<char*>(entries.data()), want * sizeof(std::uint64_t),
                  (part.address / kPageBytes + page) * sizeof(std::uint64_t)));
    for (std::uint64_t i = 0; i < want; ++i) {
      const std::uint64_t entry = entries[i];
      const bool zeros = zero != 0 && (entry & kBitPresent) != 0 && (entry & kFrameBits) == zero;
      if ((entry & (kBitPresent | kBitSwapped)) != 0 && (entry & kBitFile) == 0 && !zeros)
        append_pages(runs, part.offset / kPageBytes + page + i);
    }
    page += want;
  }
  return {};
}

// Calls `take(done, count, address)` for each piece of [offset, offset + size) that lies in one part.
template <class Take>
Result<> for_each_piece(const ProcessMemory& memory, std::uint64_t size, std::uint64_t offset, Take take) {
  if (offset > memory.size() || size > memory.size() - offset)
    return fail(Code::kInternal, "outside of the process's memory");
  std::uint64_t done = 0;
  for (const MemoryPart& part : memory.parts) {
    const std::uint64_t at = offset + done;
    if (done == size || at >= part.offset + part.size) continue;
    const std::uint64_t count = std::min(size - done, part.offset + part.size - at);
    TRY(take(done, count, part.address + at - part.offset));
    done += count;
  }
  return {};
}

}  // namespace

void append_pages(std::vector<PageRun>* runs, std::uint64_t first, std::uint64_t count) {
  if (!runs->empty() && runs->back().first + runs->back().count == first) {
    runs->back().count += count;
  } else {
    runs->push_back({first, count});
  }
}

std::uint64_t page_count(const std::vector<PageRun>& runs) {
  std::uint64_t pages = 0;
  for (const PageRun& run : runs) pages += run.count;
  return pages;
}

ProcessMemory own_memory(const void* base, std::uint64_t size) {
  return {.pid = ::getpid(),
          .parts = {{.offset = 0, .size = size, .address = reinterpret_cast<std::uint64_t>(base)}}};
}

Result<std::vector<PageRun>> private_pages(async::Blocking blocking, const ProcessMemory& memory) {
  const auto fd = TRY(open_file(fmt::format("/proc/{}/pagemap", memory.pid), O_RDONLY));
  std::vector<PageRun> runs;
  for (const MemoryPart& part : memory.parts) {
    const std::size_t before = runs.size();
    const Result<> scanned = scan(fd.get(), part, &runs);
    if (scanned) continue;
    const int code = scanned.error().sys_errno();
    if (code != ENOTTY && code != EINVAL) return std::unexpected(scanned.error());
    runs.resize(before);
    TRY(read_pagemap(blocking, fd.get(), part, &runs));
  }
  return runs;
}

Result<> load_pages(async::Blocking blocking, const ProcessMemory& memory, const StoredPages& pages) {
  const auto file = TRY(open_file(pages.path, O_RDONLY));
  const auto access = TRY(MemoryAccess::open(memory, O_WRONLY));
  std::string buffer(kCopyBytes, '\0');
  std::uint64_t at = pages.offset;
  for (const PageRun& run : pages.runs) {
    const std::uint64_t end = (run.first + run.count) * kPageBytes;
    for (std::uint64_t to = run.first * kPageBytes; to < end;) {
      const std::uint64_t size = std::min<std::uint64_t>(buffer.size(), end - to);
      TRY(pread_all(blocking, file.get(), buffer.data(), size, at));
      TRY(access.write(blocking, std::string_view(buffer).substr(0, size), to));
      at += size;
      to += size;
    }
  }
  return {};
}

Result<MemoryAccess> MemoryAccess::open(ProcessMemory memory, int flags) {
  Fd fd = TRY(open_file(fmt::format("/proc/{}/mem", memory.pid), flags));
  return MemoryAccess(std::move(memory), std::move(fd));
}

Result<> MemoryAccess::read(async::Blocking blocking, char* out, std::size_t size,
                            std::uint64_t offset) const {
  return for_each_piece(memory_, size, offset,
                        [&](std::uint64_t done, std::uint64_t count, std::uint64_t address) {
                          return pread_all(blocking, fd_.get(), out + done, count, address);
                        });
}

Result<> MemoryAccess::write(async::Blocking blocking, std::string_view bytes, std::uint64_t offset) const {
  return for_each_piece(memory_, bytes.size(), offset,
                        [&](std::uint64_t done, std::uint64_t count, std::uint64_t address) {
                          return pwrite_all(blocking, fd_.get(), bytes.substr(done, count), address);
                        });
}

}  // namespace wrenn::sys
