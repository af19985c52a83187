#include "envd/metadata.h"

#include <fmt/format.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/bytes.h"
#include "envd/limits.h"

namespace wrenn::envd {
namespace {

constexpr std::string_view kHeaderPrefix = "x-metadata-";
constexpr std::string_view kAttributePrefix = "user.e2b.";

bool is_printable(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c >= 0x20 && c <= 0x7e; });
}

std::unexpected<Error> bad(std::string message) {
  return fail(Error(Code::kInvalidArgument, std::move(message)).with_field("X-Metadata"));
}

// The names out of the list that listxattr gives: each ends with a NUL.
std::vector<std::string> own_names(std::string_view list) {
  std::vector<std::string> names;
  while (!list.empty()) {
    const std::string_view name = list.substr(0, list.find('\0'));
    if (name.starts_with(kAttributePrefix)) names.emplace_back(name);
    list.remove_prefix(std::min(name.size() + 1, list.size()));
  }
  return names;
}

}  // namespace

Result<Metadata> metadata_of(const net::Headers& headers) {
  Metadata metadata;
  std::size_t bytes = 0;
  for (const auto& [name, value] : headers.all()) {
    const std::string key = ascii_lower(name);
    if (!key.starts_with(kHeaderPrefix)) continue;
    const std::string inner = key.substr(kHeaderPrefix.size());
    if (inner.empty()) return bad("a metadata key is empty");
    if (inner.size() > kMaxMetadataKeyBytes) {
      return bad(fmt::format("a metadata key is longer than {} bytes", kMaxMetadataKeyBytes));
    }
    if (!is_printable(inner) || !is_printable(value)) return bad("metadata must be printable ASCII");
    if (metadata.emplace(inner, value).second) bytes += kAttributePrefix.size() + inner.size() + value.size();
  }
  if (bytes > kMaxMetadataBytes) {
    return bad(fmt::format("the metadata has more than {} bytes", kMaxMetadataBytes));
  }
  return metadata;
}

Result<> set_metadata(int fd, const Metadata& metadata) {
  std::array<char, kMaxAttributeListBytes> list{};
  const ssize_t length = ::flistxattr(fd, list.data(), list.size());
  for (const auto& name : own_names({list.data(), static_cast<std::size_t>(std::max<ssize_t>(length, 0))})) {
    if (::fremovexattr(fd, name.c_str()) != 0 && errno != ENODATA) return fail_errno("remove metadata");
  }
  for (const auto& [key, value] : metadata) {
    const std::string name = std::string(kAttributePrefix) + key;
    if (::fsetxattr(fd, name.c_str(), value.data(), value.size(), 0) == 0) continue;
    if (errno == EOPNOTSUPP) return bad("the filesystem of this path keeps no metadata");
    return fail_errno("store metadata");
  }
  return {};
}

Metadata read_metadata(const std::string& path) {
  Metadata metadata;
  std::array<char, kMaxAttributeListBytes> list{};
  const ssize_t length = ::llistxattr(path.c_str(), list.data(), list.size());
  if (length <= 0) return metadata;
  for (const auto& name : own_names({list.data(), static_cast<std::size_t>(length)})) {
    std::array<char, kMaxMetadataBytes> value{};
    const ssize_t size = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
    const std::string_view text(value.data(), static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
    // A guest's own programs may have stored anything; protobuf strings are UTF-8.
    if (size >= 0 && is_utf8(name) && is_utf8(text)) metadata[name.substr(kAttributePrefix.size())] = text;
  }
  return metadata;
}

}  // namespace wrenn::envd
