#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "sys/fd.h"
#include "sys/process_memory.h"
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
  sys::ProcessMemory memory() const { return sys::own_memory(base_, size_); }
  std::uint64_t size() const { return size_; }
  const char* at(std::uint64_t offset) const { return base_ + offset; }
  // Forgets what was written over the file's content in these pages.
  void forget(const sys::PageRun& run) const;

 private:
  MemoryImage(char* base, std::uint64_t size) : base_(base), size_(size) {}
  char* base_;
  std::uint64_t size_;
};

struct PagerPlan {
  std::vector<sys::PageRun> first;     // copied into the VM before it runs, then forgotten in the image
  std::vector<sys::PageRun> prefetch;  // copied next, beside the running VM
};

// Serves one VM's faults by a thread of its own, until destroyed. While nobody serves, the VM waits.
class Pager {
 public:
  // `fault_fd`: the userfaultfd of the VM whose memory is `ram`. Faults are served from `image` from the
  // start.
  static Result<std::unique_ptr<Pager>> start(sys::Fd fault_fd, sys::ProcessMemory ram, MemoryImage image,
                                              PagerPlan plan);
  ~Pager();
  // Waits until the first runs are in place; kInternal if they cannot be.
  Task<> wait_filled();
  // What was asked for in the ten seconds after the first runs were in place, and what was prefetched; at
  // most 128 MiB.
  std::vector<sys::PageRun> working_set() const;

 private:
  Pager(sys::Fd fault_fd, sys::ProcessMemory ram, MemoryImage image, PagerPlan plan);
  void run();
  Result<> serve();
  Result<> bring_in(const sys::PageRun& run);
  Result<> fill();
  Result<> prefetch();
  Result<> read_events();
  Result<> serve_waiting();
  void record(std::uint64_t block);
  std::optional<std::uint64_t> offset_of(std::uint64_t address) const;
  Result<> copy(std::uint64_t offset, std::uint64_t size);
  Result<> copy_into(std::uint64_t address, const char* from, std::uint64_t size);

  sys::Fd fault_fd_;
  sys::ProcessMemory ram_;
  MemoryImage image_;
  PagerPlan plan_;
  std::deque<std::uint64_t> waiting_;  // addresses that the VM waits for
  mutable std::mutex mutex_;
  std::vector<std::uint64_t> asked_;  // blocks of kFaultBytes, by mutex_
  std::chrono::steady_clock::time_point record_until_;
  sys::Fd stop_;    // eventfd
  sys::Fd filled_;  // eventfd
  Result<> fill_result_;
  std::jthread thread_;
};

// The userfaultfd that a monitor took over from an earlier agent still holds. kNotFound when it has none, as
// one whose memory is a mapped file.
Result<sys::Fd> take_fault_fd(async::Blocking blocking, pid_t pid, int pidfd);

}  // namespace wrenn::vmm
