#pragma once

#include "cli/context.h"

// create, get, ls, pause, resume, ping, rm.
namespace wrenn::cli {

Task<int> create_command(Context* context);
Task<int> list_command(Context* context);
// get, pause, resume, ping and rm: the same call for each id; all are tried, the worst result is the exit
// code.
Task<int> each_command(Context* context);

}  // namespace wrenn::cli
