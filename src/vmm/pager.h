#pragma once

#include <chrono>
#include <deque>
#include <functional>
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

// A file mapped to be read. Only the kernel reads it, for a pager: so bytes that cannot be had make a call
// fail, and nobody gets a signal.
class FileView {
 public:
  // At least `size` bytes long.
  static Result<FileView> map(const std::string& path, std::uint64_t size);
  FileView(FileView&& other) noexcept;
  FileView& operator=(FileView&& other) noexcept;
  ~FileView();
  const char* at(std::uint64_t offset) const { return base_ + offset; }
  // Gives up what this process holds of these bytes, which can be read again.
  void release(const char* from, std::uint64_t size) const;

 private:
  FileView(char* base, std::uint64_t size) : base_(base), size_(size) {}
  char* base_;
  std::uint64_t size_;
};

// The content of a VM's memory: a memory file, and the pages of a snapshot over it. It takes no memory of
// this process, however much of it is read.
class MemoryImage {
 public:
  static Result<MemoryImage> map(const std::string& memory_file, std::uint64_t size,
                                 const sys::StoredPages& pages = {});
  std::uint64_t size() const { return size_; }
  // The pages of the snapshot.
  const std::vector<sys::PageRun>& stored() const { return runs_; }
  // From here on the memory file alone is served; the pages' file may be removed, and is then really gone.
  void forget_stored();
  // Calls `take(from, size, offset)` for each piece of [offset, offset + size) that lies in one place.
  using Take = std::function<Result<>(const char* from, std::uint64_t size, std::uint64_t offset)>;
  Result<> for_each_piece(std::uint64_t offset, std::uint64_t size, const Take& take) const;

 private:
  MemoryImage(FileView memory, std::uint64_t size) : memory_(std::move(memory)), size_(size) {}
  Result<> take_piece(const FileView& file, std::uint64_t at, std::uint64_t size, std::uint64_t offset,
                      const Take& take) const;
  FileView memory_;
  std::uint64_t size_;
  std::optional<FileView> pages_;
  std::vector<sys::PageRun> runs_;
  std::vector<std::uint64_t> places_;  // of each run's content in pages_
};

// Serves one VM's faults by a thread of its own, until destroyed. While nobody serves, the VM waits.
class Pager {
 public:
  // `fault_fd`: the userfaultfd of the VM whose memory is `ram`. Faults are served from `image` from the
  // start. Its stored pages are copied first, before the VM runs; then, beside the running VM, `prefetch`.
  static Result<std::unique_ptr<Pager>> start(sys::Fd fault_fd, sys::ProcessMemory ram, MemoryImage image,
                                              std::vector<sys::PageRun> prefetch);
  ~Pager();
  // Waits until the stored pages are in place; kInternal if they cannot be.
  Task<> wait_filled();
  // What was asked for in the ten seconds after the stored pages were in place, and what was prefetched; at
  // most 128 MiB.
  std::vector<sys::PageRun> working_set() const;

 private:
  Pager(sys::Fd fault_fd, sys::ProcessMemory ram, MemoryImage image, std::vector<sys::PageRun> prefetch);
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
  std::vector<sys::PageRun> prefetch_;
  std::deque<std::uint64_t> waiting_;  // addresses that the VM waits for
  mutable std::mutex mutex_;
  std::vector<std::uint64_t> asked_;                    // blocks of kFaultBytes, by mutex_
  std::chrono::steady_clock::time_point record_until_;  // long past until the stored pages are in place
  sys::Fd stop_;                                        // eventfd
  sys::Fd filled_;                                      // eventfd
  Result<> fill_result_;
  std::jthread thread_;
};

// The userfaultfd that a monitor took over from an earlier agent still holds. kNotFound when it has none, as
// one whose memory is a mapped file.
Result<sys::Fd> take_fault_fd(async::Blocking blocking, pid_t pid, int pidfd);

}  // namespace wrenn::vmm
