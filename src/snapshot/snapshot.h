#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "sys/process_memory.h"

// Snapshots on disk (docs/formats/snapshot.md).
//
// A template snapshot is a folder {manifest.json, state, memory, overlay}: memory is one sparse file of RAM
// size, mapped privately by every clone. A sandbox snapshot is {manifest.json, state, pages, overlay} plus a
// hard link `memory` to its template's memory: pages holds every page written since that template, so there
// are never chains, and a template stays on disk while a snapshot needs it. A `working-set` may tell what a
// resume will soon need of `memory`.
namespace wrenn::snapshot {

inline constexpr int kFormatVersion = 1;

struct Manifest {
  int format = kFormatVersion;
  std::string kind;  // "template" or "sandbox"
  std::string id;    // template key or sandbox id
  std::uint64_t generation = 0;
  std::string parent;  // template key of `memory`; empty for templates
  // What a load must find again.
  std::string driver, accel, vmm_version, cpu_model, kernel_digest, base_image;
  int vcpus = 0;
  int memory_mib = 0;
  std::string created_at;  // RFC 3339
  struct File {
    std::string name;
    std::uint64_t size = 0;  // bytes, apparent
    std::string digest;      // "xxh3-128:<hex>" over the allocated extents (offset, length, content)
  };
  std::vector<File> files;
};

using sys::PageRun;

using sys::ProcessMemory;

// Writes `pages`: the runs' content. All-zero pages are stored like any other. Answers bytes written.
// kResourceExhausted reason disk_full.
Result<std::uint64_t> write_pages(async::Blocking blocking, const ProcessMemory& ram,
                                  const std::vector<PageRun>& runs, const std::string& path);
// Those pages of the runs that differ from `memory_file`.
Result<std::vector<PageRun>> changed_pages(async::Blocking blocking, const ProcessMemory& ram,
                                           const std::vector<PageRun>& runs, const std::string& memory_file);
// A `working-set` file: runs of pages of a RAM of `size` bytes, without their content.
Result<> write_runs(async::Blocking blocking, const std::vector<PageRun>& runs, const std::string& path);
Result<std::vector<PageRun>> read_runs(async::Blocking blocking, std::uint64_t size, const std::string& path);
// Copies the content of a `pages` file into a stopped VM's RAM. Every bound is checked before any write.
Result<> load_pages(async::Blocking blocking, const ProcessMemory& ram, const std::string& path);
// Writes RAM as one sparse file, zero pages as holes (for templates): parent's content with the process's
// dirty pages over it; parent may be empty (every present page is taken).
Result<std::uint64_t> write_memory(async::Blocking blocking, const ProcessMemory& ram,
                                   const std::string& parent, const std::string& path);

// Copies allocated extents only; reflinks where the filesystem can. Preserves the size. Not fsynced.
Result<> copy_sparse(async::Blocking blocking, const std::string& from, const std::string& to);

// Collects files in `<final>.tmp-<random>`, and publishes them all or none. What is neither published nor
// discarded stays until sweep_unpublished(), since a destructor may run on the event loop.
class Writer {
 public:
  // kAlreadyExists unless replace.
  static Result<Writer> create(async::Blocking blocking, std::string final_dir);
  Writer(Writer&&) noexcept;
  Writer& operator=(Writer&&) = delete;
  ~Writer();
  std::string path(const std::string& name) const;
  // Digests and fsyncs every file, writes the manifest last, renames the folder and fsyncs its parent. An
  // existing folder of that name is replaced atomically (exchange) and the old one removed.
  Result<> publish(async::Blocking blocking, Manifest manifest);
  // Removes what was not published.
  Result<> discard(async::Blocking blocking);

 private:
  Writer(std::string dir, std::string final_dir);
  std::string dir_;
  std::string final_dir_;
};

Result<Manifest> read_manifest(async::Blocking blocking, const std::string& dir);
// Checks each file's size and digest. kDataLoss with reason "snapshot_corrupt" naming the file.
Result<> verify(async::Blocking blocking, const std::string& dir, const Manifest& manifest);
// Removes `*.tmp-*` left by a crash below `root`.
Result<> sweep_unpublished(async::Blocking blocking, const std::string& root);

}  // namespace wrenn::snapshot
