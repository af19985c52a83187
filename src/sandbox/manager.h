#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sandbox/context.h"
#include "sandbox/sandbox.h"
#include "sandbox/templates.h"
#include "sys/fd.h"

// All sandboxes of this host.
namespace wrenn::sandbox {

struct CreateSpec {
  std::string template_name;    // empty: the default
  std::int64_t vcpus = 0;       // 0: the default
  std::int64_t memory_mib = 0;  // 0: the default
  std::int64_t timeout_sec = 0;
  std::string id;            // empty: chosen here
  std::string access_token;  // of the guest agent; empty: chosen here
};

class Manager {
 public:
  Manager(asio::any_io_executor executor, asio::thread_pool* pool, Config config);
  ~Manager();
  Manager(const Manager&) = delete;
  Manager& operator=(const Manager&) = delete;

  // Takes the host (one agent at a time), chooses the VMM, and recovers what an earlier agent left. After a
  // failure call stop() all the same.
  Task<> start();
  // Finishes transitions in flight, gives unused slots back, leaves VMs running.
  Task<> stop();
  // Pauses idle sandboxes until cancelled; returns when the pauses it began are done.
  Task<> reap();
  // Samples what sandboxes use until cancelled.
  Task<> measure();
  // Makes the default template's snapshot for the default shape if there is none.
  Task<> prepare(TemplateStore::Progress progress);

  Task<std::shared_ptr<Sandbox>> create(CreateSpec spec);
  // kNotFound.
  Result<std::shared_ptr<Sandbox>> find(const std::string& id) const;
  std::vector<std::shared_ptr<Sandbox>> list() const;
  std::vector<std::string> auto_paused() const;
  Task<> acknowledge_auto_paused(std::vector<std::string> ids);

  TemplateStore& templates() { return templates_; }
  const Context& context() const { return context_; }

 private:
  struct Leftover {
    Record record;
    Found found;
    std::shared_ptr<vmm::Vm> vm;
  };
  static Task<sys::Fd> take_lock(std::string path);
  Task<> lock_host();
  Task<> read_kernel_digest();
  Task<std::vector<Record>> read_journals();
  Task<Leftover> examine(Record record);
  Task<> recover(std::vector<Record> records);
  Task<> recover_one(Leftover leftover);
  Task<> sweep(std::vector<Record> records);
  Task<> pause_idle(std::shared_ptr<Sandbox> sandbox);
  Sandbox::Owner owner();
  Result<Record> new_record(const CreateSpec& spec, const Template& from) const;

  Context context_;
  TemplateStore templates_;
  async::Nursery nursery_;  // watches and template builds
  std::map<std::string, std::shared_ptr<Sandbox>> sandboxes_;
  std::vector<sys::Fd> locks_;
};

}  // namespace wrenn::sandbox
