#include "envd/new_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "base/bytes.h"
#include "envd/metadata.h"
#include "sys/file.h"

namespace wrenn::envd {
namespace {

// Where the bytes of an upload really go: a link is followed.
std::string final_path(const std::string& path) {
  const std::unique_ptr<char, decltype(&::free)> real(::realpath(path.c_str(), nullptr), &::free);
  return real ? std::string(real.get()) : path;
}

}  // namespace

Result<std::unique_ptr<NewFile>> NewFile::create(async::Blocking /*blocking*/, const std::string& path,
                                                 const sys::User& user,
                                                 const std::map<std::string, std::string>& metadata) {
  struct stat info{};
  const bool exists = ::stat(path.c_str(), &info) == 0;
  if (exists && !S_ISREG(info.st_mode)) {
    return fail(Code::kInvalidArgument, path + " exists and is not a regular file");
  }
  auto file = std::make_unique<NewFile>();
  file->path_ = final_path(path);
  const std::string folder = parent_of(file->path_);
  TRY(make_owned_dirs(folder, user));
  file->temporary_ = folder + "/" + random_id(exists ? kReplacingPrefix : kNewPrefix);
  const mode_t mode = exists ? info.st_mode & 07777 : 0644;
  auto fd = sys::open_file(file->temporary_, O_WRONLY | O_CREAT | O_EXCL, mode);
  if (!fd && exists) {
    // Files of /proc and /sys, and mounted files, have no room for another beside them.
    file->temporary_.clear();
    fd = sys::open_file(file->path_, O_WRONLY | O_TRUNC);
  }
  file->fd_ = TRY(std::move(fd));
  TRY(set_metadata(file->fd_.get(), metadata));
  if (file->temporary_.empty()) return file;
  if (::fchown(file->fd_.get(), user.uid, user.gid) != 0) return fail_errno("chown " + path);
  if (::fchmod(file->fd_.get(), mode) != 0) return fail_errno("chmod " + path);
  return file;
}

NewFile::~NewFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Result<> NewFile::publish(async::Blocking /*blocking*/) {
  if (temporary_.empty()) return {};
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return fail_errno("rename to " + path_);
  temporary_.clear();
  return {};
}

}  // namespace wrenn::envd
