#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "sandbox/context.h"
#include "sandbox/machine.h"

// Templates on disk: images/<name>/rootfs.ext4 is a base image; below it snapshots/<key>/ holds one
// pre-booted VM per shape, a cache of bounded size. A folder that sandboxes were started from may go at any
// time: they have links to what they use of it.
namespace wrenn::sandbox {

struct Template {
  std::string name;
  std::string dir;
  std::string rootfs;
  std::string base_image;  // version of rootfs
};

// A snapshot of a template whose files were verified. It is not evicted while somebody holds it.
class TemplateSnapshot {
 public:
  using Held = std::map<std::string, int>;  // holders by folder
  TemplateSnapshot(Held* held, std::string folder);
  TemplateSnapshot(const TemplateSnapshot&) = delete;
  TemplateSnapshot& operator=(const TemplateSnapshot&) = delete;
  ~TemplateSnapshot();
  const std::string dir;
  std::string memory_digest;

 private:
  Held* held_;
};

class TemplateStore {
 public:
  explicit TemplateStore(Context* context);

  // kNotFound reason "template_not_found".
  Result<Template> find(const std::string& name) const;
  // Names a snapshot by everything that must agree for it to be loaded.
  std::string key(const Template& from, int vcpus, int memory_mib) const;
  // The verified snapshot for this shape; nullptr when there is none. A corrupt one is removed.
  using SnapshotPtr = std::shared_ptr<const TemplateSnapshot>;
  Task<SnapshotPtr> ready(Template from, int vcpus, int memory_mib);

  // Boots the template, lets it settle and captures it, unless there is a snapshot. One build at a time.
  using Progress = std::function<void(std::string)>;
  Task<> build(Template from, int vcpus, int memory_mib, Progress progress);
  // Builds in `nursery` later on, unless the shape is of an odd size (see is_template_size), the same build
  // runs or failed a short while ago, or too many wait.
  void build_in_background(async::Nursery* nursery, Template from, int vcpus, int memory_mib);

  // Removes what a crash left, and what is too much for the cache.
  Task<> sweep();

 private:
  struct Build;
  std::string snapshot_dir(const Template& from, int vcpus, int memory_mib) const;
  // The part of a key that does not depend on the shape.
  std::string host_key(const std::string& base_image) const;
  Task<> build_now(Template from, int vcpus, int memory_mib, Progress progress);
  Task<> start(Build* build);
  Task<> settle_and_capture(Build* build);
  Task<> background_build(Template from, int vcpus, int memory_mib, std::shared_ptr<void> place);
  Task<> evict(std::string keep);

  Context* context_;
  async::Mutex building_;
  int builds_ = 0;                                  // in the background: those that run or wait
  std::map<std::string, std::int64_t> not_before_;  // snapshot folder -> Unix ms of the next background build
  TemplateSnapshot::Held held_;
};

}  // namespace wrenn::sandbox
