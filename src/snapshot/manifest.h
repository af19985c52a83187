#pragma once

#include <string>

#include "snapshot/limits.h"
#include "snapshot/snapshot.h"

namespace wrenn::snapshot {

std::string manifest_json(const Manifest& manifest);
// kDataLoss with reason "snapshot_corrupt" naming `path` when it is no manifest of this version.
Result<Manifest> parse_manifest(const std::string& text, const std::string& path);

}  // namespace wrenn::snapshot
