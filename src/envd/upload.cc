#include "envd/upload.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <boost/json.hpp>
#include <set>

#include "base/bytes.h"
#include "envd/limits.h"
#include "envd/metadata.h"
#include "envd/new_file.h"
#include "net/gzip.h"
#include "net/multipart.h"
#include "sys/file.h"

namespace wrenn::envd {
namespace {

namespace json = boost::json;

json::object entry_of(const std::string& path, const Metadata& metadata) {
  json::object entry{{"name", path.substr(path.find_last_of('/') + 1)}, {"path", path}, {"type", "file"}};
  if (!metadata.empty()) {
    json::object& pairs = entry["metadata"].emplace_object();
    for (const auto& [key, value] : metadata) pairs[key] = value;
  }
  return entry;
}

net::Headers json_headers() {
  net::Headers headers;
  headers.set("Content-Type", "application/json");
  return headers;
}

// One file of an upload: gathers bytes into large writes.
class FileSink {
 public:
  FileSink(asio::thread_pool* pool, std::unique_ptr<NewFile> file) : pool_(pool), file_(std::move(file)) {}

  Task<> write(std::string bytes) {
    waiting_ += bytes;
    if (waiting_.size() < kFileChunkBytes) co_return Result<>{};
    co_return co_await flush();
  }
  Task<> publish() {
    CO_TRY(co_await flush());
    co_return co_await async::offload(
        *pool_, [file = file_.get()](async::Blocking blocking) { return file->publish(blocking); });
  }

 private:
  Task<> flush() {
    co_return co_await async::offload(
        *pool_, [fd = file_->fd(), bytes = std::exchange(waiting_, {})](async::Blocking blocking) {
          return sys::write_all(blocking, fd, bytes);
        });
  }

  asio::thread_pool* pool_;
  std::unique_ptr<NewFile> file_;
  std::string waiting_;
};

// What the files of one request have in common.
class Upload {
 public:
  Upload(asio::thread_pool* pool, const Settings* settings, sys::User user, std::string path,
         Metadata metadata)
      : pool_(pool),
        settings_(settings),
        user_(std::move(user)),
        path_(std::move(path)),
        metadata_(std::move(metadata)) {}

  Task<json::array> octets(net::BodyReader* body) {
    CO_TRY(co_await open(path_));
    std::string buffer(kFileChunkBytes, '\0');
    while (const std::size_t got = CO_TRY(co_await body->read(buffer))) {
      CO_TRY(co_await sink_->write(buffer.substr(0, got)));
    }
    CO_TRY(co_await close());
    co_return std::move(written_);
  }

  Task<json::array> parts(net::BodyReader* body, std::string boundary) {
    net::MultipartParser parser(boundary);
    std::string buffer(kFileChunkBytes, '\0');
    while (const std::size_t got = CO_TRY(co_await body->read(buffer))) {
      for (auto& event : CO_TRY(parser.feed(std::string_view(buffer).substr(0, got)))) {
        CO_TRY(co_await take(std::move(event)));
      }
    }
    if (!parser.done()) co_return fail(Code::kInvalidArgument, "the multipart body is cut short");
    if (written_.empty()) co_return fail(Error(Code::kInvalidArgument, "no part file").with_field("file"));
    co_return std::move(written_);
  }

 private:
  Task<> take(net::MultipartParser::Event event) {
    using Kind = net::MultipartParser::Event::Kind;
    if (event.kind == Kind::kPartBegin && event.text == "file") {
      co_return co_await open(path_.empty() ? event.filename : path_);
    }
    if (event.kind == Kind::kData && sink_) co_return co_await sink_->write(std::move(event.text));
    if (event.kind == Kind::kPartEnd && sink_) co_return co_await close();
    co_return Result<>{};
  }

  Task<> open(std::string asked) {
    if (asked.empty()) co_return fail(Error(Code::kInvalidArgument, "path is missing").with_field("path"));
    at_ = CO_TRY(resolve_path(asked, user_, *settings_));
    if (!seen_.insert(at_).second) {
      co_return fail(Error(Code::kInvalidArgument, "two files for the path " + at_).with_field("path"));
    }
    auto file = CO_TRY(co_await async::offload(
        *pool_, [path = at_, user = user_, metadata = metadata_](async::Blocking blocking) {
          return NewFile::create(blocking, path, user, metadata);
        }));
    sink_ = std::make_unique<FileSink>(pool_, std::move(file));
    co_return Result<>{};
  }

  Task<> close() {
    CO_TRY(co_await sink_->publish());
    sink_.reset();
    written_.push_back(entry_of(at_, metadata_));
    co_return Result<>{};
  }

  asio::thread_pool* pool_;
  const Settings* settings_;
  sys::User user_;
  std::string path_;
  Metadata metadata_;
  std::string at_;
  std::set<std::string> seen_;
  std::unique_ptr<FileSink> sink_;
  json::array written_;
};

}  // namespace

Task<> upload(std::shared_ptr<net::Exchange> exchange, asio::thread_pool* pool, const Settings* settings,
              sys::User user, std::string path) {
  const net::Headers& headers = exchange->request().headers;
  Upload files(pool, settings, std::move(user), std::move(path), CO_TRY(metadata_of(headers)));
  std::optional<net::GunzipReader> plain;
  net::BodyReader* body = exchange.get();
  const std::string encoding = ascii_lower(trim(headers.get("content-encoding")));
  if (encoding == "gzip") body = &plain.emplace(body);
  if (!encoding.empty() && encoding != "gzip" && encoding != "identity") {
    co_return fail(Code::kInvalidArgument, "Content-Encoding must be gzip or identity");
  }
  json::array written;
  if (ascii_lower(headers.get("content-type")).starts_with("application/octet-stream")) {
    written = CO_TRY(co_await files.octets(body));
  } else {
    const auto boundary = net::multipart_boundary(headers.get("content-type"));
    if (!boundary) {
      co_return fail(Code::kInvalidArgument, "send application/octet-stream or multipart/form-data");
    }
    written = CO_TRY(co_await files.parts(body, *boundary));
  }
  co_return co_await exchange->respond(200, json_headers(), json::serialize(written));
}

// ---- compose

namespace {

struct ComposeRequest {
  std::vector<std::string> sources;
  std::string destination;
  std::string username;
};

std::unexpected<Error> bad_field(const char* name, std::string why) {
  return fail(Error(Code::kInvalidArgument, name + (" " + std::move(why))).with_field(name));
}

Result<ComposeRequest> parse_compose(const std::string& text) {
  boost::system::error_code ec;
  json::parse_options options;
  options.max_depth = 8;
  const json::value value = json::parse(text, ec, {}, options);
  if (ec || !value.is_object()) return fail(Code::kInvalidArgument, "the body is not a JSON object");
  const json::object& body = value.get_object();
  ComposeRequest request;
  const json::value* sources = body.if_contains("source_paths");
  if (sources == nullptr || !sources->is_array() || sources->get_array().empty() ||
      sources->get_array().size() > kMaxComposeSources) {
    return bad_field("source_paths", "must list 1 to " + std::to_string(kMaxComposeSources) + " paths");
  }
  for (const json::value& source : sources->get_array()) {
    if (!source.is_string()) return bad_field("source_paths", "must hold strings");
    request.sources.emplace_back(source.get_string());
  }
  const json::value* destination = body.if_contains("destination");
  if (destination == nullptr || !destination->is_string() || destination->get_string().empty()) {
    return bad_field("destination", "is required");
  }
  request.destination = destination->get_string();
  const json::value* username = body.if_contains("username");
  if (username != nullptr && !username->is_null()) {
    if (!username->is_string()) return bad_field("username", "must be a string");
    request.username = username->get_string();
  }
  return request;
}

Result<sys::Fd> open_source(const std::string& path) {
  sys::Fd fd = TRY(sys::open_file(path, O_RDONLY | O_NONBLOCK));
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) return fail_errno(path);
  if (!S_ISREG(info.st_mode)) return fail(Code::kInvalidArgument, path + " is not a regular file");
  return fd;
}

}  // namespace

Task<> compose(std::shared_ptr<net::Exchange> exchange, asio::thread_pool* pool, const Settings* settings) {
  const std::string text = CO_TRY(co_await net::read_all(exchange.get(), kMaxInitBytes));
  const ComposeRequest request = CO_TRY(parse_compose(text));
  const sys::User user =
      CO_TRY(request.username.empty() ? request_user(exchange->request().headers, *settings)
                                      : named_user(request.username, *settings));
  const std::string to = CO_TRY(resolve_path(request.destination, user, *settings));
  std::set<std::string> sources;
  std::vector<std::string> paths;
  for (const std::string& asked : request.sources) {
    paths.push_back(CO_TRY(resolve_path(asked, user, *settings)));
    if (paths.back() == to || !sources.insert(paths.back()).second) {
      co_return bad_field("source_paths", "must differ from each other and from the destination");
    }
  }
  const auto file = CO_TRY(co_await async::offload(
      *pool, [to, user](async::Blocking blocking) { return NewFile::create(blocking, to, user); }));
  for (const std::string& path : paths) {
    const auto from = CO_TRY(co_await async::offload(*pool, [path] { return open_source(path); }));
    // Piece by piece, so that a client that left ends it.
    const auto step = [in = from.get(), out = file->fd()](async::Blocking blocking) {
      return sys::append_some(blocking, in, out, kComposeStepBytes);
    };
    while (CO_TRY(co_await async::offload(*pool, step)) > 0) {
    }
  }
  CO_TRY(co_await async::offload(*pool, [out = file.get(), paths](async::Blocking blocking) -> Result<> {
    TRY(out->publish(blocking));
    for (const std::string& path : paths) TRY(sys::remove_file(blocking, path));
    return {};
  }));
  co_return co_await exchange->respond(200, json_headers(), json::serialize(entry_of(to, {})));
}

}  // namespace wrenn::envd
