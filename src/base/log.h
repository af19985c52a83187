#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

// One line per event on standard error: `2026-01-02T03:04:05.678Z info agent: message key=value`.
// Callers never pass secrets.
namespace wrenn::log {

enum class Level { kDebug, kInfo, kWarn, kError };

// Sets the program's name and threshold; called once by main before other threads exist.
void configure(std::string_view program, Level threshold);
// "debug", "info", "warn" or "error"; kInfo for any other text.
Level level_from_name(std::string_view name);
bool enabled(Level level);
void write(Level level, std::string_view message);

template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::kDebug)) write(Level::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::kInfo)) write(Level::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::kWarn)) write(Level::kWarn, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::kError)) write(Level::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace wrenn::log
