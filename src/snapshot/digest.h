#pragma once

#include <string>

#include "async/blocking.h"
#include "base/result.h"

namespace wrenn::snapshot {

// "xxh3-128:<hex>" over the file's 64 KiB blocks that are not all zero, each with its offset: the same for a
// file and its sparse copy. Against bit rot and cut files, not against an attacker.
Result<std::string> file_digest(async::Blocking blocking, const std::string& path);

}  // namespace wrenn::snapshot
