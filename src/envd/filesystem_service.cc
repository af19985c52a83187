#include "envd/filesystem_service.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <climits>

#include "base/bytes.h"
#include "envd/limits.h"
#include "envd/metadata.h"
#include "sys/file.h"

namespace wrenn::envd {
namespace {

using connect::Context;

filesystem::FileType type_of(mode_t mode) {
  if (S_ISREG(mode)) return filesystem::FILE_TYPE_FILE;
  if (S_ISDIR(mode)) return filesystem::FILE_TYPE_DIRECTORY;
  if (S_ISLNK(mode)) return filesystem::FILE_TYPE_SYMLINK;
  return filesystem::FILE_TYPE_UNSPECIFIED;
}

char type_letter(mode_t mode) {
  if (S_ISDIR(mode)) return 'd';
  if (S_ISLNK(mode)) return 'l';
  if (S_ISCHR(mode)) return 'c';
  if (S_ISBLK(mode)) return 'b';
  if (S_ISFIFO(mode)) return 'p';
  if (S_ISSOCK(mode)) return 's';
  return '-';
}

std::string permissions_text(mode_t mode) {
  std::string text(1, type_letter(mode));
  constexpr std::string_view kLetters = "rwxrwxrwx";
  for (unsigned bit = 0; bit < kLetters.size(); ++bit) {
    text += (mode & (0400U >> bit)) != 0 ? kLetters[bit] : '-';
  }
  return text;
}

// Lexical order, folders entered where they stand; symlinks below the root are not followed.
Result<> list_into(async::Blocking blocking, const std::string& dir, unsigned depth,
                   filesystem::ListDirResponse* out) {
  for (const std::string& name : TRY(sys::list_dir(blocking, dir))) {
    if (static_cast<std::size_t>(out->entries_size()) >= kMaxListEntries) {
      return fail(Error(Code::kResourceExhausted, fmt::format("more than {} entries", kMaxListEntries))
                      .with_reason("too_many_entries"));
    }
    const std::string path = dir == "/" ? "/" + name : dir + "/" + name;
    auto info = entry_info(path);
    if (!info && info.error().code() == Code::kNotFound) continue;  // removed meanwhile
    if (!info) return fail(info.error());
    const bool enter = depth > 1 && info->type() == filesystem::FILE_TYPE_DIRECTORY && !info->is_symlink();
    *out->add_entries() = std::move(*info);
    if (enter) TRY(list_into(blocking, path, depth - 1, out));
  }
  return {};
}

Result<filesystem::ListDirResponse> list_dir(async::Blocking blocking, const std::string& path,
                                             unsigned depth) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return fail_errno(path);
  if (!S_ISDIR(info.st_mode)) return fail(Code::kInvalidArgument, path + " is not a directory");
  filesystem::ListDirResponse response;
  TRY(list_into(blocking, path, std::clamp(depth, 1U, kMaxListDepth), &response));
  return response;
}

Result<filesystem::MakeDirResponse> make_dir(const std::string& path, const sys::User& user) {
  struct stat info{};
  if (::stat(path.c_str(), &info) == 0) {
    if (S_ISDIR(info.st_mode)) return fail(Code::kAlreadyExists, path + " already exists");
    return fail(Code::kInvalidArgument, path + " is not a directory");
  }
  TRY(make_owned_dirs(path, user));
  filesystem::MakeDirResponse response;
  *response.mutable_entry() = TRY(entry_info(path));
  return response;
}

Result<filesystem::MoveResponse> move(const std::string& from, const std::string& to, const sys::User& user) {
  TRY(entry_info(from));
  TRY(make_owned_dirs(parent_of(to), user));
  TRY(sys::rename_file(from, to));
  filesystem::MoveResponse response;
  *response.mutable_entry() = TRY(entry_info(to));
  return response;
}

class Service {
 public:
  Service(asio::thread_pool* pool, Settings* settings) : pool_(pool), settings_(settings) {}

  Task<filesystem::StatResponse> stat(Context context, filesystem::StatRequest request) {
    const auto user = CO_TRY(request_user(context->request_headers, *settings_));
    const auto path = CO_TRY(resolve_path(request.path(), user, *settings_));
    co_return co_await async::offload(*pool_, [path]() -> Result<filesystem::StatResponse> {
      filesystem::StatResponse response;
      *response.mutable_entry() = TRY(entry_info(path));
      return response;
    });
  }
  Task<filesystem::ListDirResponse> list(Context context, filesystem::ListDirRequest request) {
    const auto user = CO_TRY(request_user(context->request_headers, *settings_));
    const auto path = CO_TRY(resolve_path(request.path(), user, *settings_));
    const unsigned depth = request.depth();
    co_return co_await async::offload(
        *pool_, [path, depth](async::Blocking blocking) { return list_dir(blocking, path, depth); });
  }
  Task<filesystem::MakeDirResponse> make(Context context, filesystem::MakeDirRequest request) {
    const auto user = CO_TRY(request_user(context->request_headers, *settings_));
    const auto path = CO_TRY(resolve_path(request.path(), user, *settings_));
    co_return co_await async::offload(*pool_, [path, user] { return make_dir(path, user); });
  }
  Task<filesystem::MoveResponse> rename(Context context, filesystem::MoveRequest request) {
    const auto user = CO_TRY(request_user(context->request_headers, *settings_));
    const auto from = CO_TRY(resolve_path(request.source(), user, *settings_));
    const auto to = CO_TRY(resolve_path(request.destination(), user, *settings_));
    co_return co_await async::offload(*pool_, [from, to, user] { return move(from, to, user); });
  }
  Task<filesystem::RemoveResponse> remove(Context context, filesystem::RemoveRequest request) {
    const auto user = CO_TRY(request_user(context->request_headers, *settings_));
    const auto path = CO_TRY(resolve_path(request.path(), user, *settings_));
    CO_TRY(co_await async::offload(
        *pool_, [path](async::Blocking blocking) { return sys::remove_tree(blocking, path); }));
    co_return filesystem::RemoveResponse();
  }

 private:
  asio::thread_pool* pool_;
  Settings* settings_;
};

}  // namespace

Result<filesystem::EntryInfo> entry_info(const std::string& path) {
  struct stat info{};
  if (::lstat(path.c_str(), &info) != 0) return fail_errno(path);
  filesystem::EntryInfo entry;
  const std::string name = path == "/" ? "/" : path.substr(path.find_last_of('/') + 1);
  // proto3 strings are UTF-8; a file name need not be.
  if (!is_utf8(path)) return fail(Code::kInvalidArgument, "a file name is not valid UTF-8");
  entry.set_name(name);
  entry.set_path(path);
  entry.set_type(type_of(info.st_mode));
  entry.set_size(info.st_size);
  entry.set_mode(info.st_mode & 07777U);
  entry.set_permissions(permissions_text(info.st_mode));
  entry.set_owner(sys::user_name(info.st_uid));
  entry.set_group(sys::group_name(info.st_gid));
  entry.mutable_modified_time()->set_seconds(info.st_mtim.tv_sec);
  entry.mutable_modified_time()->set_nanos(static_cast<int>(info.st_mtim.tv_nsec));
  if (S_ISLNK(info.st_mode)) {
    std::array<char, PATH_MAX> target{};
    const ssize_t length = ::readlink(path.c_str(), target.data(), target.size());
    const std::string_view text(target.data(), static_cast<std::size_t>(std::max<ssize_t>(length, 0)));
    if (is_utf8(text)) entry.set_symlink_target(std::string(text));
    entry.set_is_symlink(true);
    struct stat led{};
    if (::stat(path.c_str(), &led) == 0) entry.set_type(type_of(led.st_mode));
  }
  for (auto& [key, value] : read_metadata(path)) (*entry.mutable_metadata())[key] = value;
  return entry;
}

void serve_filesystem(connect::Router* router, asio::thread_pool* pool, Settings* settings) {
  using std::placeholders::_1, std::placeholders::_2;
  const auto service = std::make_shared<Service>(pool, settings);
  const std::string prefix = "/filesystem.Filesystem/";
  router->unary<filesystem::StatRequest, filesystem::StatResponse>(
      prefix + "Stat", std::bind(&Service::stat, service, _1, _2));
  router->unary<filesystem::ListDirRequest, filesystem::ListDirResponse>(
      prefix + "ListDir", std::bind(&Service::list, service, _1, _2));
  router->unary<filesystem::MakeDirRequest, filesystem::MakeDirResponse>(
      prefix + "MakeDir", std::bind(&Service::make, service, _1, _2));
  router->unary<filesystem::MoveRequest, filesystem::MoveResponse>(
      prefix + "Move", std::bind(&Service::rename, service, _1, _2));
  router->unary<filesystem::RemoveRequest, filesystem::RemoveResponse>(
      prefix + "Remove", std::bind(&Service::remove, service, _1, _2));
}

}  // namespace wrenn::envd
