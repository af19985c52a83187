#include "vmm/proc.h"

#include <fmt/format.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include <charconv>
#include <cmath>

#include "sys/file.h"

namespace wrenn::vmm {
namespace {

constexpr std::uint64_t kMinMeasureNs = 100'000'000;
constexpr int kSampleTries = 5;

std::string_view take_word(std::string_view& line) {
  const auto start = line.find_first_not_of(' ');
  if (start == std::string_view::npos) return {};
  const auto end = line.find(' ', start);
  const auto word = line.substr(start, end == std::string_view::npos ? end : end - start);
  line = end == std::string_view::npos ? std::string_view{} : line.substr(end);
  return word;
}

std::optional<std::uint64_t> to_number(std::string_view text, int base) {
  std::uint64_t value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (ec != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// "7f00-7f10 rw-p 00000000 fe:00 1234   /path (deleted)"
std::optional<Mapping> parse_mapping(std::string_view line) {
  const std::string_view range = take_word(line);
  const std::string_view permissions = take_word(line);
  const auto offset = to_number(take_word(line), 16);
  const std::string_view device = take_word(line);
  const std::string_view inode = take_word(line);
  const auto dash = range.find('-');
  if (dash == std::string_view::npos || inode.empty() || permissions != "rw-p" || !offset)
    return std::nullopt;
  const auto begin = to_number(range.substr(0, dash), 16);
  const auto end = to_number(range.substr(dash + 1), 16);
  if (!begin || !end || *end <= *begin) return std::nullopt;
  return Mapping{.begin = *begin,
                 .end = *end,
                 .offset = *offset,
                 .file = inode == "0" ? "" : fmt::format("{} {}", device, inode)};
}

std::uint64_t now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace

std::vector<Mapping> private_mappings(std::string_view maps) {
  std::vector<Mapping> found;
  while (!maps.empty()) {
    const auto eol = maps.find('\n');
    if (auto mapping = parse_mapping(maps.substr(0, eol))) found.push_back(std::move(*mapping));
    maps = eol == std::string_view::npos ? std::string_view{} : maps.substr(eol + 1);
  }
  return found;
}

Result<sys::ProcessMemory> find_ram(std::string_view maps, pid_t pid, std::uint64_t size) {
  std::vector<Mapping> runs;  // neighbouring mappings of one file count as one
  for (Mapping& mapping : private_mappings(maps)) {
    if (mapping.file.empty()) continue;
    if (!runs.empty() && runs.back().end == mapping.begin && runs.back().file == mapping.file) {
      runs.back().end = mapping.end;
    } else {
      runs.push_back(std::move(mapping));
    }
  }
  std::erase_if(runs, [size](const Mapping& run) { return run.end - run.begin != size; });
  if (runs.size() != 1) {
    return fail(Code::kInternal,
                fmt::format("{} mappings look like the guest's memory of {} bytes", runs.size(), size));
  }
  return sys::ProcessMemory{.pid = pid, .parts = {{.offset = 0, .size = size, .address = runs[0].begin}}};
}

Result<VmStats> read_stats(pid_t pid) {
  const std::string folder = "/proc/" + std::to_string(pid);
  const std::string stat = TRY(sys::read_file(folder + "/stat"));
  // The second field is a name in parentheses that may hold anything.
  const auto close = stat.rfind(')');
  if (close == std::string::npos) return fail(Code::kInternal, "unreadable " + folder + "/stat");
  std::string_view rest = std::string_view(stat).substr(close + 1);
  std::uint64_t ticks = 0;
  for (int field = 3; field <= 15; ++field) {
    const auto word = take_word(rest);
    if (field >= 14) ticks += to_number(word, 10).value_or(0);
  }
  const std::string statm = TRY(sys::read_file(folder + "/statm"));
  std::string_view pages = statm;
  take_word(pages);
  const auto resident = to_number(take_word(pages), 10).value_or(0);
  static const auto ticks_per_second = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  static const auto page_bytes = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return VmStats{.cpu_time_us = ticks * 1'000'000 / ticks_per_second, .rss_bytes = resident * page_bytes};
}

// "  tap0: BYTES PACKETS ... 8 numbers received, then BYTES PACKETS ... sent".
std::uint64_t packets_sent(std::string_view net_dev, std::string_view interface) {
  constexpr int kFieldsBefore = 9;
  const auto at = net_dev.find(fmt::format(" {}:", interface));
  if (at == std::string_view::npos) return 0;
  std::string_view line = net_dev.substr(net_dev.find(':', at) + 1);
  line = line.substr(0, line.find('\n'));
  for (int field = 0; field < kFieldsBefore; ++field) take_word(line);
  return to_number(take_word(line), 10).value_or(0);
}

TscClock::TscClock() : first_(take()) {}

// The reading with the least time around it: the others were interrupted.
TscClock::Sample TscClock::take() {
  Sample best;
  std::uint64_t best_gap = ~std::uint64_t{0};
  for (int i = 0; i < kSampleTries; ++i) {
    const std::uint64_t before = __rdtsc();
    const std::uint64_t nanoseconds = now_ns();
    const std::uint64_t after = __rdtsc();
    if (after - before >= best_gap) continue;
    best_gap = after - before;
    best = {.ticks = before + (after - before) / 2, .nanoseconds = nanoseconds};
  }
  return best;
}

Task<std::uint64_t> TscClock::khz() const {
  Sample now = take();
  if (now.nanoseconds - first_.nanoseconds < kMinMeasureNs) {
    const auto missing = kMinMeasureNs - (now.nanoseconds - first_.nanoseconds);
    CO_TRY(co_await async::sleep_for(Milliseconds(missing / 1'000'000 + 1)));
    now = take();
  }
  const auto elapsed = static_cast<double>(now.nanoseconds - first_.nanoseconds);
  co_return static_cast<std::uint64_t>(
      std::llround(static_cast<double>(now.ticks - first_.ticks) / elapsed * 1e6));
}

}  // namespace wrenn::vmm
