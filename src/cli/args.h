#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// The command line as values.
namespace wrenn::cli {

enum class Command {
  kNone,
  kUp,
  kDown,
  kDoctor,
  kCreate,
  kGet,
  kList,
  kExec,
  kShell,
  kCopy,
  kPause,
  kResume,
  kPing,
  kRemove,
};

struct Args {
  Command command = Command::kNone;
  bool json = false;
  bool quiet = false;  // no progress
  std::string base_url;
  std::string api_key;

  std::vector<std::string> ids;  // also of exec and shell (one)
  bool all = false;              // ls, rm

  // create; unset ones are the service's defaults
  std::optional<std::string> template_name;
  std::optional<std::int64_t> vcpus;
  std::optional<std::int64_t> memory_mb;
  std::optional<std::int64_t> timeout_sec;

  // exec, shell
  std::vector<std::string> command_line;
  std::int64_t exec_timeout_sec = 0;  // 0: none

  // cp
  std::string from;
  std::string to;

  // up, down
  std::string listen;
  std::string agent_listen;
  std::string dir;
  bool detach = false;
  bool verbose = false;
  int report_fd = -1;
};

// Fills `args`; nullopt to go on, else the exit code after help, version or a usage error was printed.
std::optional<int> parse_args(int argc, char** argv, Args* args);

}  // namespace wrenn::cli
