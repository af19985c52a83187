#pragma once

#include "cli/doctor.h"

// The doctor's look at where Wrenn keeps its things.
namespace wrenn::cli {

Finding judge_disk(std::uint64_t free_mib, const std::string& place);

// Which file system a folder is in, as far as link(2) cares: the device and the mount.
struct FileSystem {
  std::string folder;
  std::uint64_t device = 0;
  std::uint64_t mount = 0;
};
Finding judge_links(const std::vector<FileSystem>& folders);

// Whether two files in `folder` can share blocks, by trying; leaves nothing behind.
Result<bool> can_reflink(const std::string& folder);

// Blocking.
std::vector<Finding> check_data(const Places& places);

}  // namespace wrenn::cli
