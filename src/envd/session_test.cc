#include "envd/session.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "envd/filesystem_service.h"
#include "envd/init_route.h"
#include "sys/file.h"

namespace wrenn::envd {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

const sys::User kUser{.name = "user", .uid = 1000, .gid = 1000, .home = "/home/user", .shell = "/bin/bash"};

std::string resolved(std::string_view path, const Settings& settings = {}) {
  const auto out = resolve_path(path, kUser, settings);
  return out ? *out : "error: " + out.error().field();
}

TEST(Paths, StartAtTheUsersHomeOrTheDefaultFolder) {
  EXPECT_EQ(resolved("/etc/passwd"), "/etc/passwd");
  EXPECT_EQ(resolved("notes.txt"), "/home/user/notes.txt");
  EXPECT_EQ(resolved("~"), "/home/user");
  EXPECT_EQ(resolved("~/x/"), "/home/user/x");
  EXPECT_EQ(resolved(""), "/home/user");
  EXPECT_EQ(resolved("///"), "/");
  const Settings settings{.envs = {}, .default_user = "user", .default_workdir = "/work", .access_token = ""};
  EXPECT_EQ(resolved("", settings), "/work");
  EXPECT_EQ(resolved("a/b", settings), "/work/a/b");
  EXPECT_EQ(resolved("~/a", settings), "/home/user/a");
}

TEST(Paths, HostileOnesAreRefusedByField) {
  EXPECT_EQ(resolved(std::string("/a\0b", 4)), "error: path");
  EXPECT_EQ(resolved("~root/.ssh"), "error: path");
  EXPECT_EQ(resolved(std::string(4'096, 'a')), "error: path");
  EXPECT_EQ(resolved("/" + std::string(4'094, 'a')).size(), 4'095U);
}

TEST(Users, ComeFromBasicOrTheDefault) {
  Settings settings;
  net::Headers headers;
  EXPECT_EQ(request_user(headers, settings)->name, "root");
  headers.set("Authorization", "Basic " + to_base64("nobody:"));
  EXPECT_EQ(request_user(headers, settings)->name, "nobody");
  headers.set("Authorization", "bAsIc " + to_base64("no such user:x"));
  EXPECT_EQ(request_user(headers, settings).error().message(), "invalid username: 'no such user'");
  headers.set("Authorization", "Basic ???");
  EXPECT_EQ(request_user(headers, settings).error().code(), Code::kUnauthenticated);
  headers.set("Authorization", "Bearer token");
  EXPECT_EQ(request_user(headers, settings)->name, "root") << "other schemes name no user";
}

TEST(Times, Rfc3339InUtc) {
  using std::chrono::nanoseconds;
  EXPECT_EQ(*parse_rfc3339("1970-01-01T00:00:01Z"), nanoseconds(1'000'000'000));
  EXPECT_EQ(*parse_rfc3339("2001-09-09T01:46:40.5Z"), nanoseconds(1'000'000'000'500'000'000));
  EXPECT_EQ(*parse_rfc3339("1970-01-01T00:00:00.000000001Z"), nanoseconds(1));
  for (const char* bad :
       {"", "now", "1970-01-01", "1970-01-01T00:00:00", "1970-01-01T00:00:00+01:00", "1970-13-01T00:00:00Z",
        "1970-01-01T00:00:00.Zx", "1970-01-01T00:00:00.1234567890Z"}) {
    EXPECT_EQ(parse_rfc3339(bad).error().field(), "timestamp") << bad;
  }
}

TEST(Entries, DescribeFilesAsTheyStand) {
  const auto dir = sys::TempDir::make(kBlocking);
  ASSERT_TRUE(dir);
  const std::string file = dir->path() + "/f";
  ASSERT_TRUE(sys::write_file(kBlocking, file, "12345", 0640));
  ASSERT_EQ(::chmod(file.c_str(), 0640), 0);
  ASSERT_EQ(::symlink("f", (dir->path() + "/link").c_str()), 0);
  const auto entry = entry_info(file);
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->name(), "f");
  EXPECT_EQ(entry->type(), filesystem::FILE_TYPE_FILE);
  EXPECT_EQ(entry->size(), 5);
  EXPECT_EQ(entry->permissions(), "-rw-r-----");
  EXPECT_EQ(entry->mode(), 0640U);
  const auto link = entry_info(dir->path() + "/link");
  EXPECT_EQ(link->type(), filesystem::FILE_TYPE_FILE) << "of what it leads to";
  EXPECT_TRUE(link->is_symlink());
  EXPECT_EQ(link->symlink_target(), "f");
  EXPECT_EQ(entry_info(dir->path())->type(), filesystem::FILE_TYPE_DIRECTORY);
  EXPECT_EQ(entry_info("/")->name(), "/");
  EXPECT_EQ(entry_info(file + "/below").error().code(), Code::kInvalidArgument);
  EXPECT_EQ(entry_info(dir->path() + "/none").error().code(), Code::kNotFound);
  ASSERT_TRUE(sys::write_file(kBlocking, dir->path() + "/\xff", ""));
  EXPECT_EQ(entry_info(dir->path() + "/\xff").error().code(), Code::kInvalidArgument);
}

TEST(Folders, AreMadeWithTheirParents) {
  const auto dir = sys::TempDir::make(kBlocking);
  const sys::User me{.name = "me", .uid = ::geteuid(), .gid = ::getegid(), .home = "/", .shell = "/bin/sh"};
  ASSERT_TRUE(make_owned_dirs(dir->path() + "/a/b/c", me));
  EXPECT_TRUE(sys::is_directory(dir->path() + "/a/b/c"));
  EXPECT_TRUE(make_owned_dirs(dir->path() + "/a/b/c", me)) << "there already";
  ASSERT_TRUE(sys::write_file(kBlocking, dir->path() + "/file", ""));
  EXPECT_FALSE(make_owned_dirs(dir->path() + "/file/x", me));
  EXPECT_EQ(parent_of("/a/b"), "/a");
  EXPECT_EQ(parent_of("/a"), "/");
}

}  // namespace
}  // namespace wrenn::envd
