#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "async/blocking.h"
#include "base/result.h"
#include "sys/fd.h"

namespace wrenn::sys {

inline constexpr std::uint64_t kPageBytes = 4096;

// A run of pages in a range of memory.
struct PageRun {
  std::uint64_t first = 0;  // page number within the range
  std::uint64_t count = 0;
};
// Adds the next page, or pages, to the runs: one run as long as they follow each other.
void append_pages(std::vector<PageRun>* runs, std::uint64_t first, std::uint64_t count = 1);
std::uint64_t page_count(const std::vector<PageRun>& runs);

// A part of a range of memory, as a process maps it. Whole pages.
struct MemoryPart {
  std::uint64_t offset = 0;   // within the range, bytes
  std::uint64_t size = 0;     // bytes
  std::uint64_t address = 0;  // in the process
};

// A range of memory in a process, say a VM's RAM in its monitor: parts that follow each other without gaps.
struct ProcessMemory {
  pid_t pid = 0;
  std::vector<MemoryPart> parts;
  std::uint64_t size() const { return parts.empty() ? 0 : parts.back().offset + parts.back().size; }
};
// As one mapping of this process.
ProcessMemory own_memory(const void* base, std::uint64_t size);

// Pages that are the process's own: those written since the mapping was made, be it of a file or of nothing,
// or put there by a userfaultfd. In order, each told once. Uses PAGEMAP_SCAN where the kernel has it (6.7),
// pagemap otherwise.
Result<std::vector<PageRun>> private_pages(async::Blocking blocking, const ProcessMemory& memory);

// Content for pages of a range of memory, in a file: that of all the runs, one after the other.
struct StoredPages {
  std::string path;
  std::uint64_t offset = 0;   // of the first run's content in the file, bytes
  std::vector<PageRun> runs;  // in order, none over another
};
// Copies the content into the memory.
Result<> load_pages(async::Blocking blocking, const ProcessMemory& memory, const StoredPages& pages);

// Reads and writes the memory of another process by offsets of its range, whatever protection its pages have.
class MemoryAccess {
 public:
  static Result<MemoryAccess> open(ProcessMemory memory, int flags);  // O_RDONLY or O_WRONLY
  Result<> read(async::Blocking blocking, char* out, std::size_t size, std::uint64_t offset) const;
  Result<> write(async::Blocking blocking, std::string_view bytes, std::uint64_t offset) const;

 private:
  MemoryAccess(ProcessMemory memory, Fd fd) : memory_(std::move(memory)), fd_(std::move(fd)) {}
  ProcessMemory memory_;
  Fd fd_;
};

}  // namespace wrenn::sys
