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

  // Takes the host (one agent at a time), chooses the VMM, and recovers what an earlier agent left. Refuses
  // where it finds VMs or snapshots that it has no driver or folder for. When cancelled it gives nothing up.
  // After a failure call stop() all the same.
  Task<> start();
  // Finishes transitions in flight, gives unused slots back, leaves VMs running.
  Task<> stop();
  // Looks again and again at sandboxes in error whose fault may pass, until cancelled.
  Task<> mend();
  // Pauses idle sandboxes until cancelled; returns when the pauses it began are done.
  Task<> reap();
  // Samples what sandboxes use until cancelled.
  Task<> measure();
  // Instead of start(): takes the host and makes the default template's snapshot for the default shape if
  // there is none. Sandboxes of an earlier agent are left as they are.
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
  static Task<sys::Fd> take_lock(std::string path);
  Task<> lock_host();
  Task<> read_kernel_digest();
  Task<> take_host();
  Task<> recover();
  Task<std::vector<Leftover>> examine_all(std::vector<Record> records);
  Task<> recover_one(Leftover leftover);
  void keep_unreadable(const Inventory::Unreadable& folder);
  Task<> sweep(Inventory inventory);
  Task<> save_activity();
  Sandbox::Owner owner();
  Result<Record> new_record(const CreateSpec& spec, const Template& from) const;

  Context context_;
  TemplateStore templates_;
  async::Nursery nursery_;  // watches and template builds
  std::map<std::string, std::shared_ptr<Sandbox>> sandboxes_;
  std::vector<sys::Fd> locks_;
};

}  // namespace wrenn::sandbox
