// The client under test of the Connect conformance suite: makes the calls it reads, one after the other.
#include "async/async.h"
#include "connect/connect.h"
#include "connectrpc/conformance/v1/client_compat.pb.h"
#include "messages.h"

namespace wrenn::conformance {
namespace {

using pb::ClientCompatRequest;
using pb::ClientResponseResult;
constexpr Milliseconds kCallLimit{20'000};

std::string procedure(const ClientCompatRequest& test) { return "/" + test.service() + "/" + test.method(); }

connect::CallOptions options_of(const ClientCompatRequest& test) {
  connect::CallOptions options;
  add_headers(test.request_headers(), &options.headers);
  options.get = test.use_get_http_method();
  if (test.has_timeout_ms()) options.timeout = Milliseconds(test.timeout_ms());
  return options;
}

Task<> delay(std::uint32_t ms) {
  if (ms > 0) CO_TRY(co_await async::sleep_for(Milliseconds(ms)));
  co_return Result<>{};
}

template <class Request>
Result<Request> message_of(const ClientCompatRequest& test, int index) {
  Request request;
  if (index >= test.request_messages_size() || !test.request_messages(index).UnpackTo(&request)) {
    return fail(Code::kInvalidArgument, "the runner's request message has another type");
  }
  return request;
}

connect::AnswerLimit limit_of(const ClientCompatRequest& test) {
  constexpr std::size_t kDefault = 4 * 1024 * 1024;
  return {test.message_receive_limit() > 0 ? test.message_receive_limit() : kDefault};
}

template <class Request, class Response>
Task<> unary(connect::Client* client, ClientCompatRequest test, ClientResponseResult* result) {
  auto request = CO_TRY(message_of<Request>(test, 0));
  CO_TRY(co_await delay(test.request_delay_ms()));
  connect::CallOptions options = options_of(test);
  options.metadata = std::make_shared<connect::ResponseMetadata>();
  const auto metadata = options.metadata;
  const bool cancels = test.has_cancel();
  const Milliseconds limit = cancels ? Milliseconds(test.cancel().after_close_send_ms()) : kCallLimit;
  auto response = co_await async::with_timeout(
      client->unary<Response>(procedure(test), std::move(request), limit_of(test), std::move(options)), limit,
      "the call");
  fill_headers(metadata->headers, result->mutable_response_headers());
  fill_headers(metadata->trailers, result->mutable_response_trailers());
  if (!response && cancels) co_return fail(async::canceled_error());
  if (!response) co_return fail(std::move(response).error());
  if constexpr (requires { response->payload(); }) *result->add_payloads() = response->payload();
  co_return Result<>{};
}

template <class Request>
Task<> send_all(connect::ClientCall* call, const ClientCompatRequest* test, ClientResponseResult* result) {
  for (int i = 0; i < test->request_messages_size(); ++i) {
    const auto request = CO_TRY(message_of<Request>(*test, i));
    CO_TRY(co_await delay(test->request_delay_ms()));
    if (!co_await call->send(&request)) {
      result->set_num_unsent_requests(test->request_messages_size() - i);
      break;  // the server's answer says why
    }
  }
  co_return Result<>{};
}

template <class Response>
Task<> receive_all(connect::ClientCall* call, const ClientCompatRequest* test, ClientResponseResult* result) {
  const auto& cancel = test->cancel();
  const bool counts = test->has_cancel() && cancel.has_after_num_responses();
  while (true) {
    if (counts && result->payloads_size() >= static_cast<int>(cancel.after_num_responses())) {
      co_return fail(async::canceled_error());
    }
    Response response;
    if (!CO_TRY(co_await call->receive(&response))) co_return Result<>{};
    *result->add_payloads() = response.payload();
  }
}

template <class Response>
Task<> receive_one(connect::ClientCall* call, ClientResponseResult* result) {
  const auto response = CO_TRY(co_await connect::receive_only<Response>(call));
  *result->add_payloads() = response.payload();
  co_return Result<>{};
}

template <class Request, class Response>
Task<> stream(connect::Client* client, ClientCompatRequest test, ClientResponseResult* result) {
  auto call = CO_TRY(co_await client->stream(procedure(test), limit_of(test), options_of(test)));
  CO_TRY(co_await send_all<Request>(call.get(), &test, result));
  const auto& cancel = test.cancel();
  if (test.has_cancel() && cancel.has_before_close_send()) co_return fail(async::canceled_error());
  const Result<> ended = co_await call->finish_sending();
  const bool cancels = test.has_cancel() && cancel.has_after_close_send_ms();
  const Milliseconds limit = cancels ? Milliseconds(cancel.after_close_send_ms()) : kCallLimit;
  const bool one = test.stream_type() == pb::STREAM_TYPE_CLIENT_STREAM;
  Task<> receiving =
      one ? receive_one<Response>(call.get(), result) : receive_all<Response>(call.get(), &test, result);
  const Result<> received = co_await async::with_timeout(std::move(receiving), limit, "the call");
  fill_headers(call->response_headers(), result->mutable_response_headers());
  fill_headers(call->response_trailers(), result->mutable_response_trailers());
  if (!received && cancels) co_return fail(async::canceled_error());
  if (received && !ended) co_return ended;
  co_return received;
}

Task<> call(connect::Client* client, ClientCompatRequest test, ClientResponseResult* result) {
  const std::string& method = test.method();
  if (method == "Unary")
    co_return co_await unary<pb::UnaryRequest, pb::UnaryResponse>(client, std::move(test), result);
  if (method == "IdempotentUnary")
    co_return co_await unary<pb::IdempotentUnaryRequest, pb::IdempotentUnaryResponse>(client, std::move(test),
                                                                                      result);
  if (method == "Unimplemented")
    co_return co_await unary<pb::UnimplementedRequest, pb::UnimplementedResponse>(client, std::move(test),
                                                                                  result);
  if (method == "ClientStream")
    co_return co_await stream<pb::ClientStreamRequest, pb::ClientStreamResponse>(client, std::move(test),
                                                                                 result);
  if (method == "ServerStream")
    co_return co_await stream<pb::ServerStreamRequest, pb::ServerStreamResponse>(client, std::move(test),
                                                                                 result);
  co_return co_await stream<pb::BidiStreamRequest, pb::BidiStreamResponse>(client, std::move(test), result);
}

Task<pb::ClientCompatResponse> run_test(std::shared_ptr<net::HttpClient> http, ClientCompatRequest test) {
  net::Endpoint endpoint;
  endpoint.host = test.host();
  endpoint.port = static_cast<std::uint16_t>(test.port());
  connect::ClientOptions options;
  options.json = test.codec() == pb::CODEC_JSON;
  options.compress = test.compression() == pb::COMPRESSION_GZIP;
  connect::Client client(std::move(http), endpoint, std::move(options));
  pb::ClientCompatResponse response;
  response.set_test_name(test.test_name());
  const Result<> done = co_await call(&client, std::move(test), response.mutable_response());
  if (!done) *response.mutable_response()->mutable_error() = from_error(done.error());
  co_return response;
}

Task<> run_all(async::Loop* loop) {
  const auto http = std::make_shared<net::HttpClient>(loop->executor());
  while (true) {
    ClientCompatRequest test;
    if (!CO_TRY(co_await async::offload(loop->pool(), [&test] { return read_message(&test); }))) {
      co_return Result<>{};
    }
    const auto response = CO_TRY(co_await run_test(http, std::move(test)));
    CO_TRY(write_message(response));
  }
}

}  // namespace
}  // namespace wrenn::conformance

int main() {
  wrenn::async::Loop loop(2);
  const auto done = loop.run(wrenn::conformance::run_all(&loop));
  if (done) return 0;
  std::fprintf(stderr, "%s\n", done.error().to_string().c_str());
  return 1;
}
