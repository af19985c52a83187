#include "cli/copy.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "cli/limits.h"
#include "sys/fd.h"
#include "sys/file.h"

namespace wrenn::cli {
namespace {

std::string base_name(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  const std::size_t slash = path.rfind('/');
  return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
}

Task<std::string> read_some(asio::thread_pool* pool, int fd) {
  co_return co_await async::offload(*pool, [fd]() -> Result<std::string> {
    std::string buffer(kCopyBufferBytes, '\0');
    ssize_t got = -1;
    do {
      got = ::read(fd, buffer.data(), buffer.size());
    } while (got < 0 && errno == EINTR);
    if (got < 0) return fail_errno("read the file");
    buffer.resize(static_cast<std::size_t>(got));
    return buffer;
  });
}

struct Source {
  sys::Fd owned;
  int fd = STDIN_FILENO;
  std::optional<std::uint64_t> size;  // unset for pipes
};

Result<Source> open_source(const std::string& path) {
  Source source;
  if (path == "-") return source;
  source.owned = TRY(sys::open_file(path, O_RDONLY));
  source.fd = source.owned.get();
  struct stat status{};
  if (::fstat(source.fd, &status) != 0) return fail_errno("stat " + path);
  if (S_ISDIR(status.st_mode)) {
    return fail(Code::kInvalidArgument, path + " is a folder; copy a tar archive of it instead");
  }
  if (S_ISREG(status.st_mode)) source.size = static_cast<std::uint64_t>(status.st_size);
  return source;
}

struct Copied {
  std::uint64_t bytes = 0;
};

Task<> send_body(Context* context, net::ClientRequest* request, const Source* source, MultipartFrame frame,
                 Copied* copied) {
  CO_TRY(co_await request->write(std::move(frame.head)));
  while (true) {
    std::string chunk = CO_TRY(co_await read_some(&context->loop->pool(), source->fd));
    if (chunk.empty()) break;
    copied->bytes += chunk.size();
    if (source->size && copied->bytes > *source->size) {
      co_return fail(Code::kAborted, "the file grew while it was copied; try again");
    }
    CO_TRY(co_await request->write(std::move(chunk)));
  }
  if (source->size && copied->bytes != *source->size) {
    co_return fail(Code::kAborted, "the file shrank while it was copied; try again");
  }
  CO_TRY(co_await request->write(std::move(frame.tail)));
  co_return co_await request->finish();
}

Task<std::uint64_t> upload(Context* context, CopySide from, CopySide to) {
  const std::string id = CO_TRY(co_await context->api->resolve(to.sandbox));
  if (to.path.ends_with('/')) to.path += base_name(from.path);
  const Source source = CO_TRY(open_source(from.path));
  const std::string boundary = random_id("wrenn-");
  MultipartFrame frame = multipart_frame(to.path, boundary);
  std::optional<std::uint64_t> length;
  if (source.size) length = frame.head.size() + *source.size + frame.tail.size();
  auto request = CO_TRY(co_await context->api->upload("/v1/sandboxes/" + id + "/files/stream/write",
                                                      frame.content_type, length));
  Copied copied;
  const Result<> sent = co_await send_body(context, request.get(), &source, std::move(frame), &copied);
  if (!sent && sent.error().code() != Code::kUnavailable) co_return fail(sent.error());
  // A service that refuses answers before the body is through; its answer tells more than the broken pipe.
  auto response =
      co_await async::with_timeout(request->receive(), kTransitionLimit, std::string("the upload"));
  if (!response) co_return fail(sent ? response.error() : sent.error());
  CO_TRY(co_await context->api->accept(std::move(*response)));
  if (!sent) co_return fail(sent.error());
  co_return copied.bytes;
}

Task<std::uint64_t> receive_into(Context* context, net::ClientResponse* response, int fd) {
  std::string buffer(kCopyBufferBytes, '\0');
  std::uint64_t total = 0;
  while (true) {
    const std::size_t got = CO_TRY(co_await response->read(std::span(buffer.data(), buffer.size())));
    if (got == 0) co_return total;
    total += got;
    CO_TRY(co_await async::offload(
        context->loop->pool(), [fd, &buffer, got](async::Blocking blocking) -> Result<> {
          return sys::write_all(blocking, fd, std::string_view(buffer).substr(0, got));
        }));
  }
}

Task<std::uint64_t> download(Context* context, CopySide from, CopySide to) {
  const std::string id = CO_TRY(co_await context->api->resolve(from.sandbox));
  auto response = CO_TRY(co_await context->api->open_response(
      "POST", "/v1/sandboxes/" + id + "/files/stream/read", {{"path", from.path}}));
  if (to.path == "-") co_return co_await receive_into(context, response.get(), STDOUT_FILENO);

  std::string target = to.path;
  if (sys::is_directory(target)) target += "/" + base_name(from.path);
  // Under another name first: a broken transfer leaves no half file.
  const std::string part = target + "." + random_id("part-");
  const sys::Fd file = CO_TRY(sys::open_file(part, O_WRONLY | O_CREAT | O_EXCL, 0644));
  const Result<std::uint64_t> total = co_await receive_into(context, response.get(), file.get());
  const Result<> placed = total ? sys::rename_file(part, target) : Result<>{};
  if (!total || !placed) {
    static_cast<void>(sys::remove_file(async::Blocking::without_loop(), part));
    co_return fail(total ? placed.error() : total.error());
  }
  co_return *total;
}

}  // namespace

CopySide parse_copy_side(std::string_view text) {
  const std::size_t colon = text.find(':');
  const std::size_t slash = text.find('/');
  if (colon == std::string_view::npos || colon == 0 || slash < colon)
    return {.sandbox = {}, .path = std::string(text)};
  return {.sandbox = std::string(text.substr(0, colon)), .path = std::string(text.substr(colon + 1))};
}

MultipartFrame multipart_frame(const std::string& path, const std::string& boundary) {
  return {.content_type = "multipart/form-data; boundary=" + boundary,
          .head = "--" + boundary + "\r\nContent-Disposition: form-data; name=\"path\"\r\n\r\n" + path +
                  "\r\n--" + boundary +
                  "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\n"
                  "Content-Type: application/octet-stream\r\n\r\n",
          .tail = "\r\n--" + boundary + "--\r\n"};
}

Task<int> copy_command(Context* context) {
  CopySide from = parse_copy_side(context->args.from);
  CopySide to = parse_copy_side(context->args.to);
  if (from.sandbox.empty() == to.sandbox.empty()) {
    co_return fail(Code::kInvalidArgument,
                   "one side must be in a sandbox (ID:PATH), the other on this machine");
  }
  const CopySide& remote = from.sandbox.empty() ? to : from;
  if (remote.path.empty()) co_return fail(Code::kInvalidArgument, "no path after " + remote.sandbox + ":");
  if (remote.path.find_first_of("\r\n") != std::string::npos) {
    co_return fail(Code::kInvalidArgument, "a path in a sandbox may not hold line breaks");
  }
  const bool uploading = from.sandbox.empty();
  const bool to_pipe = to.path == "-";
  auto progress = context->progress();
  const std::uint64_t bytes = CO_TRY(co_await progress.run<std::uint64_t>(
      "copying", uploading ? upload(context, from, to) : download(context, from, to)));
  if (to_pipe) co_return kExitOk;
  if (context->args.json) {
    CO_TRY(print_json({{"from", context->args.from}, {"to", context->args.to}, {"bytes", bytes}}));
  } else if (is_terminal(STDOUT_FILENO)) {
    CO_TRY(print_line(size_text(bytes) + " copied"));
  }
  co_return kExitOk;
}

}  // namespace wrenn::cli
