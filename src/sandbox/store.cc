#include "sandbox/store.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "base/bytes.h"
#include "sandbox/files.h"
#include "sys/file.h"

namespace wrenn::sandbox {
namespace {

constexpr const char* kMarker = "/.wrenn-store";
constexpr std::size_t kMaxMarkerBytes = 256;

Result<std::optional<std::string>> read_marker(const std::string& dir) {
  auto text = sys::read_file(dir + kMarker, kMaxMarkerBytes);
  if (!text && text.error().sys_errno() == ENOENT) return std::optional<std::string>{};
  if (!text) return std::unexpected(std::move(text).error());
  return std::string(trim(*text));
}

std::unexpected<Error> wrong(std::string message) {
  return fail(Error(Code::kFailedPrecondition, std::move(message)).with_reason("wrong_store"));
}

Result<bool> any_there(const std::string& dir, const std::vector<std::string>& ids) {
  for (const std::string& id : ids) {
    if (TRY(present(dir + "/" + id))) return true;
  }
  return false;
}

Result<bool> has_folders(async::Blocking blocking, const std::string& dir) {
  const auto names = TRY(sys::list_dir(blocking, dir));
  return std::ranges::any_of(names, [&](const std::string& name) {
    return !name.starts_with('.') && name != "lost+found" && sys::is_directory(dir + "/" + name);
  });
}

}  // namespace

Result<std::string> check_store(async::Blocking blocking, const std::string& sandboxes_dir,
                                const std::string& snapshots_dir, const std::vector<std::string>& resumable) {
  const auto ours = TRY(read_marker(sandboxes_dir));
  const auto theirs = TRY(read_marker(snapshots_dir));
  if (ours && theirs) {
    if (*ours == *theirs) return *ours;
    return wrong(
        fmt::format("{} and {} belong to different stores ({}{} differ): mount the right disks, or set "
                    "AGENT_SANDBOXES_PATH and AGENT_SNAPSHOTS_PATH",
                    sandboxes_dir, snapshots_dir, "their files ", kMarker + 1));
  }
  if (theirs && TRY(has_folders(blocking, snapshots_dir))) {
    return wrong(
        fmt::format("{0} has no file {1} but {2}, which holds snapshots, does: mount the disk of the "
                    "sandboxes or set AGENT_SANDBOXES_PATH; if they are gone for good, copy {2}/{1} there",
                    sandboxes_dir, kMarker + 1, snapshots_dir));
  }
  if (!theirs && !resumable.empty() && !TRY(any_there(snapshots_dir, resumable))) {
    return wrong(
        fmt::format("{} holds none of the {} snapshots that paused sandboxes need: mount their disk or "
                    "set AGENT_SNAPSHOTS_PATH; if they are gone for good, put the same text into a file "
                    "{} there and in {}",
                    snapshots_dir, resumable.size(), kMarker + 1, sandboxes_dir));
  }
  std::string id = ours ? *ours : theirs ? *theirs : random_id("store-");
  if (!theirs) TRY(sys::write_file_atomic(blocking, snapshots_dir + kMarker, id + "\n", 0600));
  if (!ours) TRY(sys::write_file_atomic(blocking, sandboxes_dir + kMarker, id + "\n", 0600));
  return id;
}

Result<> confirm_store(async::Blocking /*blocking*/, const std::string& dir, const std::string& id) {
  const auto found = TRY(read_marker(dir));
  if (found == id) return {};
  return wrong(fmt::format("{} is not the folder that this agent started with", dir));
}

}  // namespace wrenn::sandbox
