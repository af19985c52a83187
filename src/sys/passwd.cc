#include "sys/passwd.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "sys/file.h"

namespace wrenn::sys {
namespace {

constexpr std::size_t kMaxDatabaseBytes = std::size_t{4} * 1024 * 1024;

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

std::optional<std::uint32_t> number(std::string_view text) {
  std::uint32_t value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string database(const std::string& etc, const char* name) {
  return read_file(etc + "/" + name, kMaxDatabaseBytes).value_or("");
}

// The first passwd entry that `matches`.
template <class Matches>
std::optional<User> search_users(const std::string& text, Matches matches) {
  for (const std::string_view line : split(text, '\n')) {
    const auto fields = split(line, ':');
    if (fields.size() < 7) continue;
    const auto uid = number(fields[2]);
    const auto gid = number(fields[3]);
    if (!uid || !gid) continue;
    User user{.name = std::string(fields[0]),
              .uid = *uid,
              .gid = *gid,
              .home = std::string(fields[5]),
              .shell = std::string(fields[6])};
    if (matches(user)) return user;
  }
  return std::nullopt;
}

}  // namespace

Result<User> find_user(std::string_view name, const std::string& etc) {
  auto user = search_users(database(etc, "passwd"), [&](const User& u) { return u.name == name; });
  if (!user) return fail(Code::kUnauthenticated, fmt::format("invalid username: '{}'", name));
  return std::move(*user);
}

std::vector<gid_t> groups_of(const User& user, const std::string& etc) {
  std::vector<gid_t> groups{user.gid};
  const std::string text = database(etc, "group");
  for (const std::string_view line : split(text, '\n')) {
    const auto fields = split(line, ':');
    if (fields.size() < 4) continue;
    const auto gid = number(fields[2]);
    if (!gid || *gid == user.gid) continue;
    for (const std::string_view member : split(fields[3], ',')) {
      if (member == user.name) groups.push_back(*gid);
    }
  }
  return groups;
}

std::string user_name(uid_t uid, const std::string& etc) {
  const auto user = search_users(database(etc, "passwd"), [&](const User& u) { return u.uid == uid; });
  return user ? user->name : std::to_string(uid);
}

std::string group_name(gid_t gid, const std::string& etc) {
  const std::string text = database(etc, "group");
  for (const std::string_view line : split(text, '\n')) {
    const auto fields = split(line, ':');
    if (fields.size() >= 4 && number(fields[2]) == gid) return std::string(fields[0]);
  }
  return std::to_string(gid);
}

}  // namespace wrenn::sys
