#include "model/version.h"

#include <fmt/format.h>

#include <charconv>

namespace wrenn::model {
namespace {

// Older ones may lose packets that came while the VM was saved: their resume does not look at how far the
// guest's network queue had got. (And before 1.8 Debian's kernel finds no devices.)
constexpr Version kOldest{.major = 1, .minor = 12, .patch = 0};

// Takes a number without sign from the front of `text`.
std::optional<int> take_number(std::string_view* text) {
  if (text->empty() || text->front() < '0' || text->front() > '9') return std::nullopt;
  int number = 0;
  const auto parsed = std::from_chars(text->data(), text->data() + text->size(), number);
  if (parsed.ec != std::errc()) return std::nullopt;
  text->remove_prefix(static_cast<std::size_t>(parsed.ptr - text->data()));
  return number;
}

}  // namespace

std::string Version::text() const { return fmt::format("{}.{}.{}", major, minor, patch); }

std::optional<Version> parse_version(std::string_view text) {
  const auto major = take_number(&text);
  if (!major || !text.starts_with('.')) return std::nullopt;
  text.remove_prefix(1);
  const auto minor = take_number(&text);
  if (!minor) return std::nullopt;
  if (!text.starts_with('.')) return Version{*major, *minor, 0};
  text.remove_prefix(1);
  return Version{*major, *minor, take_number(&text).value_or(0)};
}

std::optional<Version> version_after(std::string_view text, std::string_view mark) {
  const std::size_t at = text.find(mark);
  if (at == std::string_view::npos) return std::nullopt;
  return parse_version(text.substr(at + mark.size()));
}

std::optional<Version> firecracker_version(std::string_view printed) {
  return version_after(printed, "Firecracker v");
}

std::string_view why_refused(const Version& firecracker) {
  if (firecracker < kOldest) return "is too old: sandboxes need 1.12 or newer";
  const bool escapes = (firecracker >= Version{1, 13, 0} && firecracker < Version{1, 14, 4}) ||
                       firecracker == Version{1, 15, 0};
  return escapes ? "lets a guest write to the host's memory (CVE-2026-5747)" : "";
}

}  // namespace wrenn::model
