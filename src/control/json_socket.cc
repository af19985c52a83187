#include "control/json_socket.h"

#include <boost/json/serialize.hpp>
#include <string>

#include "control/limits.h"

namespace wrenn::control {
namespace {

constexpr std::uint16_t kNormalClose = 1000;
constexpr std::uint16_t kPolicyClose = 1008;

}  // namespace

Task<std::optional<JsonInput>> JsonSocket::receive() {
  auto message = co_await socket_->receive();
  if (!message && message.error().code() == Code::kCanceled) co_return fail(std::move(message).error());
  if (!message || !*message) co_return std::optional<JsonInput>{};
  co_return std::optional<JsonInput>(CO_TRY(JsonInput::parse((*message)->data)));
}

Task<JsonInput> JsonSocket::receive_within(Milliseconds limit, std::string what) {
  // A read that is cancelled ends the socket, and the client could not be told any more. So it goes on while
  // the client is told, and ends with the close.
  std::optional<JsonInput> frame;
  std::optional<Error> late;
  const auto read = [](JsonSocket* self, std::optional<JsonInput>* out) -> Task<> {
    *out = CO_TRY(co_await self->receive());
    co_return Result<>{};
  };
  const auto expire = [](JsonSocket* self, Milliseconds after, std::string of,
                         std::optional<Error>* out) -> Task<> {
    CO_TRY(co_await async::sleep_for(after));
    *out = Error(Code::kDeadlineExceeded, of + " took longer than " + std::to_string(after.count()) + " ms");
    static_cast<void>(co_await self->refuse(PublicError(**out)));
    co_return Result<>{};
  };
  const Result<> done =
      co_await async::run_until(read(this, &frame), expire(this, limit, std::move(what), &late));
  if (late) co_return fail(*std::move(late));
  CO_TRY(done);
  if (!frame) co_return fail(async::canceled_error());
  co_return *std::move(frame);
}

Task<> JsonSocket::send(boost::json::object frame) {
  return async::with_timeout(socket_->send({boost::json::serialize(frame), true}), kBodyWriteDeadline,
                             "sending to the client");
}

Task<> JsonSocket::close() { return socket_->close(kNormalClose, ""); }

Task<> JsonSocket::send_error(PublicError error, bool fatal) {
  return send({{"type", "error"}, {"data", error.message()}, {"code", error.code()}, {"fatal", fatal}});
}

Task<> JsonSocket::refuse(PublicError error) {
  CO_TRY(co_await send_error(error, true));
  co_return co_await socket_->close(kPolicyClose, error.code());
}

}  // namespace wrenn::control
