#include "envd/watcher.h"

#include <linux/magic.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/bytes.h"
#include "envd/filesystem_service.h"
#include "envd/limits.h"
#include "envd/new_file.h"
#include "sys/file.h"

namespace wrenn::envd {
namespace {

using filesystem::EVENT_TYPE_CHMOD, filesystem::EVENT_TYPE_CREATE, filesystem::EVENT_TYPE_REMOVE,
    filesystem::EVENT_TYPE_RENAME, filesystem::EVENT_TYPE_WRITE;

constexpr std::uint32_t kMask = IN_CREATE | IN_MODIFY | IN_ATTRIB | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO |
                                IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_EXCL_UNLINK;
constexpr std::size_t kReadBytes = std::size_t{64} * 1024;
constexpr std::size_t kMaxRemembered = 4096;

bool is_network(const std::string& path) {
  struct statfs info{};
  if (::statfs(path.c_str(), &info) != 0) return false;
  constexpr std::array<std::uint32_t, 5> kTypes = {NFS_SUPER_MAGIC, CIFS_SUPER_MAGIC, SMB_SUPER_MAGIC,
                                                   SMB2_SUPER_MAGIC, FUSE_SUPER_MAGIC};
  return std::ranges::find(kTypes, static_cast<std::uint32_t>(info.f_type)) != kTypes.end();
}

std::string join(const std::string& folder, const std::string& name) {
  if (folder.empty()) return name;
  return name.empty() ? folder : folder + "/" + name;
}

bool is_upload(std::string_view name) {
  return name.starts_with(kNewPrefix) || name.starts_with(kReplacingPrefix);
}

}  // namespace

Result<std::unique_ptr<Watcher>> Watcher::open(async::Blocking blocking, std::string path,
                                               WatchOptions options) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return fail_errno(path);
  if (!S_ISDIR(info.st_mode)) return fail(Code::kInvalidArgument, path + " is not a directory");
  if (!options.allow_network_mounts && is_network(path)) {
    return fail(Code::kInvalidArgument,
                path + " is on a network filesystem, whose events are unreliable: set allow_network_mounts");
  }
  sys::Fd fd(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!fd) return fail_errno("inotify");
  std::unique_ptr<Watcher> watcher(new Watcher(std::move(path), options, std::move(fd)));
  TRY(watcher->add_folder(""));
  Events before;  // nothing has happened yet
  if (options.recursive) TRY(watcher->enter_folder(blocking, "", &before));
  watcher->announced_.clear();
  return watcher;
}

Result<> Watcher::add_folder(const std::string& relative) {
  if (folders_.size() >= kMaxWatchedFolders) {
    return fail(Error(Code::kResourceExhausted,
                      "more than " + std::to_string(kMaxWatchedFolders) + " folders below the watched one")
                    .with_reason("too_many_folders"));
  }
  const std::string absolute = join(path_, relative);
  const std::uint32_t follow = relative.empty() ? 0U : std::uint32_t{IN_DONT_FOLLOW};
  const int watch = ::inotify_add_watch(fd_.get(), absolute.c_str(), kMask | follow);
  // One that went away, or was no folder after all, needs no watch.
  if (watch < 0 && (errno == ENOENT || errno == ENOTDIR) && !relative.empty()) return {};
  if (watch < 0 && errno == ENOSPC) {
    return fail(Error(Code::kResourceExhausted, "the guest's limit of inotify watches is reached")
                    .with_reason("too_many_folders"));
  }
  if (watch < 0) return fail_errno("watch " + absolute);
  folders_[watch] = relative;
  return {};
}

// What is in a folder by the time it is watched has come before its events.
Result<> Watcher::enter_folder(async::Blocking blocking, const std::string& relative, Events* out) {
  const auto names = sys::list_dir(blocking, join(path_, relative));
  if (!names) return {};  // gone again
  for (const std::string& name : *names) {
    const std::string at = join(relative, name);
    if (is_upload(name)) continue;
    emit(at, EVENT_TYPE_CREATE, out);
    if (announced_.size() < kMaxRemembered) announced_.insert(at);
    struct stat info{};
    if (::lstat(join(path_, at).c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) continue;
    TRY(add_folder(at));
    TRY(enter_folder(blocking, at, out));
  }
  return {};
}

void Watcher::forget_below(const std::string& relative) {
  for (auto at = folders_.begin(); at != folders_.end();) {
    const bool below = at->second == relative || at->second.starts_with(relative + "/");
    if (below) ::inotify_rm_watch(fd_.get(), at->first);
    at = below ? folders_.erase(at) : std::next(at);
  }
}

void Watcher::emit(const std::string& relative, filesystem::EventType type, Events* out) {
  // Protobuf strings are UTF-8; a file name need not be.
  if (!is_utf8(relative)) return;
  filesystem::FilesystemEvent event;
  event.set_name(relative.empty() ? "." : relative);
  event.set_type(type);
  if (options_.include_entry && type != EVENT_TYPE_REMOVE && type != EVENT_TYPE_RENAME) {
    if (auto entry = entry_info(join(path_, relative))) *event.mutable_entry() = std::move(*entry);
  }
  out->push_back(std::move(event));
}

// A file that an upload writes under another name: its rename is the event.
Result<> Watcher::take_upload(std::uint32_t mask, std::uint32_t cookie, const std::string& name, Events*) {
  if ((mask & IN_MOVED_FROM) == 0) return {};
  if (uploads_.size() >= kMaxRemembered) uploads_.clear();
  uploads_[cookie] = name.starts_with(kNewPrefix);
  return {};
}

Result<> Watcher::take(async::Blocking blocking, int watch, std::uint32_t mask, std::uint32_t cookie,
                       const std::string& name, Events* out) {
  const auto folder = folders_.find(watch);
  if (folder == folders_.end()) return {};
  if ((mask & IN_IGNORED) != 0) {
    folders_.erase(folder);
    return {};
  }
  if (is_upload(name)) return take_upload(mask, cookie, name, out);
  const std::string at = join(folder->second, name);
  // A folder below reports its end in its parent too.
  if (name.empty() && !folder->second.empty() && (mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_ATTRIB)) != 0) {
    return {};
  }
  const bool is_folder = (mask & IN_ISDIR) != 0;
  if ((mask & IN_MOVED_TO) != 0 && uploads_.contains(cookie)) {
    if (uploads_.extract(cookie).mapped()) emit(at, EVENT_TYPE_CREATE, out);
    emit(at, EVENT_TYPE_CHMOD, out);
    emit(at, EVENT_TYPE_WRITE, out);
    return {};
  }
  if ((mask & (IN_CREATE | IN_MOVED_TO)) != 0) {
    if (announced_.erase(at) == 0) emit(at, EVENT_TYPE_CREATE, out);
    if (!options_.recursive || !is_folder) return {};
    TRY(add_folder(at));
    return enter_folder(blocking, at, out);
  }
  if ((mask & IN_MODIFY) != 0) emit(at, EVENT_TYPE_WRITE, out);
  if ((mask & IN_ATTRIB) != 0) emit(at, EVENT_TYPE_CHMOD, out);
  if ((mask & (IN_DELETE | IN_DELETE_SELF)) != 0) emit(at, EVENT_TYPE_REMOVE, out);
  if ((mask & (IN_MOVED_FROM | IN_MOVE_SELF)) != 0) {
    emit(at, EVENT_TYPE_RENAME, out);
    if (is_folder && !name.empty()) forget_below(at);
  }
  return {};
}

Result<Watcher::Events> Watcher::read_some(async::Blocking blocking) {
  Events events;
  alignas(inotify_event) std::array<char, kReadBytes> buffer{};
  const ssize_t got = ::read(fd_.get(), buffer.data(), buffer.size());
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
    announced_.clear();
    return events;
  }
  if (got < 0) return fail_errno("inotify");
  bool lost = false;
  for (std::size_t at = 0; at < static_cast<std::size_t>(got);) {
    inotify_event event{};
    std::memcpy(&event, buffer.data() + at, sizeof event);
    const char* name = event.len == 0 ? "" : buffer.data() + at + sizeof event;
    at += sizeof event + event.len;
    if ((event.mask & IN_Q_OVERFLOW) != 0) {
      lost = true;
      continue;
    }
    TRY(take(blocking, event.wd, event.mask, event.cookie, name, &events));
  }
  if (!lost) return events;
  return fail(Error(Code::kDataLoss, "events came faster than they were read and some are lost: look anew")
                  .with_reason("watch_overflow"));
}

Task<Watcher::Events> Watcher::next(asio::thread_pool* pool) {
  while (true) {
    auto events = CO_TRY(
        co_await async::offload(*pool, [this](async::Blocking blocking) { return read_some(blocking); }));
    if (!events.empty()) co_return events;
    CO_TRY(co_await sys::wait_readable(fd_.get()));
  }
}

}  // namespace wrenn::envd
