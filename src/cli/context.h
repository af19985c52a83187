#pragma once

#include "async/async.h"
#include "cli/api.h"
#include "cli/args.h"
#include "cli/output.h"

namespace wrenn::cli {

// What every command works with. A command's result is the program's exit code.
struct Context {
  Args args;
  async::Loop* loop = nullptr;
  std::unique_ptr<Api> api;

  Progress progress() const { return Progress(args.quiet); }
};

}  // namespace wrenn::cli
