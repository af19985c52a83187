#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "sandbox/context.h"
#include "sandbox/machine.h"

// Templates on disk: images/<name>/rootfs.ext4 is a base image; below it snapshots/<key>/ holds one
// pre-booted VM per shape. A named template, captured from a sandbox, also has template.json, which fixes its
// shape.
namespace wrenn::sandbox {

struct Template {
  std::string name;
  std::string dir;
  std::string rootfs;
  std::string base_image;  // identity of rootfs
  bool named = false;
  int vcpus = 0;       // of a named template
  int memory_mib = 0;  // of a named template
};

class TemplateStore {
 public:
  explicit TemplateStore(Context* context);

  // kNotFound reason "template_not_found".
  Result<Template> find(const std::string& name) const;
  // Names a snapshot by everything that must agree for it to be loaded.
  std::string key(const Template& from, int vcpus, int memory_mib) const;
  std::string snapshot_dir(const Template& from, const std::string& key) const;
  // The folder of a verified snapshot for this shape; nullopt when there is none. Verified once an agent
  // life; a corrupt one is removed.
  Task<std::optional<std::string>> ready(Template from, int vcpus, int memory_mib);

  // Boots the template, lets it settle and captures it, unless there is a snapshot. One build at a time.
  using Progress = std::function<void(std::string)>;
  Task<> build(Template from, int vcpus, int memory_mib, Progress progress);
  // Builds in `nursery` later on, unless the same build runs or failed a short while ago.
  void build_in_background(async::Nursery* nursery, Template from, int vcpus, int memory_mib);

  // Makes a named template of a paused sandbox's snapshot: memory with its pages put in, device state, disk.
  // Answers the bytes it occupies. kAlreadyExists.
  Task<std::uint64_t> capture(std::string name, std::string sandbox_snapshot_dir, std::string base_path);
  // kNotFound; kFailedPrecondition reason "template_protected" for a base image.
  Task<> remove(std::string name);
  // Removes what a crash left.
  Task<> sweep();

 private:
  Task<> build_now(Template from, int vcpus, int memory_mib, std::string key, Progress progress);
  Task<> settle_and_capture(std::string id, Template from, int vcpus, int memory_mib, std::string key,
                            Machine machine, Progress progress);
  Task<> background_build(Template from, int vcpus, int memory_mib, std::string key);

  Context* context_;
  async::Mutex building_;
  std::set<std::string> verified_;                  // snapshot folders
  std::map<std::string, std::int64_t> not_before_;  // snapshot folder -> Unix ms of the next background build
};

}  // namespace wrenn::sandbox
