#include "cli/output.h"

#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/json/serialize.hpp>

#include "sys/file.h"

namespace wrenn::cli {
namespace {

constexpr Milliseconds kQuiet{700};
constexpr Milliseconds kTick{500};
constexpr Milliseconds kPlainTick{10'000};

std::size_t display_width(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

// Length of the control character at `at`: 1 for C0 and DEL, 2 for C1 (U+0080 to U+009F in UTF-8), which
// terminals obey as well; 0 if there is none.
std::size_t control_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  if (byte(at) < 0x20 || byte(at) == 0x7f) return 1;
  const bool c1 = byte(at) == 0xC2 && at + 1 < text.size() && byte(at + 1) >= 0x80 && byte(at + 1) < 0xA0;
  return c1 ? 2 : 0;
}

// `kept` are control characters that stay.
std::string without_control(std::string_view text, std::string_view kept = {}) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = kept.find(text[at]) == std::string_view::npos ? control_length(text, at) : 0;
    out += length > 0 ? ' ' : text[at];
    at += std::max<std::size_t>(length, 1);
  }
  return out;
}

// JSON with what it leaves as it is (DEL and C1) escaped too.
std::string printable_json(const json::value& value) {
  const std::string text = json::serialize(value);
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = control_length(text, at);
    if (length > 0) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned char>(text[at + length - 1]));
    } else {
      out += text[at];
    }
    at += std::max<std::size_t>(length, 1);
  }
  return out;
}

void append_row(std::string* out, const Row& row, const std::vector<std::size_t>& widths) {
  std::string line;
  for (std::size_t i = 0; i < row.size(); ++i) {
    const std::string cell = without_control(row[i]);
    line += cell;
    if (i + 1 < row.size()) line.append(widths[i] - display_width(cell) + 2, ' ');
  }
  *out += line + "\n";
}

}  // namespace

int exit_code_for(const Error& error) {
  switch (error.code()) {
    case Code::kInvalidArgument:
      return kExitUsage;
    case Code::kUnavailable:
    case Code::kUnauthenticated:
    case Code::kPermissionDenied:
      return kExitService;
    case Code::kDeadlineExceeded:
      return kExitTimeout;
    case Code::kCanceled:
      return kExitInterrupted;
    default:
      return kExitFailure;
  }
}

std::string render_table(const Row& heading, const std::vector<Row>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& cell : heading) widths.push_back(display_width(cell));
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size() && i < widths.size(); ++i) {
      widths[i] = std::max(widths[i], display_width(without_control(row[i])));
    }
  }
  std::string out;
  append_row(&out, heading, widths);
  for (const auto& row : rows) append_row(&out, row, widths);
  return out;
}

std::string render_tsv(const std::vector<Row>& rows) {
  std::string out;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i > 0) out += '\t';
      out += without_control(row[i]);
    }
    out += '\n';
  }
  return out;
}

std::string age_of(std::string_view rfc3339, std::int64_t now_unix) {
  struct tm parts{};
  std::string text(rfc3339);
  const char* rest = ::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  if (rest == nullptr) return text;
  while (*rest == '.' || (*rest >= '0' && *rest <= '9')) ++rest;
  if (std::string_view(rest) != "Z" && std::string_view(rest) != "+00:00") return text;
  const std::int64_t seconds = std::max<std::int64_t>(0, now_unix - ::timegm(&parts));
  constexpr std::int64_t kMinute = 60;
  constexpr std::int64_t kHour = 60 * kMinute;
  constexpr std::int64_t kDay = 24 * kHour;
  if (seconds < 2 * kMinute) return fmt::format("{} s ago", seconds);
  if (seconds < 2 * kHour) return fmt::format("{} min ago", seconds / kMinute);
  if (seconds < 2 * kDay) return fmt::format("{} h ago", seconds / kHour);
  return fmt::format("{} d ago", seconds / kDay);
}

std::string timeout_text(std::int64_t seconds) {
  return seconds == 0 ? "never" : fmt::format("{} s", seconds);
}

std::string size_text(std::uint64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string printable(std::string_view text) { return without_control(text, "\n\t"); }

bool is_terminal(int fd) { return ::isatty(fd) == 1; }

Result<> print(std::string_view text) {
  return sys::write_all(async::Blocking::without_loop(), STDOUT_FILENO, printable(text));
}

Result<> print_line(std::string_view text) { return print(std::string(text) + "\n"); }

void note(std::string_view text) {
  // Nothing better to do about a closed standard error than to go on.
  static_cast<void>(sys::write_all(async::Blocking::without_loop(), STDERR_FILENO, printable(text) + "\n"));
}

Result<> print_json(const json::value& value) { return print_line(printable_json(value)); }

void report_error(const Error& error, bool as_json) {
  if (as_json) {
    const std::string code = error.reason().empty() ? std::string(code_name(error.code())) : error.reason();
    note(printable_json({{"error", {{"code", code}, {"message", error.message()}}}}));
  } else {
    note("wrenn: " + error.message());
  }
}

Task<> Progress::tick(std::string what) {
  const auto began = std::chrono::steady_clock::now();
  const bool terminal = is_terminal(STDERR_FILENO);
  CO_TRY(co_await async::sleep_for(terminal ? kQuiet : kPlainTick));
  while (true) {
    const auto seconds =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - began).count();
    const std::string line = fmt::format("{}, {} s", what, seconds);
    if (terminal) {
      shown_ = true;
      static_cast<void>(sys::write_all(async::Blocking::without_loop(), STDERR_FILENO, "\r\x1b[K" + line));
    } else {
      note(line);
    }
    CO_TRY(co_await async::sleep_for(terminal ? kTick : kPlainTick));
  }
}

void Progress::clear() {
  if (shown_) static_cast<void>(sys::write_all(async::Blocking::without_loop(), STDERR_FILENO, "\r\x1b[K"));
  shown_ = false;
}

}  // namespace wrenn::cli
