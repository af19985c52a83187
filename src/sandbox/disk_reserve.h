#pragma once

#include <string>

#include "async/blocking.h"
#include "base/result.h"

// A file that holds space which only journals may use, so that on a full disk the sandboxes that exist can
// still be paused, resumed and destroyed, and what they did is remembered. It is given up when a journal
// needs it, and made again when there is space.
namespace wrenn::sandbox {

// True if there was a reserve.
bool use_disk_reserve(async::Blocking blocking, const std::string& sandboxes_dir);
// Makes the reserve if it is missing and more than kDiskReserveBytes would stay free. Ok otherwise.
Result<> keep_disk_reserve(async::Blocking blocking, const std::string& sandboxes_dir);

}  // namespace wrenn::sandbox
