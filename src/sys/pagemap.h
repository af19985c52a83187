#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "base/result.h"

namespace wrenn::sys {

inline constexpr std::uint64_t kPageBytes = 4096;

// A run of pages in a range of memory.
struct PageRun {
  std::uint64_t first = 0;  // page number within the range
  std::uint64_t count = 0;
};

// Adds the next page, or pages, to the runs: one run as long as they follow each other.
void append_pages(std::vector<PageRun>* runs, std::uint64_t first, std::uint64_t count = 1);

// Pages of `pid` at [address, address+size) that are its own: of a private file mapping those written since
// it was mapped, of an anonymous one those touched. In order, each told once. Uses PAGEMAP_SCAN where the
// kernel has it (6.7), pagemap otherwise. Blocking.
Result<std::vector<PageRun>> private_pages(pid_t pid, std::uint64_t address, std::uint64_t size);

}  // namespace wrenn::sys
