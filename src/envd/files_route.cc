#include "envd/files_route.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cstdlib>
#include <memory>

#include "base/bytes.h"
#include "envd/limits.h"
#include "sys/file.h"

namespace wrenn::envd {
namespace {

namespace json = boost::json;

int status_of(const Error& error) {
  if (error.reason() == "disk_full") return 507;
  if (error.reason() == "too_large") return 413;
  switch (error.code()) {
    case Code::kInvalidArgument:
    case Code::kFailedPrecondition:
      return 400;
    case Code::kUnauthenticated:
      return 401;
    case Code::kPermissionDenied:
      return 403;
    case Code::kNotFound:
      return 404;
    case Code::kUnimplemented:
      return 415;
    default:
      return 500;
  }
}

struct OpenFile {
  sys::Fd fd;
  std::uint64_t size = 0;
};

Result<OpenFile> open_for_reading(const std::string& path) {
  OpenFile file{.fd = TRY(sys::open_file(path, O_RDONLY | O_NONBLOCK))};
  struct stat info{};
  if (::fstat(file.fd.get(), &info) != 0) return fail_errno(path);
  if (S_ISDIR(info.st_mode)) return fail(Code::kInvalidArgument, path + " is a directory");
  if (!S_ISREG(info.st_mode)) return fail(Code::kInvalidArgument, path + " is not a regular file");
  file.size = static_cast<std::uint64_t>(info.st_size);
  return file;
}

Result<std::string> read_chunk(int fd) {
  std::string chunk(kFileChunkBytes, '\0');
  const ssize_t got = ::read(fd, chunk.data(), chunk.size());
  if (got < 0) return fail_errno("read");
  chunk.resize(static_cast<std::size_t>(got));
  return chunk;
}

// The body is chunked, because files of /proc say size 0 and others may grow while they are read.
Task<> download(std::shared_ptr<net::Exchange> exchange, asio::thread_pool* pool, std::string path) {
  auto file = CO_TRY(co_await async::offload(*pool, [path] { return open_for_reading(path); }));
  net::Headers headers;
  headers.set("Content-Type", "application/octet-stream");
  CO_TRY(co_await exchange->start(200, std::move(headers)));
  const int fd = file.fd.get();
  while (true) {
    auto chunk = CO_TRY(co_await async::offload(*pool, [fd] { return read_chunk(fd); }));
    if (chunk.empty()) co_return co_await exchange->finish();
    CO_TRY(co_await exchange->write(std::move(chunk)));
  }
}

// Where the bytes of an upload really go: a link is followed.
std::string final_path(const std::string& path) {
  const std::unique_ptr<char, decltype(&::free)> real(::realpath(path.c_str(), nullptr), &::free);
  return real ? std::string(real.get()) : path;
}

// A file being uploaded. It takes its name once all bytes have come; one that is dropped leaves what was
// there.
class NewFile {
 public:
  static Result<std::unique_ptr<NewFile>> create(const std::string& path, const sys::User& user) {
    struct stat info{};
    const bool exists = ::stat(path.c_str(), &info) == 0;
    if (exists && !S_ISREG(info.st_mode)) {
      return fail(Code::kInvalidArgument, path + " exists and is not a regular file");
    }
    auto file = std::make_unique<NewFile>();
    file->path_ = final_path(path);
    const std::string folder = parent_of(file->path_);
    TRY(make_owned_dirs(folder, user));
    file->temporary_ = folder + "/" + random_id(".wrenn-upload-");
    const mode_t mode = exists ? info.st_mode & 07777 : 0644;
    auto fd = sys::open_file(file->temporary_, O_WRONLY | O_CREAT | O_EXCL, mode);
    if (!fd && exists) {
      // Files of /proc and /sys, and mounted files, have no room for another beside them.
      file->temporary_.clear();
      fd = sys::open_file(file->path_, O_WRONLY | O_TRUNC);
    }
    file->fd_ = TRY(std::move(fd));
    if (file->temporary_.empty()) return file;
    if (::fchown(file->fd_.get(), user.uid, user.gid) != 0) return fail_errno("chown " + path);
    if (::fchmod(file->fd_.get(), mode) != 0) return fail_errno("chmod " + path);
    return file;
  }
  NewFile() = default;
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  ~NewFile() {
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }
  int fd() const { return fd_.get(); }
  Result<> publish() {
    if (temporary_.empty()) return {};
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) return fail_errno("rename to " + path_);
    temporary_.clear();
    return {};
  }

 private:
  std::string path_;
  std::string temporary_;  // empty: written in place, or published
  sys::Fd fd_;
};

Task<> upload(std::shared_ptr<net::Exchange> exchange, asio::thread_pool* pool, std::string path,
              sys::User user) {
  const auto file =
      CO_TRY(co_await async::offload(*pool, [path, user] { return NewFile::create(path, user); }));
  const int raw = file->fd();
  while (true) {
    std::string chunk(kFileChunkBytes, '\0');
    std::size_t filled = 0;
    while (filled < chunk.size()) {
      const std::size_t got = CO_TRY(co_await exchange->read(std::span(chunk).subspan(filled)));
      if (got == 0) break;
      filled += got;
    }
    if (filled == 0) break;
    const bool last = filled < chunk.size();
    chunk.resize(filled);
    CO_TRY(co_await async::offload(*pool,
                                   [raw, bytes = std::move(chunk)] { return sys::write_all(raw, bytes); }));
    if (last) break;
  }
  CO_TRY(co_await async::offload(*pool, [out = file.get()] { return out->publish(); }));
  const json::array entries{
      json::object{{"name", path.substr(path.find_last_of('/') + 1)}, {"path", path}, {"type", "file"}}};
  net::Headers headers;
  headers.set("Content-Type", "application/json");
  co_return co_await exchange->respond(200, std::move(headers), json::serialize(entries));
}

Task<> transfer(std::shared_ptr<net::Exchange> exchange, asio::thread_pool* pool, const Settings* settings) {
  const net::RequestHead& head = exchange->request();
  const std::string username = head.query("username").value_or("");
  const auto user =
      CO_TRY(username.empty() ? request_user(head.headers, *settings) : named_user(username, *settings));
  const std::string asked = head.query("path").value_or("");
  if (asked.empty()) co_return fail(Error(Code::kInvalidArgument, "path is missing").with_field("path"));
  const std::string path = CO_TRY(resolve_path(asked, user, *settings));
  if (head.method == "GET") co_return co_await download(exchange, pool, path);
  const std::string_view type = head.headers.get("content-type");
  if (!type.starts_with("application/octet-stream")) {
    co_return fail(Code::kUnimplemented, "send the file as application/octet-stream");
  }
  co_return co_await upload(exchange, pool, path, user);
}

}  // namespace

Task<> respond_error(std::shared_ptr<net::Exchange> exchange, Error error) {
  const int status = status_of(error);
  net::Headers headers;
  headers.set("Content-Type", "application/json");
  const json::object body{{"code", status}, {"message", error.message()}};
  co_return co_await exchange->respond(status, std::move(headers), json::serialize(body));
}

Task<> serve_file(std::shared_ptr<net::Exchange> exchange, asio::thread_pool* pool,
                  const Settings* settings) {
  const Result<> done = co_await transfer(exchange, pool, settings);
  if (done || exchange->started()) co_return done;
  co_return co_await respond_error(exchange, done.error());
}

}  // namespace wrenn::envd
