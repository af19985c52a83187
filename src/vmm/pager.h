#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "sys/fd.h"
#include "sys/pagemap.h"
#include "vmm/vmm.h"

// Loading a VM's memory on demand: its monitor leaves page faults to us (userfaultfd).
namespace wrenn::vmm {

// The content of a VM's memory, mapped privately into this process.
class MemoryImage {
 public:
  static Result<MemoryImage> map(const std::string& memory_file, std::uint64_t size);
  MemoryImage(MemoryImage&& other) noexcept;
  MemoryImage& operator=(MemoryImage&&) = delete;
  ~MemoryImage();
  RamRegion region() const { return {.address = reinterpret_cast<std::uint64_t>(base_), .size = size_}; }
  const char* at(std::uint64_t offset) const { return base_ + offset; }
  // Forgets what was written over the file's content in these pages.
  void forget(const sys::PageRun& run) const;

 private:
  MemoryImage(char* base, std::uint64_t size) : base_(base), size_(size) {}
  char* base_;
  std::uint64_t size_;
};

// Serves one VM's faults by a thread of its own, until destroyed. While nobody serves, the VM waits.
class Pager {
 public:
  // `fault_fd`: the userfaultfd of the VM whose memory lies at `ram`. First copies the `first` runs of
  // `image` into the VM, then forgets them here; faults are served meanwhile and afterwards from `image`.
  static Result<std::unique_ptr<Pager>> start(sys::Fd fault_fd, RamRegion ram, MemoryImage image,
                                              std::vector<sys::PageRun> first);
  ~Pager();
  // Waits until the first runs are in place; kInternal if they cannot be.
  Task<> wait_filled();

 private:
  Pager(sys::Fd fault_fd, RamRegion ram, MemoryImage image, std::vector<sys::PageRun> first);
  void run();
  Result<> fill();
  Result<> serve_waiting();
  Result<> copy(std::uint64_t offset, std::uint64_t size);

  sys::Fd fault_fd_;
  RamRegion ram_;
  MemoryImage image_;
  std::vector<sys::PageRun> first_;
  sys::Fd stop_;    // eventfd
  sys::Fd filled_;  // eventfd
  Result<> fill_result_;
  std::jthread thread_;
};

// The userfaultfd that a monitor took over from an earlier agent still holds. kNotFound when it has none, as
// one whose memory is a mapped file.
Result<sys::Fd> take_fault_fd(pid_t pid, int pidfd);

}  // namespace wrenn::vmm
