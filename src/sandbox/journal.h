#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "async/blocking.h"
#include "base/result.h"
#include "sys/file.h"
#include "vmm/vmm.h"

// What the agent must know of a sandbox after it was killed at any moment: one small file per sandbox
// (docs/formats/journal.md), replaced atomically.
namespace wrenn::sandbox {

enum class Phase : std::uint8_t {
  kCreating,
  kRunning,
  kPausing,
  kPaused,
  kResuming,
  kDestroying,
  kBuilding,  // a VM that makes a template snapshot
};
std::string_view phase_name(Phase phase);

struct Record {
  std::string id;
  Phase phase = Phase::kCreating;
  std::string template_name;
  int vcpus = 0;
  int memory_mib = 0;
  std::int64_t timeout_sec = 0;
  std::string token;                // envd's access token
  std::int64_t created_ms = 0;      // Unix time
  std::int64_t last_active_ms = 0;  // Unix time, as of the last write
  // Generation of the last published snapshot. In every phase but kPaused and kResuming that snapshot is
  // consumed: it must never be resumed again.
  std::uint64_t generation = 0;
  vmm::ProcessIdentity process;  // pid 0: none known
  int slot = 0;                  // 0: none
  bool auto_paused = false;      // paused by the reaper and not yet acknowledged
  // Of the memory file that the VM maps, as it was verified when the life began; empty: none, or not known.
  std::string memory_digest;
  std::string driver;  // of the VM, "qemu" or "firecracker"; empty: not known
  std::string accel;   // "kvm" or "tcg"
};

std::string to_json(const Record& record);
Result<Record> parse_record(std::string_view text);

using sys::Durability;
Result<> write_record(async::Blocking blocking, const std::string& dir, const Record& record,
                      Durability durability);
Result<Record> read_record(async::Blocking blocking, const std::string& dir);
// Removes a sandbox's folder with all in it, the journal last, so that it still says whose the rest is should
// the agent die meanwhile. Ok when absent.
Result<> remove_folder(async::Blocking blocking, const std::string& dir);

}  // namespace wrenn::sandbox
