#include "vmm/qemu/qmp.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "sys/file.h"
#include "vmm/limits.h"

namespace wrenn::vmm::qemu {

bool QmpClient::has_news() const {
  boost::system::error_code ignored;
  return news_ || !buffer_.empty() || socket_.available(ignored) > 0;
}

void QmpClient::close() {
  boost::system::error_code ignored;
  socket_.close(ignored);
  buffer_.clear();
}

Task<> QmpClient::connect(std::string path, Milliseconds limit) {
  close();
  auto opened = co_await async::with_timeout(open_session(std::move(path)), limit, "connecting to QEMU");
  if (!opened) {
    close();
    co_return std::unexpected(std::move(opened).error());
  }
  co_return Result<>{};
}

Task<> QmpClient::open_session(std::string path) {
  const sys::ShortPath place = CO_TRY(sys::shorten(path));
  const asio::local::stream_protocol::endpoint endpoint(place.path);
  const auto [ec] = co_await socket_.async_connect(endpoint, asio::as_tuple(asio::use_awaitable));
  if (ec) co_return fail(Code::kUnavailable, "connect to QEMU at " + path + ": " + ec.message());
  const auto greeting = CO_TRY(co_await read_message());
  if (!greeting.contains("QMP")) co_return fail(Code::kInternal, "QEMU sent no greeting");
  CO_TRY(co_await exchange("qmp_capabilities", {}));
  news_ = true;
  co_return Result<>{};
}

Task<boost::json::value> QmpClient::execute(std::string command, boost::json::object arguments,
                                            Milliseconds limit) {
  const std::string what = "QEMU command " + command;
  co_return co_await async::with_timeout(exchange(std::move(command), std::move(arguments)), limit, what);
}

Task<> QmpClient::send(std::string line) {
  const auto [ec, written] =
      co_await asio::async_write(socket_, asio::buffer(line), asio::as_tuple(asio::use_awaitable));
  if (ec) {
    // Half a message would garble every later one.
    close();
    co_return fail(Code::kUnavailable, "write to QEMU: " + ec.message());
  }
  co_return Result<>{};
}

Task<boost::json::value> QmpClient::exchange(std::string command, boost::json::object arguments) {
  if (co_await async::is_cancelled()) co_return fail(async::canceled_error());
  if (!connected()) co_return fail(Code::kUnavailable, "not connected to QEMU");
  const std::uint64_t id = next_id_++;
  boost::json::object message{{"execute", command}, {"id", id}};
  if (!arguments.empty()) message["arguments"] = std::move(arguments);
  CO_TRY(co_await send(boost::json::serialize(message) + "\n"));
  for (;;) {
    const auto reply = CO_TRY(co_await read_message());
    // Events carry no id, late answers an older one.
    const auto* reply_id = reply.if_contains("id");
    if (reply_id == nullptr) news_ = true;
    if (reply_id == nullptr || *reply_id != boost::json::value(id)) continue;
    if (const auto* value = reply.if_contains("return")) co_return *value;
    std::string description = "unknown error";
    if (const auto* error = reply.if_contains("error"); error != nullptr && error->is_object()) {
      const auto* text = error->get_object().if_contains("desc");
      if (text != nullptr && text->is_string()) description = text->get_string().c_str();
    }
    co_return fail(Code::kInternal, "QEMU command " + command + ": " + description);
  }
}

Task<boost::json::object> QmpClient::read_message() {
  const auto [ec, size] =
      co_await asio::async_read_until(socket_, asio::dynamic_buffer(buffer_, kMaxMonitorMessageBytes), '\n',
                                      asio::as_tuple(asio::use_awaitable));
  if (ec == asio::error::operation_aborted) co_return fail(async::canceled_error());
  if (ec) {
    close();
    co_return fail(Code::kUnavailable, "QEMU closed its control connection: " + ec.message());
  }
  boost::system::error_code parse_error;
  auto value = boost::json::parse(std::string_view(buffer_).substr(0, size), parse_error);
  buffer_.erase(0, size);
  if (parse_error || !value.is_object()) co_return fail(Code::kInternal, "QEMU sent a malformed message");
  co_return std::move(value.get_object());
}

}  // namespace wrenn::vmm::qemu
