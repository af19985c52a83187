#pragma once

#include <string>
#include <vector>

#include "async/blocking.h"
#include "base/result.h"

// The two data folders of an agent carry the same random id in a file `.wrenn-store` each, so that an empty
// mount point or another disk is not taken for a host whose sandboxes are gone. Blocking.
namespace wrenn::sandbox {

// The id that both folders have; it is made where it is missing and nothing is missed. `resumable`: sandboxes
// whose snapshots must be there. kFailedPrecondition reason "wrong_store" naming what to mount.
Result<std::string> check_store(async::Blocking blocking, const std::string& sandboxes_dir,
                                const std::string& snapshots_dir, const std::vector<std::string>& resumable);
// Fails unless the folder still has that id.
Result<> confirm_store(async::Blocking blocking, const std::string& dir, const std::string& id);

}  // namespace wrenn::sandbox
