#include "vmm/pager.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/log.h"
#include "sys/file.h"

namespace wrenn::vmm {
namespace {

constexpr std::uint64_t kFillBytes = std::uint64_t{1} << 20U;
// Pages brought in around a faulting one: neighbours are likely next, and a page costs far less than a fault.
constexpr std::uint64_t kFaultBytes = std::uint64_t{16} * 1024;
constexpr std::uint64_t kBlockPages = kFaultBytes / sys::kPageBytes;
// A guest that has answered its first requests has shown what it needs.
constexpr std::chrono::seconds kRecordPeriod{10};
constexpr std::size_t kMaxWorkingSetPages = 32768;  // 128 MiB
constexpr std::size_t kEventsPerRead = 16;
// The kernel maps up to so much around a page of a file that is read, aligned (fault_around_bytes).
constexpr std::uint64_t kReadAroundBytes = std::uint64_t{64} * 1024;

Result<sys::Fd> make_event() {
  sys::Fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) return fail_errno("eventfd");
  return fd;
}

void signal_event(const sys::Fd& fd) { (void)::eventfd_write(fd.get(), 1); }

}  // namespace

// ---- FileView

Result<FileView> FileView::map(const std::string& path, std::uint64_t size) {
  const sys::Fd file = TRY(sys::open_file(path, O_RDONLY));
  if (TRY(sys::file_size(path)) < size) return fail(Code::kDataLoss, path + " is too short");
  void* base = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, file.get(), 0);
  if (base == MAP_FAILED) return fail_errno("map " + path);
  return FileView(static_cast<char*>(base), size);
}

FileView::FileView(FileView&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)), size_(other.size_) {}

FileView& FileView::operator=(FileView&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(size_, other.size_);
  return *this;
}

FileView::~FileView() {
  if (base_ != nullptr) ::munmap(base_, size_);
}

// With what the kernel maps around a page that is read.
void FileView::release(const char* from, std::uint64_t size) const {
  const std::uint64_t first = static_cast<std::uint64_t>(from - base_) / kReadAroundBytes * kReadAroundBytes;
  const std::uint64_t behind = static_cast<std::uint64_t>(from - base_) + size;
  const std::uint64_t end = (behind + kReadAroundBytes - 1) / kReadAroundBytes * kReadAroundBytes;
  ::madvise(base_ + first, std::min(end, size_) - first, MADV_DONTNEED);
}

// ---- MemoryImage

Result<MemoryImage> MemoryImage::map(const std::string& memory_file, std::uint64_t size,
                                     const sys::StoredPages& pages) {
  MemoryImage image(TRY(FileView::map(memory_file, size)), size);
  if (pages.runs.empty()) return image;
  std::uint64_t place = pages.offset;
  std::uint64_t next = 0;
  for (const sys::PageRun& run : pages.runs) {
    if (run.first < next || run.count == 0 || run.first + run.count > size / sys::kPageBytes)
      return fail(Code::kDataLoss, pages.path + ": pages out of order or outside of the memory");
    next = run.first + run.count;
    image.places_.push_back(place);
    place += run.count * sys::kPageBytes;
  }
  image.pages_.emplace(TRY(FileView::map(pages.path, place)));
  image.runs_ = pages.runs;
  return image;
}

void MemoryImage::forget_stored() {
  pages_.reset();
  runs_ = {};
  places_ = {};
}

Result<> MemoryImage::take_piece(const FileView& file, std::uint64_t at, std::uint64_t size,
                                 std::uint64_t offset, const Take& take) const {
  Result<> taken = take(file.at(at), size, offset);
  file.release(file.at(at), size);
  return taken;
}

Result<> MemoryImage::for_each_piece(std::uint64_t offset, std::uint64_t size, const Take& take) const {
  const std::uint64_t end = offset + size;
  // The first that ends behind the offset.
  auto run = std::ranges::upper_bound(runs_, offset, {}, [](const sys::PageRun& each) {
    return (each.first + each.count) * sys::kPageBytes;
  });
  while (offset < end) {
    const std::uint64_t begins = run == runs_.end() ? end : run->first * sys::kPageBytes;
    if (offset < begins) {
      const std::uint64_t piece = std::min(end, begins) - offset;
      TRY(take_piece(memory_, offset, piece, offset, take));
      offset += piece;
      continue;
    }
    const std::uint64_t place = places_[static_cast<std::size_t>(run - runs_.begin())];
    const std::uint64_t piece = std::min(end, begins + run->count * sys::kPageBytes) - offset;
    TRY(take_piece(*pages_, place + offset - begins, piece, offset, take));
    offset += piece;
    ++run;
  }
  return {};
}

// ---- Pager

Pager::Pager(sys::Fd fault_fd, sys::ProcessMemory ram, MemoryImage image, std::vector<sys::PageRun> prefetch)
    : fault_fd_(std::move(fault_fd)),
      ram_(std::move(ram)),
      image_(std::move(image)),
      prefetch_(std::move(prefetch)) {}

Result<std::unique_ptr<Pager>> Pager::start(sys::Fd fault_fd, sys::ProcessMemory ram, MemoryImage image,
                                            std::vector<sys::PageRun> prefetch) {
  if (ram.size() != image.size()) return fail(Code::kInternal, "the VM's memory has another size");
  TRY(sys::set_nonblocking(fault_fd.get()));
  std::unique_ptr<Pager> pager(
      new Pager(std::move(fault_fd), std::move(ram), std::move(image), std::move(prefetch)));
  pager->stop_ = TRY(make_event());
  pager->filled_ = TRY(make_event());
  pager->thread_ = std::jthread([self = pager.get()] { self->run(); });
  return pager;
}

Pager::~Pager() { signal_event(stop_); }

Task<> Pager::wait_filled() {
  CO_TRY(co_await sys::wait_readable(filled_.get()));
  co_return fill_result_;
}

void Pager::run() {
  fill_result_ = fill();
  record_until_ = std::chrono::steady_clock::now() + kRecordPeriod;
  signal_event(filled_);
  Result<> served = fill_result_;
  if (served) served = prefetch();
  if (served) served = serve();
  // A VM that has ended needs no pages.
  if (!served && served.error().sys_errno() != ESRCH)
    log::error("loading a VM's memory: {}", served.error().to_string());
}

Result<> Pager::serve() {
  while (true) {
    std::array<pollfd, 2> waits{pollfd{.fd = fault_fd_.get(), .events = POLLIN, .revents = 0},
                                pollfd{.fd = stop_.get(), .events = POLLIN, .revents = 0}};
    if (::poll(waits.data(), waits.size(), -1) < 0 && errno != EINTR) return fail_errno("poll");
    if (waits[1].revents != 0) return {};
    TRY(serve_waiting());
  }
}

Result<> Pager::bring_in(const sys::PageRun& run) {
  const std::uint64_t end = (run.first + run.count) * sys::kPageBytes;
  for (std::uint64_t at = run.first * sys::kPageBytes; at < end; at += kFillBytes) {
    TRY(copy(at, std::min(kFillBytes, end - at)));
    TRY(serve_waiting());
  }
  return {};
}

Result<> Pager::fill() {
  for (const sys::PageRun& run : image_.stored()) TRY(bring_in(run));
  image_.forget_stored();
  return {};
}

Result<> Pager::prefetch() {
  for (const sys::PageRun& run : prefetch_) {
    pollfd stopped{.fd = stop_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&stopped, 1, 0) != 0) return {};
    TRY(bring_in(run));
  }
  return {};
}

void Pager::record(std::uint64_t block) {
  const std::lock_guard guard(mutex_);
  if (asked_.size() >= kMaxWorkingSetPages / kBlockPages) return;
  if (std::chrono::steady_clock::now() < record_until_) asked_.push_back(block);
}

std::vector<sys::PageRun> Pager::working_set() const {
  std::vector<std::uint64_t> blocks;
  {
    const std::lock_guard guard(mutex_);
    blocks = asked_;
  }
  for (const sys::PageRun& run : prefetch_) {
    for (std::uint64_t page = run.first; page < run.first + run.count; page += kBlockPages)
      blocks.push_back(page / kBlockPages);
  }
  std::ranges::sort(blocks);
  const auto [repeated, end] = std::ranges::unique(blocks);
  blocks.erase(repeated, end);
  if (blocks.size() > kMaxWorkingSetPages / kBlockPages) blocks.resize(kMaxWorkingSetPages / kBlockPages);
  std::vector<sys::PageRun> runs;
  for (const std::uint64_t block : blocks) {
    sys::append_pages(&runs, block * kBlockPages, kBlockPages);
  }
  return runs;
}

// Also takes what only wants to be noticed: a VM that gives memory back waits until somebody has.
Result<> Pager::read_events() {
  std::array<uffd_msg, kEventsPerRead> events{};
  const ssize_t got = ::read(fault_fd_.get(), events.data(), sizeof events);
  if (got < 0) return errno == EAGAIN || errno == EINTR ? Result<>{} : fail_errno("read userfaultfd");
  for (std::size_t i = 0; i < static_cast<std::size_t>(got) / sizeof(uffd_msg); ++i) {
    if (events[i].event != UFFD_EVENT_PAGEFAULT) continue;
    waiting_.push_back(events[i].arg.pagefault.address);
  }
  return {};
}

Result<> Pager::serve_waiting() {
  TRY(read_events());
  while (!waiting_.empty()) {
    const std::uint64_t address = waiting_.front();
    waiting_.pop_front();
    const auto offset = offset_of(address);
    if (!offset) continue;
    const std::uint64_t block = *offset / kFaultBytes * kFaultBytes;
    // First, since the copy lets the guest go on.
    record(block / kFaultBytes);
    TRY(copy(block, std::min(kFaultBytes, ram_.size() - block)));
    // Waiters of a page that was there already are woken by nobody else.
    uffdio_range woken{.start = address & ~(sys::kPageBytes - 1), .len = sys::kPageBytes};
    ::ioctl(fault_fd_.get(), UFFDIO_WAKE, &woken);
  }
  return {};
}

std::optional<std::uint64_t> Pager::offset_of(std::uint64_t address) const {
  for (const sys::MemoryPart& part : ram_.parts) {
    if (address >= part.address && address - part.address < part.size)
      return part.offset + address - part.address;
  }
  return std::nullopt;
}

Result<> Pager::copy(std::uint64_t offset, std::uint64_t size) {
  for (const sys::MemoryPart& part : ram_.parts) {
    const std::uint64_t begin = std::max(offset, part.offset);
    const std::uint64_t end = std::min(offset + size, part.offset + part.size);
    if (begin >= end) continue;
    TRY(image_.for_each_piece(begin, end - begin,
                              [&](const char* from, std::uint64_t bytes, std::uint64_t at) {
                                return copy_into(part.address + at - part.offset, from, bytes);
                              }));
  }
  return {};
}

// Pages that are there already stay as they are: the guest may have changed them.
Result<> Pager::copy_into(std::uint64_t address, const char* from, std::uint64_t size) {
  while (size > 0) {
    uffdio_copy request{};
    request.dst = address;
    request.src = reinterpret_cast<std::uint64_t>(from);
    request.len = size;
    std::uint64_t done = size;
    if (::ioctl(fault_fd_.get(), UFFDIO_COPY, &request) != 0) {
      done = request.copy > 0 ? static_cast<std::uint64_t>(request.copy) : 0;
      const bool there = errno == EEXIST;
      if (done == 0 && there) done = sys::kPageBytes;
      if (done == 0 && errno != EAGAIN) return fail_errno("UFFDIO_COPY");
      // Until its event is read, memory that the VM is giving back takes no pages.
      if (done == 0) TRY(read_events());
    }
    address += done;
    from += done;
    size -= done;
  }
  return {};
}

Result<sys::Fd> take_fault_fd(async::Blocking blocking, pid_t pid, int pidfd) {
  const std::string folder = fmt::format("/proc/{}/fd", pid);
  for (const std::string& name : TRY(sys::list_dir(blocking, folder))) {
    std::array<char, 64> target{};
    if (::readlink((folder + "/" + name).c_str(), target.data(), target.size() - 1) <= 0) continue;
    if (std::string_view(target.data()) != "anon_inode:[userfaultfd]") continue;
    sys::Fd fd(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd, std::stoi(name), 0)));
    if (!fd) return fail_errno("pidfd_getfd");
    return fd;
  }
  return fail(Code::kNotFound, "its memory is not loaded on demand");
}

}  // namespace wrenn::vmm
