#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "async/async.h"
#include "host/host.h"
#include "net/http.h"
#include "snapshot/verified_files.h"
#include "vmm/vmm.h"

// What every part of the sandbox layer works with.
namespace wrenn::sandbox {

struct Config {
  std::string kernels_dir;
  std::string images_dir;
  std::string sandboxes_dir;
  std::string snapshots_dir;
  std::string cache_dir;
  std::string driver = "auto";
  std::string firecracker;  // its binary
  // What template snapshots may occupy together; 0: a share of the disk, see kTemplateCacheShare.
  std::uint64_t template_cache_bytes = 0;
  host::NetworkOptions network;
  vmm::DeviceLimits limits;
};

// Made by the manager's start and alive as long as it; pointers to it are borrowed.
struct Context {
  asio::any_io_executor executor;
  asio::thread_pool* pool = nullptr;
  Config config;
  std::shared_ptr<vmm::Driver> driver;
  std::unique_ptr<host::SlotPool> slots;
  std::unique_ptr<host::CgroupManager> cgroups;
  std::unique_ptr<async::Semaphore> starts;  // see take_start
  std::shared_ptr<net::HttpClient> http;
  std::string kernel_digest;
  snapshot::VerifiedFiles verified;
  std::string store_id;  // of both data folders
};

// The files of one sandbox. Base image and template memory are hard links, so that a sandbox outlives its
// template.
struct Paths {
  Paths(const Config& config, const std::string& id)
      : dir(config.sandboxes_dir + "/" + id),
        base(dir + "/base.ext4"),
        memory(dir + "/memory"),
        overlay(dir + "/overlay.ext4"),
        run_dir(dir + "/run"),
        snapshot_dir(config.snapshots_dir + "/" + id) {}
  std::string dir, base, memory, overlay, run_dir, snapshot_dir;
};

inline std::int64_t unix_ms() {
  return std::chrono::duration_cast<Milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace wrenn::sandbox
