// The calls that work inside a guest: commands and files.
#include <fmt/format.h>

#include "agent/limits.h"
#include "agent/process_events.h"
#include "agent/service.h"
#include "sandbox/limits.h"

namespace wrenn::agent {
namespace {

using sandbox::ExecSpec;
using sandbox::RunningGuest;

std::string procedure(std::string_view method) {
  return fmt::format("/hostagent.v1.HostAgentService/{}", method);
}

// Bodies of operations: they run inside Sandbox::operate, which may drop them at any wait.

Task<sandbox::ExecOutput> exec_body(RunningGuest guest, ExecSpec spec) {
  co_return co_await guest.client->exec(std::move(spec), guest.dropping);
}

Task<> exec_stream_body(RunningGuest guest, ExecSpec spec, connect::Writer<pb::ExecStreamResponse> out) {
  const auto process = CO_TRY(co_await guest.client->start(std::move(spec)));
  Result<> relayed = co_await relay_events(process.get(), out);
  // The client went away or took too long: its command does not go on without it. A pause, though, keeps it.
  if (!relayed && !*guest.dropping) co_await async::shielded(process->kill());
  co_return relayed;
}

Task<> write_file_body(RunningGuest guest, pb::WriteFileRequest request) {
  const auto upload = CO_TRY(co_await guest.client->upload(request.path()));
  const std::string& content = request.content();
  for (std::size_t at = 0; at < content.size(); at += sandbox::kFileChunkBytes) {
    CO_TRY(co_await upload->write(content.substr(at, sandbox::kFileChunkBytes)));
  }
  co_return co_await upload->finish();
}

Task<> write_stream_body(RunningGuest guest, std::string path,
                         connect::Reader<pb::WriteFileStreamRequest> in) {
  const auto upload = CO_TRY(co_await guest.client->upload(std::move(path)));
  while (auto message = CO_TRY(co_await in.receive())) {
    if (!message->has_chunk()) co_return fail(Code::kInvalidArgument, "only the first message carries meta");
    if (message->chunk().size() > sandbox::kMaxUploadChunkBytes) {
      co_return fail(Error(Code::kInvalidArgument, "a chunk is longer than 1 MiB").with_field("chunk"));
    }
    if (!message->chunk().empty()) CO_TRY(co_await upload->write(std::move(*message->mutable_chunk())));
  }
  co_return co_await upload->finish();
}

Task<std::string> read_file_body(RunningGuest guest, std::string path) {
  const auto response = CO_TRY(co_await guest.client->download(std::move(path)));
  co_return co_await net::read_all(response.get(), sandbox::kMaxFileBytes);
}

Task<> read_stream_body(RunningGuest guest, std::string path,
                        connect::Writer<pb::ReadFileStreamResponse> out) {
  const auto response = CO_TRY(co_await guest.client->download(std::move(path)));
  std::string buffer(sandbox::kFileChunkBytes, '\0');
  while (true) {
    const std::size_t n = CO_TRY(co_await response->read(std::span<char>(buffer.data(), buffer.size())));
    if (n == 0) co_return Result<>{};
    pb::ReadFileStreamResponse message;
    message.set_chunk(buffer.substr(0, n));
    CO_TRY(co_await out.send(std::move(message)));
  }
}

template <class Request>
Result<ExecSpec> limited_spec(const Request& request, std::int64_t default_timeout) {
  ExecSpec spec = TRY(command_spec(request));
  TRY(model::check_range("timeout_sec", request.timeout_sec(), 0, model::kMaxExecTimeoutSec));
  const std::int64_t timeout = request.timeout_sec() == 0 ? default_timeout : request.timeout_sec();
  if (timeout > 0) spec.limit = Milliseconds(std::chrono::seconds(timeout));
  return spec;
}

}  // namespace

void Service::add_exec() {
  add(&router_, "Exec", &Service::exec);
  router_.server_stream<pb::ExecStreamRequest, pb::ExecStreamResponse>(
      procedure("ExecStream"),
      [this](connect::Context, pb::ExecStreamRequest request, connect::Writer<pb::ExecStreamResponse> out) {
        return exec_stream(std::move(request), out);
      });
}

void Service::add_files() {
  add(&bulk_, "WriteFile", &Service::write_file);
  add(&bulk_, "ReadFile", &Service::read_file);
  router_.client_stream<pb::WriteFileStreamRequest, pb::WriteFileStreamResponse>(
      procedure("WriteFileStream"),
      [this](connect::Context, connect::Reader<pb::WriteFileStreamRequest> in) { return write_stream(in); });
  router_.server_stream<pb::ReadFileStreamRequest, pb::ReadFileStreamResponse>(
      procedure("ReadFileStream"), [this](connect::Context, pb::ReadFileStreamRequest request,
                                          connect::Writer<pb::ReadFileStreamResponse> out) {
        return read_stream(std::move(request), out);
      });
}

Task<pb::ExecResponse> Service::exec(pb::ExecRequest request) {
  ExecSpec spec = CO_TRY(limited_spec(request, model::kDefaultExecTimeoutSec));
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  auto output = CO_TRY(co_await sandbox->operate(exec_body, std::move(spec)));
  pb::ExecResponse response;
  response.set_stdout(std::move(output.stdout_bytes));
  response.set_stderr(std::move(output.stderr_bytes));
  response.set_exit_code(output.exit_code);
  co_return response;
}

Task<> Service::exec_stream(pb::ExecStreamRequest request, connect::Writer<pb::ExecStreamResponse> out) {
  ExecSpec spec = CO_TRY(limited_spec(request, 0));
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  co_return co_await sandbox->operate(exec_stream_body, std::move(spec), out);
}

Task<pb::WriteFileResponse> Service::write_file(pb::WriteFileRequest request) {
  CO_TRY(model::check_path("path", request.path()));
  if (request.content().size() > sandbox::kMaxFileBytes) {
    co_return fail(Error(Code::kResourceExhausted, "content is longer than 100 MiB; use the stream")
                       .with_reason("too_large")
                       .with_field("content"));
  }
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  CO_TRY(co_await sandbox->operate(write_file_body, std::move(request)));
  co_return pb::WriteFileResponse();
}

Task<pb::ReadFileResponse> Service::read_file(pb::ReadFileRequest request) {
  CO_TRY(model::check_path("path", request.path()));
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  pb::ReadFileResponse response;
  response.set_content(CO_TRY(co_await sandbox->operate(read_file_body, request.path())));
  co_return response;
}

Task<pb::WriteFileStreamResponse> Service::write_stream(connect::Reader<pb::WriteFileStreamRequest> in) {
  const auto first = CO_TRY(co_await in.receive());
  if (!first || !first->has_meta())
    co_return fail(Code::kInvalidArgument, "the first message must carry meta");
  CO_TRY(model::check_path("path", first->meta().path()));
  const auto sandbox = CO_TRY(manager_->find(first->meta().sandbox_id()));
  CO_TRY(co_await sandbox->operate(write_stream_body, first->meta().path(), in));
  co_return pb::WriteFileStreamResponse();
}

Task<> Service::read_stream(pb::ReadFileStreamRequest request,
                            connect::Writer<pb::ReadFileStreamResponse> out) {
  CO_TRY(model::check_path("path", request.path()));
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  co_return co_await sandbox->operate(read_stream_body, request.path(), out);
}

}  // namespace wrenn::agent
