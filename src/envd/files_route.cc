#include "envd/files_route.h"

#include <boost/json.hpp>
#include <chrono>

#include "envd/download.h"
#include "envd/signature.h"
#include "envd/upload.h"

namespace wrenn::envd {
namespace {

namespace json = boost::json;

int status_of(const Error& error) {
  if (error.reason() == "disk_full") return 507;
  if (error.reason() == "too_large") return 413;
  if (error.reason() == "not_acceptable") return 406;
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
    default:
      return 500;
  }
}

std::int64_t now_unix() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Task<> transfer(std::shared_ptr<net::Exchange> exchange, asio::thread_pool* pool, const Settings* settings) {
  const net::RequestHead& head = exchange->request();
  if (head.path() == "/files/compose") co_return co_await compose(exchange, pool, settings);
  CO_TRY(authorize_file(head, *settings, now_unix()));
  const std::string username = head.query("username").value_or("");
  const auto user =
      CO_TRY(username.empty() ? request_user(head.headers, *settings) : named_user(username, *settings));
  const std::string asked = head.query("path").value_or("");
  if (head.method == "POST") co_return co_await upload(exchange, pool, settings, user, asked);
  if (asked.empty()) co_return fail(Error(Code::kInvalidArgument, "path is missing").with_field("path"));
  co_return co_await download(exchange, pool, CO_TRY(resolve_path(asked, user, *settings)));
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
