#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "async/blocking.h"
#include "base/result.h"
#include "snapshot/verified_files.h"
#include "sys/process_memory.h"

// Snapshots on disk (docs/formats/snapshot.md).
//
// A template snapshot is a folder {manifest.json, state, memory, overlay}: memory is one sparse file of RAM
// size, mapped privately by every clone. A sandbox snapshot is {manifest.json, state, pages, overlay} plus a
// hard link `memory` to its template's memory: pages holds every page written since that template, so there
// are never chains, and a template stays on disk while a snapshot needs it. A `working-set` may tell what a
// resume will soon need of `memory`. The manifest has the digest of every file, `memory` too.
namespace wrenn::snapshot {

inline constexpr int kFormatVersion = 2;
// Its sandbox snapshots do not list `memory`; read, and not written any more.
inline constexpr int kOldestFormat = 1;

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
    std::string digest;      // see file_digest
  };
  std::vector<File> files;
  // nullptr: the manifest has no such file.
  const File* find(std::string_view name) const;
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
// Where a `pages` file has what, for a RAM of `size` bytes. Every bound is checked.
Result<sys::StoredPages> find_pages(async::Blocking blocking, std::uint64_t size, const std::string& path);
// Copies its content into a stopped VM's RAM.
Result<> load_pages(async::Blocking blocking, const ProcessMemory& ram, const std::string& path);
// Writes RAM as one sparse file, zero pages as holes: every present page of a guest that was booted.
Result<std::uint64_t> write_memory(async::Blocking blocking, const ProcessMemory& ram,
                                   const std::string& path);

// Collects files in `<final>.tmp-<random>`, and publishes them all or none. What is neither published nor
// discarded stays until sweep_unpublished(), since a destructor may run on the event loop.
class Writer {
 public:
  static Result<Writer> create(async::Blocking blocking, std::string final_dir);
  Writer(Writer&&) noexcept;
  Writer& operator=(Writer&&) = delete;
  ~Writer();
  std::string path(const std::string& name) const;
  // Digests and fsyncs every file, writes the manifest last, renames the folder and fsyncs its parent;
  // answers the manifest with its files. A file that `verified` knows is on the disk already and is not read
  // again. One that manifest.files names with a digest must have it, else kDataLoss reason
  // "snapshot_corrupt". An existing folder of that name is replaced atomically (exchange) and the old one
  // removed. After an error nothing is published, and what was there before still is; what fails afterwards
  // is only logged.
  Result<Manifest> publish(async::Blocking blocking, Manifest manifest, const VerifiedFiles& verified);
  // Removes what was not published.
  Result<> discard(async::Blocking blocking);

 private:
  Writer(std::string dir, std::string final_dir);
  std::string dir_;
  std::string final_dir_;
};

Result<Manifest> read_manifest(async::Blocking blocking, const std::string& dir);
// Checks each file's size and digest, shared ones (all of a template, `memory` of a sandbox) once a process.
// kDataLoss with reason "snapshot_corrupt" naming the file.
Result<> verify(async::Blocking blocking, const std::string& dir, const Manifest& manifest,
                VerifiedFiles* verified);
// Takes a published snapshot away: by one rename, then file by file. What is left when files cannot be
// removed is swept later, and logged. Ok when absent.
Result<> remove(async::Blocking blocking, const std::string& dir);
// Removes `*.tmp-*` left by a crash below `root`. One that cannot be removed is logged and stays.
Result<> sweep_unpublished(async::Blocking blocking, const std::string& root);

}  // namespace wrenn::snapshot
