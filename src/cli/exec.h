#pragma once

#include "cli/context.h"

namespace wrenn::cli {

// Runs a command over the exec/stream socket: its output as it comes, its exit code as the result. Leaving
// (Ctrl-C, closed pipe, time limit) ends the command in the sandbox.
Task<int> exec_command(Context* context);

// One frame of exec/stream, decoded.
struct ExecFrame {
  enum class Kind { kStart, kStdout, kStderr, kExit, kError, kOther };
  Kind kind = Kind::kOther;
  std::string data;  // bytes of the stream, or the error's text
  std::string code;  // of an error: "not_found", "invalid_state", ...
  int exit_code = 0;
};
// kInternal when it is not a JSON object or its data does not decode.
Result<ExecFrame> parse_exec_frame(std::string_view text);

}  // namespace wrenn::cli
