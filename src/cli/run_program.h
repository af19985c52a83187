#pragma once

#include <functional>
#include <string>
#include <vector>

#include "async/async.h"
#include "cli/supervisor.h"

// Programs that run to their end, and processes that are not our children.
namespace wrenn::cli {

struct Step {
  std::vector<std::string> argv;
  std::vector<std::string> env;
};

// Runs it and answers its standard output; its standard error is appended to `log_path` and, on failure, is
// in the message.
Task<std::string> run_logged(asio::thread_pool* pool, Step step, std::string log_path, Milliseconds limit);

// Runs it, hands each line of its standard error and output to `line`, and appends them to `log_path`. A
// failure carries the last lines. Ended with SIGTERM when cancelled or late.
Task<> stream_lines(Step step, std::string log_path, Milliseconds limit,
                    std::function<void(const std::string&)> line);

// Calls `line` for each line until the end of the pipe; lines above 64 KiB come in pieces.
Task<> read_lines(int fd, std::function<void(const std::string&)> line);

// SIGTERM, then SIGKILL after `limit`; returns when the process is gone. Ok if it is already.
Task<> end_process(ProcessName process, Milliseconds limit);

// What was appended since `*offset`, at most 64 KiB; a file that became shorter starts anew.
std::string read_from(const std::string& path, std::uint64_t* offset);

}  // namespace wrenn::cli
