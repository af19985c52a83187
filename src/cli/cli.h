#pragma once

namespace wrenn::cli {

// The whole of `wrenn`; answers the exit code.
int run(int argc, char** argv);

}  // namespace wrenn::cli
