// The server under test of the Connect conformance suite.
#include <cstdio>
#include <map>
#include <utility>
#include <vector>

#include "async/async.h"
#include "connect/connect.h"
#include "connectrpc/conformance/v1/server_compat.pb.h"
#include "messages.h"

namespace wrenn::conformance {
namespace {

using connect::Context;
using RequestInfo = pb::ConformancePayload::RequestInfo;
constexpr char kService[] = "/connectrpc.conformance.v1.ConformanceService/";

// The parameters of the GET request that a connection carries now, by its peer address.
using GetParameters = std::map<std::string, std::vector<std::pair<std::string, std::string>>>;
GetParameters& get_parameters() {
  static GetParameters all;
  return all;
}

void note_parameters(const net::Exchange& exchange) {
  auto& parameters = get_parameters()[exchange.peer()];
  parameters.clear();
  if (exchange.request().method != "GET") return;
  for (const char* name : {"connect", "encoding", "base64", "compression", "message"}) {
    if (const auto value = exchange.request().query(name)) parameters.emplace_back(name, *value);
  }
}

RequestInfo info_of(const Context& context) {
  RequestInfo info;
  fill_headers(context->request_headers, info.mutable_request_headers());
  if (context->timeout) info.set_timeout_ms(context->timeout->count());
  for (const auto& [name, value] : get_parameters()[context->peer]) {
    auto* parameter = info.mutable_connect_get_info()->add_query_params();
    parameter->set_name(name);
    parameter->add_value(value);
  }
  return info;
}

Error with_info(const pb::Error& error, const RequestInfo& info) {
  pb::Error full = error;
  full.add_details()->PackFrom(info);
  return to_error(full);
}

template <class Definition>
void set_metadata(const Definition& definition, const Context& context) {
  add_headers(definition.response_headers(), &context->response_headers);
  add_headers(definition.response_trailers(), &context->response_trailers);
}

template <class Response>
Task<Response> answer_once(Context context, pb::UnaryResponseDefinition definition, RequestInfo info) {
  set_metadata(definition, context);
  if (definition.response_delay_ms() > 0) {
    CO_TRY(co_await async::sleep_for(Milliseconds(definition.response_delay_ms())));
  }
  if (definition.has_error()) co_return fail(with_info(definition.error(), info));
  Response response;
  response.mutable_payload()->set_data(definition.response_data());
  *response.mutable_payload()->mutable_request_info() = std::move(info);
  co_return response;
}

template <class Request, class Response>
Task<Response> unary(Context context, Request request) {
  RequestInfo info = info_of(context);
  info.add_requests()->PackFrom(request);
  co_return co_await answer_once<Response>(std::move(context), request.response_definition(),
                                           std::move(info));
}

Task<pb::ClientStreamResponse> client_stream(Context context, connect::Reader<pb::ClientStreamRequest> in) {
  RequestInfo info = info_of(context);
  pb::UnaryResponseDefinition definition;
  while (auto request = CO_TRY(co_await in.receive())) {
    if (info.requests().empty()) definition = request->response_definition();
    info.add_requests()->PackFrom(*request);
  }
  co_return co_await answer_once<pb::ClientStreamResponse>(std::move(context), std::move(definition),
                                                           std::move(info));
}

// Answers the definition's messages; the first, or the error when there is none, tells about the request.
template <class Response>
Task<> answer_all(pb::StreamResponseDefinition definition, RequestInfo info, connect::Writer<Response> out) {
  bool first = true;
  for (const std::string& data : definition.response_data()) {
    if (definition.response_delay_ms() > 0) {
      CO_TRY(co_await async::sleep_for(Milliseconds(definition.response_delay_ms())));
    }
    Response response;
    response.mutable_payload()->set_data(data);
    if (std::exchange(first, false)) *response.mutable_payload()->mutable_request_info() = info;
    CO_TRY(co_await out.send(std::move(response)));
  }
  if (!definition.has_error()) co_return Result<>{};
  co_return fail(first ? with_info(definition.error(), info) : to_error(definition.error()));
}

Task<> server_stream(Context context, pb::ServerStreamRequest request,
                     connect::Writer<pb::ServerStreamResponse> out) {
  RequestInfo info = info_of(context);
  info.add_requests()->PackFrom(request);
  set_metadata(request.response_definition(), context);
  co_return co_await answer_all(request.response_definition(), std::move(info), out);
}

// HTTP/1.1 carries half-duplex streams only: all requests come before the first response.
Task<> bidi_stream(Context context, connect::Reader<pb::BidiStreamRequest> in,
                   connect::Writer<pb::BidiStreamResponse> out) {
  RequestInfo info = info_of(context);
  pb::StreamResponseDefinition definition;
  while (auto request = CO_TRY(co_await in.receive())) {
    if (info.requests().empty()) definition = request->response_definition();
    info.add_requests()->PackFrom(*request);
  }
  set_metadata(definition, context);
  co_return co_await answer_all(std::move(definition), std::move(info), out);
}

void add_procedures(connect::Router* router) {
  const std::string service = kService;
  router->unary<pb::UnaryRequest, pb::UnaryResponse>(service + "Unary",
                                                     unary<pb::UnaryRequest, pb::UnaryResponse>);
  router->unary<pb::IdempotentUnaryRequest, pb::IdempotentUnaryResponse>(
      service + "IdempotentUnary", unary<pb::IdempotentUnaryRequest, pb::IdempotentUnaryResponse>, true);
  router->client_stream<pb::ClientStreamRequest, pb::ClientStreamResponse>(service + "ClientStream",
                                                                           client_stream);
  router->server_stream<pb::ServerStreamRequest, pb::ServerStreamResponse>(service + "ServerStream",
                                                                           server_stream);
  router->bidi<pb::BidiStreamRequest, pb::BidiStreamResponse>(service + "BidiStream", bidi_stream);
}

Task<> answer(connect::Router* router, std::shared_ptr<net::Exchange> exchange) {
  note_parameters(*exchange);
  if (router->knows(exchange->request().path())) co_return co_await router->handle(std::move(exchange));
  co_return co_await exchange->respond(404, {}, "");
}

Task<> serve(async::Loop* loop) {
  pb::ServerCompatRequest wanted;
  if (!CO_TRY(read_message(&wanted))) co_return Result<>{};
  connect::ServerOptions options;
  options.compress = true;
  if (wanted.message_receive_limit() > 0) options.max_message_bytes = wanted.message_receive_limit();
  connect::Router router(options);
  add_procedures(&router);
  net::HttpServer server(loop->executor(), [&router](std::shared_ptr<net::Exchange> exchange) {
    return answer(&router, std::move(exchange));
  });
  net::Endpoint endpoint;
  endpoint.host = "127.0.0.1";
  const net::Endpoint bound = CO_TRY(server.listen(endpoint));
  pb::ServerCompatResponse ready;
  ready.set_host(bound.host);
  ready.set_port(bound.port);
  CO_TRY(write_message(ready));
  co_return co_await server.serve();
}

}  // namespace
}  // namespace wrenn::conformance

int main() {
  wrenn::async::Loop loop(2);
  const auto served = loop.run(wrenn::conformance::serve(&loop));
  if (served || served.error().code() == wrenn::Code::kCanceled) return 0;
  std::fprintf(stderr, "%s\n", served.error().to_string().c_str());
  return 1;
}
