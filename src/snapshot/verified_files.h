#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "async/blocking.h"
#include "base/result.h"
#include "sys/file.h"

namespace wrenn::snapshot {

// Files whose content was compared with its digest in this process's life. What many snapshots share by hard
// links is thereby read once, and never trusted unread. For any thread.
class VerifiedFiles {
 public:
  // The digest of the file at `path`, if this very file (device, inode, size, time of change) was verified.
  std::optional<std::string> find(const std::string& path) const;
  // kDataLoss with reason "snapshot_corrupt" unless the file has that size and digest. Reads it if it was not
  // verified before.
  Result<> verify(async::Blocking blocking, const std::string& path, std::uint64_t size,
                  const std::string& digest);

 private:
  void remember(const sys::FileIdentity& file, const std::string& digest);

  mutable std::mutex mutex_;
  std::map<sys::FileIdentity, std::string> digests_;  // by mutex_
};

// The same without a memory.
Result<> verify_file(async::Blocking blocking, const std::string& path, std::uint64_t size,
                     const std::string& digest);

}  // namespace wrenn::snapshot
