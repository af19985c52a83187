// Guest RAM in and out of a VMM process. The file format is in docs/formats/snapshot.md.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "snapshot/limits.h"
#include "snapshot/snapshot.h"
#include "sys/file.h"

namespace wrenn::snapshot {
namespace {

struct Header {
  std::array<char, 8> magic{};  // says whether the pages' content follows the runs
  std::uint32_t version = 0;
  std::uint32_t page_bytes = 0;
  std::uint64_t runs = 0;
  std::uint64_t pages = 0;
};
constexpr std::uint32_t kPagesVersion = 1;
using Magic = std::array<char, 8>;
constexpr Magic kPagesMagic = {'W', 'R', 'N', 'P', 'A', 'G', 'E', 'S'};
constexpr Magic kRunsMagic = {'W', 'R', 'N', 'W', 'O', 'R', 'K', 'S'};

bool all_zero(const char* bytes, std::size_t size) {
  return size == 0 || (bytes[0] == 0 && std::memcmp(bytes, bytes + 1, size - 1) == 0);
}

Error corrupt(const std::string& path, std::string_view why) {
  return Error(Code::kDataLoss, fmt::format("{}: {}", path, why)).with_reason("snapshot_corrupt");
}

Result<> check_table(const Header& header, const std::vector<PageRun>& runs, std::uint64_t ram_pages,
                     const std::string& path) {
  std::uint64_t next = 0;
  std::uint64_t total = 0;
  for (const PageRun& run : runs) {
    const bool inside =
        run.first >= next && run.count > 0 && run.first < ram_pages && run.count <= ram_pages - run.first;
    if (!inside) return fail(corrupt(path, "a run of pages lies outside the memory or out of order"));
    next = run.first + run.count;
    total += run.count;
  }
  if (total != header.pages) return fail(corrupt(path, "the runs do not add up"));
  return {};
}

Result<std::vector<PageRun>> read_table(async::Blocking blocking, int fd, const Magic& magic,
                                        std::uint64_t ram_pages, const std::string& path) {
  Header header;
  const std::uint64_t file_bytes = TRY(sys::file_size(path));
  if (file_bytes < sizeof header) return fail(corrupt(path, "too short"));
  TRY(sys::pread_all(blocking, fd, reinterpret_cast<char*>(&header), sizeof header, 0));
  if (header.magic != magic || header.version != kPagesVersion || header.page_bytes != kPageBytes) {
    return fail(corrupt(path, "another kind of file, or of another version"));
  }
  if (header.runs > ram_pages || header.pages > ram_pages)
    return fail(corrupt(path, "more pages than memory"));
  const std::uint64_t content = magic == kPagesMagic ? header.pages * kPageBytes : 0;
  const std::uint64_t expected = sizeof header + header.runs * sizeof(PageRun) + content;
  if (file_bytes != expected) return fail(corrupt(path, "wrong size"));
  std::vector<PageRun> runs(header.runs);
  TRY(sys::pread_all(blocking, fd, reinterpret_cast<char*>(runs.data()), runs.size() * sizeof(PageRun),
                     sizeof header));
  TRY(check_table(header, runs, ram_pages, path));
  return runs;
}

// Answers the number of pages.
Result<std::uint64_t> write_table(async::Blocking blocking, int fd, const Magic& magic,
                                  const std::vector<PageRun>& runs, const std::string& path) {
  Header header{.magic = magic,
                .version = kPagesVersion,
                .page_bytes = static_cast<std::uint32_t>(kPageBytes),
                .runs = runs.size(),
                .pages = sys::page_count(runs)};
  // What could not be read back must not be written.
  TRY(check_table(header, runs, kMaxRamPages, path));
  TRY(sys::write_all(blocking, fd, {reinterpret_cast<const char*>(&header), sizeof header}));
  TRY(sys::write_all(blocking, fd,
                     {reinterpret_cast<const char*>(runs.data()), runs.size() * sizeof(PageRun)}));
  return header.pages;
}

// Calls `take(buffer, page)` for each block of the runs.
template <class Take>
Result<> for_each_block(async::Blocking blocking, const ProcessMemory& ram, const std::vector<PageRun>& runs,
                        Take take) {
  const auto memory = TRY(sys::MemoryAccess::open(ram, O_RDONLY));
  std::string buffer(kCopyBytes, '\0');
  for (const PageRun& run : runs) {
    for (std::uint64_t done = 0; done < run.count;) {
      const std::uint64_t pages = std::min<std::uint64_t>(run.count - done, kCopyBytes / kPageBytes);
      const std::string_view block(buffer.data(), pages * kPageBytes);
      TRY(memory.read(blocking, buffer.data(), block.size(), (run.first + done) * kPageBytes));
      TRY(take(block, run.first + done));
      done += pages;
    }
  }
  return {};
}

}  // namespace

Result<std::uint64_t> write_pages(async::Blocking blocking, const ProcessMemory& ram,
                                  const std::vector<PageRun>& runs, const std::string& path) {
  const auto file = TRY(sys::open_file(path, O_WRONLY | O_CREAT | O_EXCL, 0600));
  const std::uint64_t pages = TRY(write_table(blocking, file.get(), kPagesMagic, runs, path));
  std::uint64_t unsynced = 0;
  TRY(for_each_block(blocking, ram, runs, [&](std::string_view block, std::uint64_t) -> Result<> {
    TRY(sys::write_all(blocking, file.get(), block));
    unsynced += block.size();
    // Starts the disk early, so that the fsync at the end has little left.
    if (unsynced >= kWritebackBytes) {
      ::sync_file_range(file.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
      unsynced = 0;
    }
    return {};
  }));
  return pages * kPageBytes;
}

Result<> write_runs(async::Blocking blocking, const std::vector<PageRun>& runs, const std::string& path) {
  const auto file = TRY(sys::open_file(path, O_WRONLY | O_CREAT | O_EXCL, 0600));
  TRY(write_table(blocking, file.get(), kRunsMagic, runs, path));
  return {};
}

Result<std::vector<PageRun>> read_runs(async::Blocking blocking, std::uint64_t size,
                                       const std::string& path) {
  const auto file = TRY(sys::open_file(path, O_RDONLY));
  return read_table(blocking, file.get(), kRunsMagic, size / kPageBytes, path);
}

Result<std::vector<PageRun>> changed_pages(async::Blocking blocking, const ProcessMemory& ram,
                                           const std::vector<PageRun>& runs, const std::string& memory_file) {
  const auto file = TRY(sys::open_file(memory_file, O_RDONLY));
  std::vector<PageRun> changed;
  std::string original(kCopyBytes, '\0');
  TRY(for_each_block(blocking, ram, runs, [&](std::string_view block, std::uint64_t first) -> Result<> {
    TRY(sys::pread_all(blocking, file.get(), original.data(), block.size(), first * kPageBytes));
    for (std::size_t at = 0; at < block.size(); at += kPageBytes) {
      if (std::memcmp(block.data() + at, original.data() + at, kPageBytes) == 0) continue;
      sys::append_pages(&changed, first + at / kPageBytes);
    }
    return {};
  }));
  return changed;
}

Result<sys::StoredPages> find_pages(async::Blocking blocking, std::uint64_t size, const std::string& path) {
  const auto file = TRY(sys::open_file(path, O_RDONLY));
  auto runs = TRY(read_table(blocking, file.get(), kPagesMagic, size / kPageBytes, path));
  const std::uint64_t offset = sizeof(Header) + runs.size() * sizeof(PageRun);
  return sys::StoredPages{.path = path, .offset = offset, .runs = std::move(runs)};
}

Result<> load_pages(async::Blocking blocking, const ProcessMemory& ram, const std::string& path) {
  return sys::load_pages(blocking, ram, TRY(find_pages(blocking, ram.size(), path)));
}

namespace {

// Pages of zeros stay holes of the new file.
Result<> place_block(async::Blocking blocking, int file, std::string_view block, std::uint64_t first_page) {
  for (std::size_t at = 0; at < block.size();) {
    const bool zero = all_zero(block.data() + at, kPageBytes);
    std::size_t end = at + kPageBytes;
    while (end < block.size() && all_zero(block.data() + end, kPageBytes) == zero) end += kPageBytes;
    if (!zero) TRY(sys::pwrite_all(blocking, file, block.substr(at, end - at), first_page * kPageBytes + at));
    at = end;
  }
  return {};
}

}  // namespace

Result<std::uint64_t> write_memory(async::Blocking blocking, const ProcessMemory& ram,
                                   const std::string& path) {
  const auto runs = TRY(sys::private_pages(blocking, ram));
  const auto file = TRY(sys::open_file(path, O_WRONLY | O_CREAT | O_EXCL, 0600));
  if (::ftruncate(file.get(), static_cast<off_t>(ram.size())) != 0) return fail_errno("truncate " + path);
  TRY(for_each_block(blocking, ram, runs, [&](std::string_view block, std::uint64_t page) {
    return place_block(blocking, file.get(), block, page);
  }));
  return sys::page_count(runs) * kPageBytes;
}

}  // namespace wrenn::snapshot
