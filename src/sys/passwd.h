#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

// Users and groups out of /etc/passwd and /etc/group, for static programs, which have no NSS. `etc` is the
// folder that holds the two files.
namespace wrenn::sys {

struct User {
  std::string name;
  uid_t uid = 0;
  gid_t gid = 0;
  std::string home;
  std::string shell;
};

// kUnauthenticated "invalid username: 'x'" when there is none of that name.
Result<User> find_user(std::string_view name, const std::string& etc = "/etc");
// The user's own group and those that list it as a member.
std::vector<gid_t> groups_of(const User& user, const std::string& etc = "/etc");
// The number as text when it has no name.
std::string user_name(uid_t uid, const std::string& etc = "/etc");
std::string group_name(gid_t gid, const std::string& etc = "/etc");

}  // namespace wrenn::sys
