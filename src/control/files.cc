#include <fmt/format.h>

#include "control/api_error.h"
#include "control/http_api.h"
#include "control/limits.h"
#include "net/multipart.h"

namespace wrenn::control {
namespace {

namespace rpc = hostagent::v1;

std::unexpected<Error> too_large() {
  return fail(
      Error(Code::kResourceExhausted,
            fmt::format("the file is larger than {} bytes; use files/stream/write", kMaxBufferedFileBytes))
          .with_reason("too_large"));
}

}  // namespace

// A multipart body on its way to the agent: the path first, then the file, piece by piece.
class HttpApi::FileUpload {
 public:
  FileUpload(HttpApi* api, CallPtr call, std::string boundary, std::optional<std::uint64_t> limit)
      : api_(api), call_(std::move(call)), parser_(boundary), limit_(limit) {}

  Task<> run() {
    std::string buffer(kChunkBytes, '\0');
    while (true) {
      const std::size_t got = CO_TRY(co_await async::with_timeout(
          call_->exchange->read(buffer), kBodyReadDeadline, "waiting for more of the body"));
      if (got == 0) break;
      for (net::MultipartParser::Event& event :
           CO_TRY(parser_.feed(std::string_view(buffer).substr(0, got)))) {
        CO_TRY(co_await take(std::move(event)));
      }
    }
    call_->body_read = true;
    if (!parser_.done()) co_return bad_request("", "the multipart body is cut short");
    if (!written_) co_return bad_request("file", "file is required");
    co_return Result<>{};
  }

 private:
  Task<> take(net::MultipartParser::Event event) {
    switch (event.kind) {
      case net::MultipartParser::Event::Kind::kPartBegin:
        part_ = std::move(event.text);
        co_return co_await begin_part();
      case net::MultipartParser::Event::Kind::kData:
        co_return co_await take_data(std::move(event.text));
      case net::MultipartParser::Event::Kind::kPartEnd:
        co_return co_await end_part();
      case net::MultipartParser::Event::Kind::kEnd:
        break;
    }
    co_return Result<>{};
  }

  Task<> begin_part() {
    if (part_ == "path" && have_path_) co_return bad_request("path", "one path a request");
    if (part_ != "file") co_return Result<>{};
    if (!have_path_) co_return bad_request("path", "the part path must come before the part file");
    if (written_) co_return bad_request("file", "one file a request");
    stream_ = CO_TRY(co_await api_->agent_->write_file_stream());
    rpc::WriteFileStreamRequest first;
    first.mutable_meta()->set_sandbox_id(call_->sandbox_id);
    first.mutable_meta()->set_path(path_);
    co_return co_await send(std::move(first));
  }

  Task<> take_data(std::string bytes) {
    if (part_ == "path") {
      path_ += bytes;
      if (path_.size() > model::kMaxPathBytes) co_return model::check_path("path", path_);
    } else if (part_ == "file") {
      size_ += bytes.size();
      if (limit_ && size_ > *limit_) co_return too_large();
      rpc::WriteFileStreamRequest chunk;
      chunk.set_chunk(std::move(bytes));
      co_return co_await send(std::move(chunk));
    }
    co_return Result<>{};
  }

  Task<> end_part() {
    if (part_ == "path") {
      CO_TRY(model::check_path("path", path_));
      have_path_ = true;
    } else if (part_ == "file") {
      written_ = true;
      CO_TRY(co_await guarded(stream_->finish_sending()));
      CO_TRY(co_await receive_answer());
      stream_.reset();
    }
    part_.clear();
    co_return Result<>{};
  }

  Task<> receive_answer() {
    rpc::WriteFileStreamResponse response;
    auto got =
        co_await async::with_timeout(stream_->receive(&response), kAgentDataDeadline, "the host agent");
    if (!got) co_return fail(from_agent(std::move(got).error()));
    co_return Result<>{};
  }

  Task<> send(rpc::WriteFileStreamRequest message) { co_return co_await guarded(stream_->send(&message)); }

  // An agent that refuses stops reading: its answer says why.
  Task<> guarded(Task<> sending) {
    auto sent = co_await async::with_timeout(std::move(sending), kAgentDataDeadline, "the host agent");
    if (sent) co_return sent;
    if (sent.error().code() != Code::kCanceled) CO_TRY(co_await receive_answer());
    co_return fail(from_agent(std::move(sent).error()));
  }

  HttpApi* api_;
  CallPtr call_;
  net::MultipartParser parser_;
  std::optional<std::uint64_t> limit_;
  std::string part_;
  std::string path_;
  bool have_path_ = false;
  bool written_ = false;
  std::uint64_t size_ = 0;
  std::unique_ptr<connect::ClientCall> stream_;
};

Task<> HttpApi::write_file(CallPtr call) { return upload(std::move(call), kMaxBufferedFileBytes); }
Task<> HttpApi::write_file_stream(CallPtr call) { return upload(std::move(call), std::nullopt); }

Task<> HttpApi::upload(CallPtr call, std::optional<std::uint64_t> limit) {
  const net::Headers& headers = call->exchange->request().headers;
  std::string boundary = CO_TRY(net::multipart_boundary(headers.get("Content-Type")));
  CO_TRY(co_await service_->require_running(call->principal.team_id, call->sandbox_id));
  const auto announced = call->exchange->body_length();
  // What surrounds the file in the body is small, so such a body cannot hold an allowed one.
  if (limit && announced && *announced > *limit + kMaxJsonBytes) co_return too_large();
  service_->note_activity(call->sandbox_id);
  FileUpload transfer(this, call, std::move(boundary), limit);
  CO_TRY(co_await transfer.run());
  service_->note_activity(call->sandbox_id);
  co_return co_await reply_empty(call);
}

Task<> HttpApi::read_file(CallPtr call) {
  const JsonInput input = CO_TRY(co_await read_json(call));
  rpc::ReadFileStreamRequest request;
  request.set_sandbox_id(call->sandbox_id);
  request.set_path(CO_TRY(input.text("path", model::kMaxPathBytes)));
  CO_TRY(model::check_path("path", request.path()));
  CO_TRY(co_await service_->require_running(call->principal.team_id, call->sandbox_id));
  service_->note_activity(call->sandbox_id);
  auto stream = CO_TRY(co_await agent_->read_file_stream(std::move(request)));
  rpc::ReadFileStreamResponse piece;
  while (true) {
    auto more = co_await async::with_timeout(stream->receive(&piece), kAgentDataDeadline, "the host agent");
    if (!more) co_return fail(from_agent(std::move(more).error()));
    // The head goes out only now: until here a missing file can still be a 404.
    if (!call->exchange->started()) {
      net::Headers headers = headers_for(*call);
      headers.set("Content-Type", "application/octet-stream");
      CO_TRY(co_await call->exchange->start(200, std::move(headers)));
    }
    if (!*more) break;
    if (piece.chunk().empty()) continue;
    CO_TRY(co_await async::with_timeout(call->exchange->write(std::move(*piece.mutable_chunk())),
                                        kBodyWriteDeadline, "sending to the client"));
  }
  service_->note_activity(call->sandbox_id);
  co_return co_await call->exchange->finish();
}

}  // namespace wrenn::control
