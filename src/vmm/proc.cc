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

struct Mapping {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::string_view permissions, offset, device, inode;
};

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
  Mapping mapping;
  mapping.permissions = take_word(line);
  mapping.offset = take_word(line);
  mapping.device = take_word(line);
  mapping.inode = take_word(line);
  const auto dash = range.find('-');
  if (dash == std::string_view::npos || mapping.inode.empty()) return std::nullopt;
  const auto begin = to_number(range.substr(0, dash), 16);
  const auto end = to_number(range.substr(dash + 1), 16);
  if (!begin || !end || *end <= *begin) return std::nullopt;
  mapping.begin = *begin;
  mapping.end = *end;
  return mapping;
}

std::uint64_t now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace

Result<RamRegion> find_ram(std::string_view maps, std::uint64_t size, RamKind kind) {
  std::optional<Mapping> run;  // neighbouring mappings of one file count as one
  std::optional<RamRegion> found;
  int matches = 0;
  const auto close_run = [&] {
    if (run && run->end - run->begin == size) {
      found = RamRegion{.address = run->begin, .size = size};
      ++matches;
    }
    run.reset();
  };
  while (!maps.empty()) {
    const auto eol = maps.find('\n');
    const auto mapping = parse_mapping(maps.substr(0, eol));
    maps = eol == std::string_view::npos ? std::string_view{} : maps.substr(eol + 1);
    const bool of_file = mapping && mapping->inode != "0";
    if (!mapping || mapping->permissions != "rw-p" || of_file != (kind == RamKind::kFile)) {
      close_run();
      continue;
    }
    if (of_file && run && run->end == mapping->begin && run->inode == mapping->inode &&
        run->device == mapping->device) {
      run->end = mapping->end;
      continue;
    }
    close_run();
    run = mapping;
  }
  close_run();
  if (matches != 1) {
    return fail(Code::kInternal,
                fmt::format("{} mappings look like the guest's memory of {} bytes", matches, size));
  }
  return *found;
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
