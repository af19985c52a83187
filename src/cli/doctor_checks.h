#pragma once

#include <string>

namespace wrenn::cli {

// The folder of the running program; empty when /proc is not there.
std::string own_folder();

}  // namespace wrenn::cli
