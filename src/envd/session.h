#pragma once

#include <map>
#include <string>
#include <string_view>

#include "net/http.h"
#include "sys/passwd.h"

namespace wrenn::envd {

// What POST /init sets: the sandbox's defaults and its access token.
struct Settings {
  std::map<std::string, std::string> envs;
  std::string default_user = "root";
  std::string default_workdir;
  std::string access_token;  // empty: open
  std::string machine_id;    // as it was last written to /etc/machine-id
};

// The user a request acts as: its Basic user name, or the default one. kUnauthenticated when there is none.
Result<sys::User> request_user(const net::Headers& headers, const Settings& settings);
// `name`, or the default user when empty.
Result<sys::User> named_user(std::string_view name, const Settings& settings);

// Absolute as it is; relative and "~/" below the default folder or the user's home. kInvalidArgument for
// empty or overlong ones, NUL bytes and "~other".
Result<std::string> resolve_path(std::string_view path, const sys::User& user, const Settings& settings);

// Makes a folder and its missing parents, mode 0755, owned by `user`.
Result<> make_owned_dirs(const std::string& path, const sys::User& user);
// Everything before the last slash; "/" at the top.
std::string parent_of(const std::string& path);

}  // namespace wrenn::envd
