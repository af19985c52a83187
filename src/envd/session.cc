#include "envd/session.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vector>

#include "base/bytes.h"
#include "envd/limits.h"

namespace wrenn::envd {

Result<sys::User> named_user(std::string_view name, const Settings& settings) {
  return sys::find_user(name.empty() ? settings.default_user : name);
}

Result<sys::User> request_user(const net::Headers& headers, const Settings& settings) {
  constexpr std::string_view kBasic = "basic ";
  const std::string_view header = headers.get("authorization");
  if (!ascii_lower(header).starts_with(kBasic)) return named_user("", settings);
  const auto decoded = from_base64(trim(header.substr(kBasic.size())));
  if (!decoded) return fail(Code::kUnauthenticated, "the Authorization header is not valid base64");
  return named_user(decoded->substr(0, decoded->find(':')), settings);
}

Result<std::string> resolve_path(std::string_view path, const sys::User& user, const Settings& settings) {
  const auto bad = [](std::string why) {
    return fail(Error(Code::kInvalidArgument, std::move(why)).with_field("path"));
  };
  if (path.find('\0') != std::string_view::npos) return bad("path holds a NUL byte");
  std::string out(path);
  if (path.empty()) {
    out = settings.default_workdir.empty() ? user.home : settings.default_workdir;
  } else if (path == "~" || path.starts_with("~/")) {
    out = user.home + std::string(path.substr(1));
  } else if (path.front() == '~') {
    return bad("only the user's own home can be named by ~");
  } else if (path.front() != '/') {
    const std::string& base = settings.default_workdir.empty() ? user.home : settings.default_workdir;
    out = base + "/" + out;
  }
  if (out.size() >= kMaxPathBytes) return bad(fmt::format("path is longer than {} bytes", kMaxPathBytes - 1));
  while (out.size() > 1 && out.ends_with('/')) out.pop_back();
  return out;
}

std::string parent_of(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  return slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
}

Result<> make_owned_dirs(const std::string& path, const sys::User& user) {
  std::vector<std::string> missing;
  std::string at = path;
  struct stat info{};
  while (::stat(at.c_str(), &info) != 0) {
    if (errno != ENOENT) return fail_errno("mkdir " + at);
    missing.push_back(at);
    at = parent_of(at);
  }
  if (!S_ISDIR(info.st_mode)) return fail(Code::kInvalidArgument, fmt::format("{} is not a directory", at));
  for (auto dir = missing.rbegin(); dir != missing.rend(); ++dir) {
    if (::mkdir(dir->c_str(), 0755) != 0 && errno != EEXIST) return fail_errno("mkdir " + *dir);
    if (::lchown(dir->c_str(), user.uid, user.gid) != 0) return fail_errno("chown " + *dir);
  }
  return {};
}

}  // namespace wrenn::envd
