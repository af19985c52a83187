#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace wrenn::cli {

// The folder of the running program; empty when /proc is not there.
std::string own_folder();

// What a short program prints, such as one asked for its version. Blocking.
Result<std::string> output_of(std::vector<std::string> argv);

// `path`, or the nearest folder above it that is there.
std::string nearest_folder(std::string path);

}  // namespace wrenn::cli
