#include "vmm/firecracker/api.h"

#include <fmt/format.h>

#include <boost/json.hpp>

#include "vmm/limits.h"

namespace wrenn::vmm::firecracker {
namespace {

constexpr Milliseconds kReadyPoll{1};

// {"fault_message": "..."}
std::string fault_of(const std::string& body) {
  boost::system::error_code ec;
  const auto value = boost::json::parse(body, ec);
  if (ec || !value.is_object()) return body;
  const auto* text = value.get_object().if_contains("fault_message");
  return text != nullptr && text->is_string() ? std::string(text->get_string()) : body;
}

// The C library's words for ENOSPC and EDQUOT, which every form of its errors has.
bool says_disk_is_full(const std::string& fault) {
  return fault.find("No space left on device") != std::string::npos ||
         fault.find("uota exceeded") != std::string::npos;
}

}  // namespace

Error refusal(const std::string& request, int status, const std::string& body) {
  const std::string fault = fault_of(body);
  std::string message = fmt::format("Firecracker refused {} ({}): {}", request, status, fault);
  if (says_disk_is_full(fault)) {
    return Error(Code::kResourceExhausted, std::move(message)).with_reason("disk_full");
  }
  return Error(Code::kInternal, std::move(message));
}

Task<std::string> ApiClient::exchange(std::string method, std::string target, std::string body) {
  if (!place_) place_ = CO_TRY(sys::shorten(socket_path_));
  net::Endpoint endpoint;
  endpoint.unix_path = place_->path;
  net::RequestHead head{.method = method, .target = target, .headers = {}};
  head.headers.set("Accept", "application/json");
  if (!body.empty()) head.headers.set("Content-Type", "application/json");
  auto response = CO_TRY(co_await http_.send(endpoint, std::move(head), std::move(body)));
  std::string answer = CO_TRY(co_await net::read_all(response.get(), kMaxMonitorMessageBytes));
  const int status = response->head().status;
  if (status >= 200 && status < 300) co_return answer;
  co_return std::unexpected(refusal(method + " " + target, status, answer));
}

Task<> ApiClient::request(std::string method, std::string target, boost::json::object body,
                          Milliseconds limit) {
  const std::string what = fmt::format("Firecracker {} {}", method, target);
  const std::string text = body.empty() ? "" : boost::json::serialize(body);
  CO_TRY(co_await async::with_timeout(exchange(std::move(method), std::move(target), text), limit, what));
  co_return Result<>{};
}

Task<boost::json::object> ApiClient::get(std::string target, Milliseconds limit) {
  const std::string what = "Firecracker GET " + target;
  const std::string text =
      CO_TRY(co_await async::with_timeout(exchange("GET", std::move(target), ""), limit, what));
  boost::system::error_code ec;
  auto value = boost::json::parse(text, ec);
  if (ec || !value.is_object()) co_return fail(Code::kInternal, what + ": not a JSON object");
  co_return std::move(value.get_object());
}

Task<> ApiClient::wait_ready(Milliseconds limit) {
  const auto poll = [](ApiClient* self) -> Task<> {
    while (true) {
      const auto answered = co_await self->exchange("GET", "/version", "");
      if (answered) co_return Result<>{};
      if (answered.error().code() != Code::kUnavailable) co_return fail(answered.error());
      CO_TRY(co_await async::sleep_for(kReadyPoll));
    }
  };
  co_return co_await async::with_timeout(poll(this), limit, "waiting for Firecracker's control socket");
}

}  // namespace wrenn::vmm::firecracker
