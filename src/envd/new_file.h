#pragma once

#include <map>
#include <memory>
#include <string>

#include "envd/session.h"
#include "sys/fd.h"

namespace wrenn::envd {

// Names of files being written by NewFile: of new ones, and of those that will replace another. Watches
// report the file that comes of it instead.
inline constexpr std::string_view kNewPrefix = ".wrenn-upload-new-";
inline constexpr std::string_view kReplacingPrefix = ".wrenn-upload-old-";

// A file being written. It takes its name once it is whole; one that is dropped leaves what was there.
class NewFile {
 public:
  // Makes missing folders. The file belongs to `user` and has the mode of the one it replaces, or 0644.
  // kInvalidArgument when something else than a regular file has the name.
  static Result<std::unique_ptr<NewFile>> create(async::Blocking blocking, const std::string& path,
                                                 const sys::User& user,
                                                 const std::map<std::string, std::string>& metadata = {});
  NewFile() = default;
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  ~NewFile();
  int fd() const { return fd_.get(); }
  Result<> publish(async::Blocking blocking);

 private:
  std::string path_;
  std::string temporary_;  // empty: written in place, or published
  sys::Fd fd_;
};

}  // namespace wrenn::envd
