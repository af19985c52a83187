#pragma once

#include <boost/json/value.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "async/async.h"
#include "cli/config.h"
#include "net/http.h"
#include "net/websocket.h"

// The REST API as the command line uses it.
namespace wrenn::cli {

namespace json = boost::json;

// The error of a response: class from the status, message and reason from {"error":{"code","message"}}.
Error error_of_response(int status, std::string_view body);

// The id that `wanted` names among a list's rows: the id itself, or the only one that starts with it ("sb-"
// may be left out). Live sandboxes win over stopped ones. kNotFound or kInvalidArgument (ambiguous).
Result<std::string> match_id(const json::array& sandboxes, std::string_view wanted);

// True for a whole id, which needs no look-up.
bool is_full_id(std::string_view text);

class Api {
 public:
  // kInvalidArgument for a bad base URL.
  static Result<std::unique_ptr<Api>> make(asio::any_io_executor executor, const Settings& settings);

  // One call with a JSON body or none; answers the JSON response (null for 204).
  Task<json::value> call(std::string method, std::string path, std::optional<json::value> body,
                         Milliseconds limit);
  // A response whose body is streamed; answers only for a success status.
  Task<std::unique_ptr<net::ClientResponse>> open_response(std::string method, std::string path,
                                                           json::value body);
  // A request whose body is streamed; `length` unset: chunked. Finish it with accept().
  Task<std::unique_ptr<net::ClientRequest>> upload(std::string path, std::string content_type,
                                                   std::optional<std::uint64_t> length);
  // Ok for a success status, else the response's error.
  Task<> accept(std::unique_ptr<net::ClientResponse> response);
  // A socket of a sandbox; when the upgrade is refused the error says what state the sandbox is in.
  Task<std::unique_ptr<net::WebSocket>> socket(std::string sandbox_id, std::string path);
  Task<std::string> resolve(std::string id_or_prefix);

  const std::string& base_url() const { return base_url_; }

 private:
  Api(asio::any_io_executor executor, net::Endpoint endpoint, std::string prefix, const Settings& settings);
  net::RequestHead head(std::string method, const std::string& path) const;
  Task<json::value> call_unlimited(std::string method, std::string path, std::optional<json::value> body);

  std::string base_url_;
  std::string api_key_;
  net::Endpoint endpoint_;
  std::string prefix_;
  net::HttpClient http_;
};

}  // namespace wrenn::cli
