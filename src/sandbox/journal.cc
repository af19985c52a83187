#include "sandbox/journal.h"

#include <fmt/format.h>

#include <array>
#include <boost/json.hpp>
#include <limits>
#include <utility>

#include "model/sandbox.h"
#include "sandbox/disk_reserve.h"
#include "sys/file.h"

namespace wrenn::sandbox {
namespace {

namespace json = boost::json;

constexpr int kJournalVersion = 1;
constexpr std::size_t kMaxJournalBytes = 64 * 1024;
constexpr std::string_view kJournalName = "journal.json";

constexpr std::array<std::pair<Phase, std::string_view>, 7> kPhaseNames{{{Phase::kCreating, "creating"},
                                                                         {Phase::kRunning, "running"},
                                                                         {Phase::kPausing, "pausing"},
                                                                         {Phase::kPaused, "paused"},
                                                                         {Phase::kResuming, "resuming"},
                                                                         {Phase::kDestroying, "destroying"},
                                                                         {Phase::kBuilding, "building"}}};

std::unexpected<Error> bad(std::string what) { return fail(Code::kDataLoss, "journal: " + std::move(what)); }

Result<std::int64_t> integer(const json::object& object, std::string_view name, std::int64_t low,
                             std::int64_t high) {
  const json::value* value = object.if_contains(name);
  if (value == nullptr) return bad(std::string(name) + " is missing");
  boost::system::error_code ec;
  const auto number = value->to_number<std::int64_t>(ec);
  if (ec || number < low || number > high) return bad(std::string(name) + " is not a number in its range");
  return number;
}

Result<std::string> text_field(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  if (value == nullptr || !value->is_string()) return bad(std::string(name) + " is missing");
  return std::string(value->get_string());
}

Result<Phase> phase_from_name(std::string_view name) {
  for (const auto& [phase, each] : kPhaseNames) {
    if (each == name) return phase;
  }
  return bad("unknown phase");
}

}  // namespace

std::string_view phase_name(Phase phase) {
  for (const auto& [each, name] : kPhaseNames) {
    if (each == phase) return name;
  }
  return "";
}

std::string to_json(const Record& record) {
  const json::object object{
      {"version", kJournalVersion},
      {"id", record.id},
      {"phase", phase_name(record.phase)},
      {"template", record.template_name},
      {"vcpus", record.vcpus},
      {"memory_mib", record.memory_mib},
      {"timeout_sec", record.timeout_sec},
      {"token", record.token},
      {"created_ms", record.created_ms},
      {"last_active_ms", record.last_active_ms},
      {"generation", static_cast<std::int64_t>(record.generation)},
      {"pid", record.process.pid},
      {"start_time", static_cast<std::int64_t>(record.process.start_time)},
      {"slot", record.slot},
      {"auto_paused", record.auto_paused},
      {"memory_digest", record.memory_digest},
      {"driver", record.driver},
      {"accel", record.accel},
  };
  return json::serialize(object) + "\n";
}

Result<Record> parse_record(std::string_view text) {
  boost::system::error_code ec;
  const json::value value = json::parse(text, ec);
  if (ec || !value.is_object()) return bad("not a JSON object");
  const json::object& object = value.get_object();
  constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
  if (TRY(integer(object, "version", 0, kMax)) != kJournalVersion) return bad("unknown version");

  Record record;
  record.id = TRY(text_field(object, "id"));
  if (!model::is_sandbox_id(record.id)) return bad("id is malformed");
  const std::string phase = TRY(text_field(object, "phase"));
  record.phase = TRY(phase_from_name(phase));
  record.template_name = TRY(text_field(object, "template"));
  TRY(model::check_name("template", record.template_name));
  record.vcpus = static_cast<int>(TRY(integer(object, "vcpus", model::kMinVcpus, model::kMaxVcpus)));
  record.memory_mib =
      static_cast<int>(TRY(integer(object, "memory_mib", model::kMinMemoryMb, model::kMaxMemoryMb)));
  record.timeout_sec = TRY(integer(object, "timeout_sec", 0, model::kMaxTimeoutSec));
  record.token = TRY(text_field(object, "token"));
  record.created_ms = TRY(integer(object, "created_ms", 0, kMax));
  record.last_active_ms = TRY(integer(object, "last_active_ms", 0, kMax));
  record.generation = static_cast<std::uint64_t>(TRY(integer(object, "generation", 0, kMax)));
  record.process.pid = static_cast<pid_t>(TRY(integer(object, "pid", 0, std::numeric_limits<pid_t>::max())));
  record.process.start_time = static_cast<std::uint64_t>(TRY(integer(object, "start_time", 0, kMax)));
  record.slot = static_cast<int>(TRY(integer(object, "slot", 0, 32'767)));
  const json::value* auto_paused = object.if_contains("auto_paused");
  if (auto_paused == nullptr || !auto_paused->is_bool()) return bad("auto_paused is missing");
  record.auto_paused = auto_paused->get_bool();
  // Journals of earlier agents have none.
  if (object.contains("memory_digest")) record.memory_digest = TRY(text_field(object, "memory_digest"));
  // Journals of earlier agents do not name it.
  if (object.contains("driver")) record.driver = TRY(text_field(object, "driver"));
  if (object.contains("accel")) record.accel = TRY(text_field(object, "accel"));
  return record;
}

Result<> write_record(async::Blocking blocking, const std::string& dir, const Record& record,
                      Durability durability) {
  const auto write = [&] {
    return sys::write_file_atomic(blocking, fmt::format("{}/{}", dir, kJournalName), to_json(record), 0600,
                                  durability);
  };
  Result<> written = write();
  if (written || written.error().reason() != "disk_full") return written;
  // What does not exist yet may fail.
  const bool exists = record.phase != Phase::kCreating && record.phase != Phase::kBuilding;
  if (!exists || !use_disk_reserve(blocking, dir.substr(0, dir.rfind('/')))) return written;
  return write();
}

Result<Record> read_record(async::Blocking /*blocking*/, const std::string& dir) {
  const std::string text = TRY(sys::read_file(fmt::format("{}/{}", dir, kJournalName), kMaxJournalBytes));
  return parse_record(text);
}

Result<> remove_folder(async::Blocking blocking, const std::string& dir) {
  const auto names = sys::list_dir(blocking, dir);
  if (!names && names.error().sys_errno() != ENOENT) return fail(names.error());
  if (names) {
    for (const std::string& name : *names) {
      if (name != kJournalName) TRY(sys::remove_tree(blocking, dir + "/" + name));
    }
  }
  return sys::remove_tree(blocking, dir);
}

}  // namespace wrenn::sandbox
