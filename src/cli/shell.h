#pragma once

#include "cli/context.h"

namespace wrenn::cli {

// A terminal in a sandbox over the pty socket; the result is the shell's exit code.
Task<int> shell_command(Context* context);

}  // namespace wrenn::cli
