#include "base/log.h"

#include <fmt/chrono.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>

namespace wrenn::log {
namespace {

constexpr std::array<std::string_view, 4> kLevelNames = {"debug", "info", "warn", "error"};

// A process has one standard error; its name and threshold are set once by main.
std::atomic<Level> g_threshold{Level::kInfo};
std::array<char, 32> g_program{};

}  // namespace

void configure(std::string_view program, Level threshold) {
  const std::size_t length = std::min(program.size(), g_program.size() - 1);
  std::copy_n(program.data(), length, g_program.data());
  g_program.at(length) = '\0';
  g_threshold.store(threshold);
}

Level level_from_name(std::string_view name) {
  for (std::size_t i = 0; i < kLevelNames.size(); ++i) {
    if (kLevelNames.at(i) == name) return static_cast<Level>(i);
  }
  return Level::kInfo;
}

bool enabled(Level level) { return level >= g_threshold.load(std::memory_order_relaxed); }

void write(Level level, std::string_view message) {
  const auto now = std::chrono::system_clock::now();
  const auto ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::string line = fmt::format(
      "{:%Y-%m-%dT%H:%M:%S}.{:03}Z {} {}: ", fmt::gmtime(std::chrono::system_clock::to_time_t(now)), ms,
      kLevelNames.at(static_cast<std::size_t>(level)), g_program.data());
  // Text of guests and clients may hold control characters that would forge lines or drive a terminal.
  for (const char c : message) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      line += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      line += c;
    }
  }
  line += '\n';
  // One write per line, so lines of several threads do not mix; a lost log line is not an error.
  if (::write(STDERR_FILENO, line.data(), line.size()) < 0) return;
}

}  // namespace wrenn::log
