#include "envd/metrics_route.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <charconv>
#include <chrono>
#include <cmath>
#include <map>

#include "base/bytes.h"
#include "sys/file.h"

namespace wrenn::envd {
namespace {

namespace json = boost::json;
constexpr std::uint64_t kKiB = 1024;
constexpr std::uint64_t kMiB = 1024 * kKiB;

std::optional<std::uint64_t> next_number(std::string_view* text) {
  text->remove_prefix(std::min(text->find_first_not_of(' '), text->size()));
  std::uint64_t value = 0;
  const auto [end, ec] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (ec != std::errc()) return std::nullopt;
  text->remove_prefix(static_cast<std::size_t>(end - text->data()));
  return value;
}

// The lines "Name:   123 kB" of /proc/meminfo, in bytes.
std::map<std::string, std::uint64_t, std::less<>> parse_meminfo(std::string_view text) {
  std::map<std::string, std::uint64_t, std::less<>> fields;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    const std::string name(line.substr(0, colon));
    line.remove_prefix(colon + 1);
    if (const auto value = next_number(&line)) fields[name] = *value * kKiB;
  }
  return fields;
}

Result<json::object> memory() {
  const auto fields = parse_meminfo(TRY(sys::read_file("/proc/meminfo")));
  const auto of = [&](std::string_view name) {
    const auto found = fields.find(name);
    return found == fields.end() ? std::uint64_t{0} : found->second;
  };
  const std::uint64_t total = of("MemTotal");
  const std::uint64_t used = total - std::min(total, of("MemAvailable"));
  const std::uint64_t cache = of("Cached") + of("SReclaimable");
  return json::object{{"mem_total", total},          {"mem_used", used},
                      {"mem_cache", cache},          {"mem_total_mib", total / kMiB},
                      {"mem_used_mib", used / kMiB}, {"mem_cache_mib", cache / kMiB}};
}

Result<json::object> disk() {
  struct statvfs info{};
  if (::statvfs("/", &info) != 0) return fail_errno("statvfs");
  const std::uint64_t unit = info.f_frsize;
  return json::object{{"disk_total", info.f_blocks * unit},
                      {"disk_used", (info.f_blocks - info.f_bfree) * unit}};
}

}  // namespace

Result<std::uint64_t> free_memory() {
  const auto fields = parse_meminfo(TRY(sys::read_file("/proc/meminfo")));
  const auto found = fields.find("MemFree");
  if (found == fields.end()) return fail(Code::kInternal, "/proc/meminfo has no MemFree");
  return found->second;
}

Result<CpuTimes> parse_cpu_times(std::string_view proc_stat) {
  constexpr std::string_view kLabel = "cpu ";
  constexpr int kIdleColumn = 3;
  constexpr int kWaitColumn = 4;
  constexpr int kColumns = 8;  // guest time is in user time already
  std::string_view line = proc_stat.substr(0, proc_stat.find('\n'));
  if (!line.starts_with(kLabel)) return fail(Code::kInternal, "/proc/stat has no cpu line");
  line.remove_prefix(kLabel.size());
  CpuTimes times;
  for (int column = 0; column < kColumns; ++column) {
    const auto value = next_number(&line);
    if (!value) break;
    times.total += *value;
    if (column != kIdleColumn && column != kWaitColumn) times.busy += *value;
  }
  return times;
}

Task<> Metrics::serve(std::shared_ptr<net::Exchange> exchange) {
  const std::string stat = CO_TRY(sys::read_file("/proc/stat"));
  const CpuTimes now = CO_TRY(parse_cpu_times(stat));
  const auto total = static_cast<double>(now.total - before_.total);
  const auto busy = static_cast<double>(now.busy - before_.busy);
  before_ = now;
  json::object answer{{"ts", std::chrono::duration_cast<std::chrono::seconds>(
                                 std::chrono::system_clock::now().time_since_epoch())
                                 .count()},
                      {"cpu_count", ::sysconf(_SC_NPROCESSORS_ONLN)},
                      {"cpu_used_pct", total > 0 ? std::round(busy / total * 10'000) / 100 : 0.0}};
  const json::object memory_fields = CO_TRY(memory());
  const json::object disk_fields = CO_TRY(disk());
  answer.insert(memory_fields.begin(), memory_fields.end());
  answer.insert(disk_fields.begin(), disk_fields.end());
  net::Headers headers;
  headers.set("Content-Type", "application/json");
  co_return co_await exchange->respond(200, std::move(headers), json::serialize(answer));
}

}  // namespace wrenn::envd
