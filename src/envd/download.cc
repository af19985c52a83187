#include "envd/download.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <ctime>
#include <memory>

#include "base/bytes.h"
#include "envd/limits.h"
#include "net/gzip.h"
#include "sys/fd.h"
#include "sys/file.h"

namespace wrenn::envd {
namespace {

// ---- validators

std::string http_date(std::time_t time) {
  std::tm calendar{};
  ::gmtime_r(&time, &calendar);
  std::array<char, 40> text{};
  const std::size_t length = std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &calendar);
  return {text.data(), length};
}

std::optional<std::time_t> parse_http_date(std::string_view text) {
  std::tm calendar{};
  const std::string copy(text);
  const char* rest = ::strptime(copy.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &calendar);
  if (rest == nullptr || *rest != '\0') return std::nullopt;
  return ::timegm(&calendar);
}

bool lists_tag(std::string_view list, std::string_view tag) {
  if (trim(list) == "*") return true;
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    std::string_view entry = trim(list.substr(0, comma));
    if (entry.starts_with("W/")) entry.remove_prefix(2);
    if (entry == tag) return true;
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
  }
  return false;
}

std::optional<std::uint64_t> parse_number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || ec != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// ---- the file

struct OpenFile {
  sys::Fd fd;
  std::string start;       // its first bytes
  std::uint64_t size = 0;  // exact if `sized`
  bool sized = false;
  std::time_t modified = 0;
  std::string tag;
};

// Into `out`, until it is full or the file ends; answers how much.
Result<std::size_t> read_full(int fd, std::span<char> out, std::uint64_t offset) {
  std::size_t filled = 0;
  while (filled < out.size()) {
    const ssize_t got =
        ::pread(fd, out.data() + filled, out.size() - filled, static_cast<off_t>(offset + filled));
    if (got < 0) return fail_errno("read");
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
  }
  return filled;
}

// Files of /proc say size 0, those of /sys a page: what a short file really holds is known only once it is
// read. Longer ones are believed.
Result<OpenFile> open_file(const std::string& path) {
  OpenFile file{.fd = TRY(sys::open_file(path, O_RDONLY | O_NONBLOCK))};
  struct stat info{};
  if (::fstat(file.fd.get(), &info) != 0) return fail_errno(path);
  if (S_ISDIR(info.st_mode)) return fail(Code::kInvalidArgument, path + " is a directory");
  if (!S_ISREG(info.st_mode)) return fail(Code::kInvalidArgument, path + " is not a regular file");
  file.start.resize(kFileChunkBytes);
  file.start.resize(TRY(read_full(file.fd.get(), file.start, 0)));
  file.size = static_cast<std::uint64_t>(info.st_size);
  file.sized = file.start.size() < kFileChunkBytes || file.size > kFileChunkBytes;
  if (file.start.size() < kFileChunkBytes) file.size = file.start.size();
  file.modified = info.st_mtim.tv_sec;
  file.tag = fmt::format("\"{:x}-{:x}-{:x}\"", info.st_ino,
                         info.st_mtim.tv_sec * 1'000'000'000 + info.st_mtim.tv_nsec, file.size);
  return file;
}

Result<std::string> read_at(int fd, std::uint64_t offset, std::size_t size) {
  std::string chunk(size, '\0');
  chunk.resize(TRY(read_full(fd, chunk, offset)));
  return chunk;
}

// ---- the answer

enum class Verdict { kSend, kNotModified, kPreconditionFailed };

Verdict judge(const net::Headers& headers, const OpenFile& file) {
  if (headers.has("if-match")) {
    if (!lists_tag(headers.get("if-match"), file.tag)) return Verdict::kPreconditionFailed;
  } else if (const auto since = parse_http_date(headers.get("if-unmodified-since"))) {
    if (file.modified > *since) return Verdict::kPreconditionFailed;
  }
  if (headers.has("if-none-match")) {
    return lists_tag(headers.get("if-none-match"), file.tag) ? Verdict::kNotModified : Verdict::kSend;
  }
  const auto since = parse_http_date(headers.get("if-modified-since"));
  return since && file.modified <= *since ? Verdict::kNotModified : Verdict::kSend;
}

bool range_still_holds(const net::Headers& headers, const OpenFile& file) {
  const std::string_view condition = headers.get("if-range");
  if (condition.empty() || condition == file.tag) return true;
  const auto date = parse_http_date(condition);
  return date && *date == file.modified;
}

class Sender {
 public:
  Sender(std::shared_ptr<net::Exchange> exchange, asio::thread_pool* pool, OpenFile file)
      : exchange_(std::move(exchange)), pool_(pool), file_(std::move(file)) {}

  Task<> run() {
    const net::Headers& asked = exchange_->request().headers;
    const bool ranged = asked.has("range") && file_.sized && range_still_holds(asked, file_);
    const Coding coding = choose_coding(asked.get("accept-encoding"));
    if (coding == Coding::kNone) {
      co_return fail(Error(Code::kInvalidArgument, "no acceptable encoding; identity and gzip are supported")
                         .with_reason("not_acceptable"));
    }
    switch (judge(asked, file_)) {
      case Verdict::kNotModified:
        co_return co_await exchange_->respond(304, headers(), "");
      case Verdict::kPreconditionFailed:
        co_return co_await exchange_->respond(412, headers(), "");
      case Verdict::kSend:
        break;
    }
    if (ranged) {
      if (const auto range = parse_range(asked.get("range"), file_.size)) co_return co_await part(*range);
    }
    if (coding == Coding::kGzip && !asked.has("range")) co_return co_await packed();
    co_return co_await whole();
  }

 private:
  net::Headers headers() const {
    net::Headers out;
    out.set("Last-Modified", http_date(file_.modified));
    out.set("ETag", file_.tag);
    out.set("Vary", "Accept-Encoding");
    return out;
  }
  net::Headers body_headers() const {
    net::Headers out = headers();
    out.set("Content-Type", "application/octet-stream");
    out.set("Content-Disposition", "inline");
    out.set("Accept-Ranges", "bytes");
    return out;
  }

  Task<> part(ByteRange range) {
    net::Headers out = body_headers();
    if (range.unsatisfiable) {
      out.set("Content-Range", fmt::format("bytes */{}", file_.size));
      co_return co_await exchange_->respond(416, std::move(out), "");
    }
    const std::uint64_t end = range.first + range.count;
    out.set("Content-Range", fmt::format("bytes {}-{}/{}", range.first, end - 1, file_.size));
    CO_TRY(co_await exchange_->start(206, std::move(out), range.count));
    co_return co_await send(range.first, end);
  }

  Task<> whole() {
    net::Headers out = body_headers();
    CO_TRY(co_await exchange_->start(200, std::move(out),
                                     file_.sized ? net::BodyLength(file_.size) : std::nullopt));
    co_return co_await send(0, file_.sized ? file_.size : UINT64_MAX);
  }

  // A file that shrinks meanwhile ends too early, which the length lets the client see.
  Task<> send(std::uint64_t from, std::uint64_t to) {
    while (from < to) {
      std::string chunk = CO_TRY(co_await next(from, to));
      if (chunk.empty()) break;
      from += chunk.size();
      CO_TRY(co_await exchange_->write(std::move(chunk)));
    }
    co_return co_await exchange_->finish();
  }

  Task<std::string> next(std::uint64_t from, std::uint64_t to) {
    const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(to - from, kFileChunkBytes));
    if (from < file_.start.size()) co_return file_.start.substr(static_cast<std::size_t>(from), size);
    co_return co_await async::offload(*pool_,
                                      [fd = file_.fd.get(), from, size] { return read_at(fd, from, size); });
  }

  Task<> packed() {
    net::Headers out = body_headers();
    out.set("Content-Encoding", "gzip");
    // The packed bytes differ from those the tag stands for.
    out.set("ETag", "W/" + file_.tag);
    CO_TRY(co_await exchange_->start(200, std::move(out)));
    net::GzipStream gzip;
    std::uint64_t from = 0;
    while (true) {
      const std::string chunk = CO_TRY(co_await next(from, UINT64_MAX));
      if (chunk.empty()) break;
      from += chunk.size();
      auto piece = CO_TRY(co_await async::offload(*pool_, [&gzip, &chunk] { return gzip.push(chunk); }));
      CO_TRY(co_await exchange_->write(std::move(piece)));
    }
    auto rest = CO_TRY(gzip.finish());
    CO_TRY(co_await exchange_->write(std::move(rest)));
    co_return co_await exchange_->finish();
  }

  std::shared_ptr<net::Exchange> exchange_;
  asio::thread_pool* pool_;
  OpenFile file_;
};

}  // namespace

std::optional<ByteRange> parse_range(std::string_view header, std::uint64_t size) {
  constexpr std::string_view kUnit = "bytes=";
  if (!ascii_lower(header.substr(0, kUnit.size())).starts_with(kUnit)) return std::nullopt;
  const std::string_view spec = trim(header.substr(kUnit.size()));
  const std::size_t dash = spec.find('-');
  if (dash == std::string_view::npos || spec.find(',') != std::string_view::npos) return std::nullopt;
  const std::string_view from = trim(spec.substr(0, dash));
  const std::string_view to = trim(spec.substr(dash + 1));
  if (from.empty()) {
    const auto last = parse_number(to);
    if (!last) return std::nullopt;
    const std::uint64_t count = std::min(*last, size);
    return ByteRange{.first = size - count, .count = count, .unsatisfiable = count == 0};
  }
  const auto first = parse_number(from);
  const auto last = to.empty() ? std::optional<std::uint64_t>(UINT64_MAX) : parse_number(to);
  if (!first || !last || *last < *first) return std::nullopt;
  if (*first >= size) return ByteRange{.unsatisfiable = true};
  return ByteRange{.first = *first, .count = std::min(*last, size - 1) - *first + 1};
}

Coding choose_coding(std::string_view accept_encoding) {
  if (trim(accept_encoding).empty()) return Coding::kIdentity;
  std::optional<double> gzip;
  std::optional<double> identity;
  std::optional<double> any;
  while (!accept_encoding.empty()) {
    const std::size_t comma = accept_encoding.find(',');
    const std::string_view entry = trim(accept_encoding.substr(0, comma));
    accept_encoding =
        comma == std::string_view::npos ? std::string_view() : accept_encoding.substr(comma + 1);
    const std::size_t semicolon = entry.find(';');
    const std::string_view name = trim(entry.substr(0, semicolon));
    double weight = 1;
    if (semicolon != std::string_view::npos) {
      const std::string_view parameter = trim(entry.substr(semicolon + 1));
      if (!parameter.starts_with("q=")) continue;
      const auto [end, ec] =
          std::from_chars(parameter.data() + 2, parameter.data() + parameter.size(), weight);
      if (ec != std::errc() || !(weight >= 0 && weight <= 1)) continue;
    }
    if (ascii_iequal(name, "gzip") || ascii_iequal(name, "x-gzip")) gzip = weight;
    if (ascii_iequal(name, "identity")) identity = weight;
    if (name == "*") any = weight;
  }
  const double packed = gzip.value_or(any.value_or(0));
  // Identity is always allowed unless it is refused.
  const double plain = identity.value_or(any && *any == 0 ? 0 : 0.001);
  if (packed <= 0 && plain <= 0) return Coding::kNone;
  return packed >= plain && packed > 0 ? Coding::kGzip : Coding::kIdentity;
}

Task<> download(std::shared_ptr<net::Exchange> exchange, asio::thread_pool* pool, std::string path) {
  auto file = CO_TRY(co_await async::offload(*pool, [path] { return open_file(path); }));
  Sender sender(std::move(exchange), pool, std::move(file));
  co_return co_await sender.run();
}

}  // namespace wrenn::envd
