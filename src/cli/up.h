#pragma once

#include "cli/context.h"
#include "cli/supervisor.h"

// `wrenn up` and `wrenn down`: control plane and host agent on one machine.
namespace wrenn::cli {

Task<int> up_command(Context* context);
Task<int> down_command(Context* context);

// What a running `wrenn up` leaves for `wrenn down`, doctor and its successor: DIR/run/up.json.
struct UpState {
  ProcessName self;
  std::string url;
  std::vector<ProcessName> children;
};
std::string state_path(const std::string& dir);
Result<> save_state(const std::string& dir, const UpState& state);
// kNotFound without a file.
Result<UpState> load_state(const std::string& dir);

// Where the control plane listens, as clients on this machine write it: ":8000" is http://localhost:8000.
Result<std::string> local_url(const std::string& listen);

// What is missing below `dir` for a guest to boot, as paths.
std::vector<std::string> missing_guest_files(const std::string& dir);

}  // namespace wrenn::cli
