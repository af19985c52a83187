#pragma once

#include <compare>
#include <optional>
#include <string>
#include <string_view>

// Versions of programs, and which Firecracker may run guests: the agent refuses by that rule, the doctor
// tells it.
namespace wrenn::model {

struct Version {
  int major = 0;
  int minor = 0;
  int patch = 0;
  auto operator<=>(const Version&) const = default;
  std::string text() const;
};

// "6.1.0-18-amd64": {6, 1, 0}; the third number may be missing. Nullopt unless the text begins with a
// version.
std::optional<Version> parse_version(std::string_view text);
// The version right after the first `mark`: after "version " in "QEMU emulator version 7.2.19 (Debian ...)".
std::optional<Version> version_after(std::string_view text, std::string_view mark);
// From what `firecracker --version` prints.
std::optional<Version> firecracker_version(std::string_view printed);

// Why not, to follow the version in a sentence; empty for a Firecracker that may run guests. Refused are
// those older than 1.12, and those that a guest may break out of (CVE-2026-5747: 1.13.0 to 1.14.3
// and 1.15.0).
std::string_view why_refused(const Version& firecracker);

}  // namespace wrenn::model
