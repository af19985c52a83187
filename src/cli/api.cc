#include "cli/api.h"

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "cli/limits.h"

namespace wrenn::cli {
namespace {

// The system's CAs need no file of ours, so this cannot fail.
net::ClientOptions client_options(const net::Endpoint& endpoint) {
  net::ClientOptions options;
  if (endpoint.tls) options.tls = net::client_tls().value_or(nullptr);
  return options;
}

constexpr std::size_t kFullIdLength = 3 + 26;  // "sb-" and 128 bits in base32

Code code_of_status(int status) {
  switch (status) {
    case 400:
    case 422:
      return Code::kInvalidArgument;
    case 401:
      return Code::kUnauthenticated;
    case 403:
      return Code::kPermissionDenied;
    case 404:
      return Code::kNotFound;
    case 409:
      return Code::kFailedPrecondition;
    case 413:
    case 429:
    case 507:
      return Code::kResourceExhausted;
    case 501:
      return Code::kUnimplemented;
    case 503:
      return Code::kUnavailable;
    case 504:
      return Code::kDeadlineExceeded;
    default:
      return Code::kInternal;
  }
}

std::string text_at(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  if (value == nullptr || !value->is_string()) return {};
  return std::string(value->get_string());
}

bool is_success(int status) { return status >= 200 && status < 300; }

}  // namespace

Error error_of_response(int status, std::string_view body) {
  boost::system::error_code ec;
  const json::value parsed = json::parse(body, ec);
  if (!ec && parsed.is_object()) {
    const json::value* error = parsed.get_object().if_contains("error");
    if (error != nullptr && error->is_object()) {
      const std::string message = text_at(error->get_object(), "message");
      return Error(code_of_status(status),
                   message.empty() ? "HTTP status " + std::to_string(status) : message)
          .with_reason(text_at(error->get_object(), "code"));
    }
  }
  return Error(code_of_status(status), "HTTP status " + std::to_string(status) + " without an error message");
}

bool is_full_id(std::string_view text) {
  if (text.size() != kFullIdLength || !text.starts_with("sb-")) return false;
  return std::all_of(text.begin() + 3, text.end(),
                     [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); });
}

Result<std::string> match_id(const json::array& sandboxes, std::string_view wanted) {
  std::string live;
  std::string ended;
  int live_count = 0;
  int ended_count = 0;
  for (const json::value& item : sandboxes) {
    if (!item.is_object()) continue;
    std::string id = text_at(item.get_object(), "id");
    if (id == wanted) return id;
    const std::string_view bare =
        std::string_view(id).starts_with("sb-") ? std::string_view(id).substr(3) : id;
    if (wanted.empty() || (!std::string_view(id).starts_with(wanted) && !bare.starts_with(wanted))) continue;
    const std::string status = text_at(item.get_object(), "status");
    const bool is_live = status != "stopped" && status != "error";
    (is_live ? live : ended) = id;
    ++(is_live ? live_count : ended_count);
  }
  if (live_count == 1) return live;
  if (live_count == 0 && ended_count == 1) return ended;
  if (live_count + ended_count == 0) {
    return fail(Code::kNotFound, "no sandbox \"" + std::string(wanted) + "\"; `wrenn ls` lists them");
  }
  return fail(Error(Code::kInvalidArgument, "\"" + std::string(wanted) + "\" fits " +
                                                std::to_string(live_count + ended_count) +
                                                " sandboxes; give more of the id")
                  .with_field("id"));
}

Result<std::unique_ptr<Api>> Api::make(asio::any_io_executor executor, const Settings& settings) {
  BaseUrl url = TRY(parse_base_url(settings.base_url));
  net::Endpoint endpoint = TRY(net::Endpoint::parse_remote(url.endpoint));
  return std::unique_ptr<Api>(
      new Api(std::move(executor), std::move(endpoint), std::move(url.prefix), settings));
}

Api::Api(asio::any_io_executor executor, net::Endpoint endpoint, std::string prefix, const Settings& settings)
    : base_url_(settings.base_url),
      api_key_(settings.api_key),
      endpoint_(std::move(endpoint)),
      prefix_(std::move(prefix)),
      http_(std::move(executor), client_options(endpoint_)) {}

net::RequestHead Api::head(std::string method, const std::string& path) const {
  net::RequestHead head{.method = std::move(method), .target = prefix_ + path, .headers = {}};
  if (!api_key_.empty()) head.headers.set("X-API-Key", api_key_);
  head.headers.set("User-Agent", "wrenn-cli");
  return head;
}

Task<json::value> Api::call(std::string method, std::string path, std::optional<json::value> body,
                            Milliseconds limit) {
  std::string what = method + " " + path;
  co_return co_await async::with_timeout(call_unlimited(std::move(method), std::move(path), std::move(body)),
                                         limit, std::move(what));
}

Task<json::value> Api::call_unlimited(std::string method, std::string path, std::optional<json::value> body) {
  net::RequestHead request = head(std::move(method), path);
  std::string text;
  if (body) {
    text = json::serialize(*body);
    request.headers.set("Content-Type", "application/json");
  }
  Result<std::unique_ptr<net::ClientResponse>> sent =
      co_await http_.send(endpoint_, std::move(request), std::move(text));
  if (!sent) {
    Error error = std::move(sent).error();
    if (error.code() != Code::kUnavailable) co_return fail(std::move(error));
    co_return fail(Code::kUnavailable, "cannot reach " + base_url_ + " (" + error.message() +
                                           "); is the service running? `wrenn up` starts it");
  }
  std::unique_ptr<net::ClientResponse> response = std::move(*sent);
  const int status = response->head().status;
  const std::string answer = CO_TRY(co_await net::read_all(response.get(), kMaxResponseBytes));
  if (!is_success(status)) co_return fail(error_of_response(status, answer));
  if (answer.empty()) co_return json::value(nullptr);
  boost::system::error_code ec;
  json::value parsed = json::parse(answer, ec);
  if (ec) co_return fail(Code::kInternal, base_url_ + " answered with something that is not JSON");
  co_return parsed;
}

Task<std::unique_ptr<net::ClientResponse>> Api::open_response(std::string method, std::string path,
                                                              json::value body) {
  net::RequestHead request = head(std::move(method), path);
  request.headers.set("Content-Type", "application/json");
  auto response = CO_TRY(co_await async::with_timeout(
      http_.send(endpoint_, std::move(request), json::serialize(body)), kTransitionLimit, path));
  if (is_success(response->head().status)) co_return std::move(response);
  CO_TRY(co_await accept(std::move(response)));
  co_return fail(Code::kInternal, "unexpected response");
}

Task<std::unique_ptr<net::ClientRequest>> Api::upload(std::string path, std::string content_type,
                                                      std::optional<std::uint64_t> length) {
  net::RequestHead request = head("POST", path);
  request.headers.set("Content-Type", std::move(content_type));
  co_return co_await http_.open(endpoint_, std::move(request), length);
}

Task<> Api::accept(std::unique_ptr<net::ClientResponse> response) {
  const int status = response->head().status;
  if (is_success(status)) co_return Result<>{};
  const auto body = co_await net::read_all(response.get(), kMaxErrorBytes);
  co_return fail(error_of_response(status, body ? *body : std::string()));
}

Task<std::unique_ptr<net::WebSocket>> Api::socket(std::string sandbox_id, std::string path) {
  const std::string base = "/v1/sandboxes/" + sandbox_id;
  auto opened = co_await async::with_timeout(http_.websocket(endpoint_, head("GET", base + path)), kCallLimit,
                                             std::string("opening the stream"));
  if (opened) co_return std::move(*opened);
  // The refusal carries no body; the sandbox itself says why.
  const json::value sandbox = CO_TRY(co_await call("GET", base, std::nullopt, kCallLimit));
  const std::string status = sandbox.is_object() ? text_at(sandbox.get_object(), "status") : std::string();
  if (status == "paused") {
    co_return fail(Code::kFailedPrecondition,
                   "sandbox " + sandbox_id + " is paused; `wrenn resume " + sandbox_id + "` first");
  }
  if (status != "running") {
    co_return fail(Code::kFailedPrecondition, "sandbox " + sandbox_id + " is " + status);
  }
  co_return fail(std::move(opened).error());
}

Task<std::string> Api::resolve(std::string id_or_prefix) {
  if (is_full_id(id_or_prefix)) co_return id_or_prefix;
  const json::value list = CO_TRY(co_await call("GET", "/v1/sandboxes", std::nullopt, kCallLimit));
  if (!list.is_array()) co_return fail(Code::kInternal, "the list of sandboxes is not a list");
  co_return match_id(list.get_array(), id_or_prefix);
}

}  // namespace wrenn::cli
