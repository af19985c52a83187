#pragma once

#include "cli/config.h"
#include "cli/context.h"

namespace wrenn::cli {

// Checks this machine and the service; the result is 1 if anything that must hold does not.
Task<int> doctor_command(Context* context);

enum class Verdict { kOk, kWarn, kFail };

// One line of the doctor's list. `fix` says what to do; empty when ok.
struct Finding {
  std::string name;
  Verdict verdict = Verdict::kOk;
  std::string detail;
  std::string why;
  std::string fix;
};

// What a check is called and why it matters; makes its findings.
struct Check {
  const char* name;
  const char* why;
  Finding ok(std::string detail) const { return {name, Verdict::kOk, std::move(detail), why, ""}; }
  Finding warn(std::string detail, std::string fix) const {
    return {name, Verdict::kWarn, std::move(detail), why, std::move(fix)};
  }
  Finding bad(std::string detail, std::string fix) const {
    return {name, Verdict::kFail, std::move(detail), why, std::move(fix)};
  }
};

// Where the host agent has its things, by the same rules as the agent's own configuration.
struct Places {
  std::string dir;
  std::string programs;     // folder of wrenn-agent
  std::string firecracker;  // from AGENT_FIRECRACKER_BIN; empty: `dir`/bin, then the search path
  std::string search_path;
  std::string kernels;
  std::string images;
  std::string sandboxes;
  std::string snapshots;
};
Places places_of(const std::string& dir, const std::string& programs, const Environment& environment);

// The checks that look at this machine only. Blocking.
std::vector<Finding> check_host(const Places& places);

// "20 ok, 2 warnings, 1 to be fixed".
std::string summary(const std::vector<Finding>& findings);

}  // namespace wrenn::cli
