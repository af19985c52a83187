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

#include <array>
#include <cerrno>

#include "base/log.h"
#include "sys/file.h"

namespace wrenn::vmm {
namespace {

constexpr std::uint64_t kFillBytes = std::uint64_t{1} << 20U;
// Pages brought in around a faulting one: neighbours are likely next, and a page costs far less than a fault.
constexpr std::uint64_t kFaultBytes = std::uint64_t{16} * 1024;
constexpr std::size_t kEventsPerRead = 16;

Result<sys::Fd> make_event() {
  sys::Fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) return fail_errno("eventfd");
  return fd;
}

void signal_event(const sys::Fd& fd) { (void)::eventfd_write(fd.get(), 1); }

}  // namespace

// ---- MemoryImage

Result<MemoryImage> MemoryImage::map(const std::string& memory_file, std::uint64_t size) {
  const sys::Fd file = TRY(sys::open_file(memory_file, O_RDONLY));
  void* base = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file.get(), 0);
  if (base == MAP_FAILED) return fail_errno("map " + memory_file);
  return MemoryImage(static_cast<char*>(base), size);
}

MemoryImage::MemoryImage(MemoryImage&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)), size_(other.size_) {}

MemoryImage::~MemoryImage() {
  if (base_ != nullptr) ::munmap(base_, size_);
}

void MemoryImage::forget(const sys::PageRun& run) const {
  ::madvise(base_ + run.first * sys::kPageBytes, run.count * sys::kPageBytes, MADV_DONTNEED);
}

// ---- Pager

Pager::Pager(sys::Fd fault_fd, RamRegion ram, MemoryImage image, std::vector<sys::PageRun> first)
    : fault_fd_(std::move(fault_fd)), ram_(ram), image_(std::move(image)), first_(std::move(first)) {}

Result<std::unique_ptr<Pager>> Pager::start(sys::Fd fault_fd, RamRegion ram, MemoryImage image,
                                            std::vector<sys::PageRun> first) {
  if (ram.size != image.region().size) return fail(Code::kInternal, "the VM's memory has another size");
  TRY(sys::set_nonblocking(fault_fd.get()));
  std::unique_ptr<Pager> pager(new Pager(std::move(fault_fd), ram, std::move(image), std::move(first)));
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
  signal_event(filled_);
  Result<> served = fill_result_;
  while (served) {
    std::array<pollfd, 2> waits{pollfd{.fd = fault_fd_.get(), .events = POLLIN, .revents = 0},
                                pollfd{.fd = stop_.get(), .events = POLLIN, .revents = 0}};
    if (::poll(waits.data(), waits.size(), -1) < 0 && errno != EINTR) return;
    if (waits[1].revents != 0) return;
    served = serve_waiting();
  }
  // A VM that has ended needs no pages.
  if (served.error().sys_errno() != ESRCH)
    log::error("loading a VM's memory: {}", served.error().to_string());
}

Result<> Pager::fill() {
  for (const sys::PageRun& run : first_) {
    const std::uint64_t end = (run.first + run.count) * sys::kPageBytes;
    for (std::uint64_t at = run.first * sys::kPageBytes; at < end; at += kFillBytes) {
      TRY(copy(at, std::min(kFillBytes, end - at)));
      TRY(serve_waiting());
    }
    image_.forget(run);
  }
  first_ = {};
  return {};
}

Result<> Pager::serve_waiting() {
  std::array<uffd_msg, kEventsPerRead> events{};
  const ssize_t got = ::read(fault_fd_.get(), events.data(), sizeof events);
  if (got < 0) return errno == EAGAIN || errno == EINTR ? Result<>{} : fail_errno("read userfaultfd");
  for (std::size_t i = 0; i < static_cast<std::size_t>(got) / sizeof(uffd_msg); ++i) {
    if (events[i].event != UFFD_EVENT_PAGEFAULT) continue;
    const std::uint64_t address = events[i].arg.pagefault.address;
    if (address < ram_.address || address >= ram_.address + ram_.size) continue;
    const std::uint64_t block = (address - ram_.address) / kFaultBytes * kFaultBytes;
    TRY(copy(block, std::min(kFaultBytes, ram_.size - block)));
    // Waiters of a page that was there already are woken by nobody else.
    uffdio_range woken{.start = address & ~(sys::kPageBytes - 1), .len = sys::kPageBytes};
    ::ioctl(fault_fd_.get(), UFFDIO_WAKE, &woken);
  }
  return {};
}

// Pages that are there already stay as they are: the guest may have changed them.
Result<> Pager::copy(std::uint64_t offset, std::uint64_t size) {
  while (size > 0) {
    uffdio_copy request{};
    request.dst = ram_.address + offset;
    request.src = reinterpret_cast<std::uint64_t>(image_.at(offset));
    request.len = size;
    std::uint64_t done = size;
    if (::ioctl(fault_fd_.get(), UFFDIO_COPY, &request) != 0) {
      done = request.copy > 0 ? static_cast<std::uint64_t>(request.copy) : 0;
      const bool there = errno == EEXIST;
      if (done == 0 && there) done = sys::kPageBytes;
      if (done == 0 && errno != EAGAIN) return fail_errno("UFFDIO_COPY");
    }
    offset += done;
    size -= done;
  }
  return {};
}

Result<sys::Fd> take_fault_fd(pid_t pid, int pidfd) {
  const std::string folder = fmt::format("/proc/{}/fd", pid);
  for (const std::string& name : TRY(sys::list_dir(folder))) {
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
