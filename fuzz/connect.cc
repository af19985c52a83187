// Connect: envelopes, JSON and protobuf messages, errors and ends of streams.
#include "connect/elements.h"
#include "connect/wire.h"
#include "filesystem/filesystem.pb.h"
#include "input.h"
#include "process/process.pb.h"

namespace {

using namespace wrenn;

constexpr std::size_t kLimit = 64 * 1024;

Task<> read_frames(std::string bytes, std::size_t step, bool gzip) {
  fuzz::Pieces pieces(std::move(bytes), step);
  connect::FrameReader reader(&pieces, gzip, kLimit);
  while (auto frame = CO_TRY(co_await reader.next())) {
    fuzz::require(frame->payload.size() <= kLimit, "the limit of a message");
  }
  co_return Result<>{};
}

template <class Message>
void round_trip(std::string_view bytes, connect::Codec codec) {
  Message message;
  if (!connect::parse(bytes, codec, &message)) return;
  const auto again = connect::serialize(message, codec);
  if (!again) return;  // JSON cannot hold every protobuf
  Message back;
  fuzz::require(connect::parse(*again, codec, &back).has_value(), "what we write can be read");
}

// An element by itself is what it is in the whole, wherever the whole can be parsed; and the limits hold.
void read_elements(const std::string& bytes) {
  constexpr connect::ElementLimits kLimits{.count = 1'000, .bytes = kLimit};
  connect::ElementReader reader(bytes, filesystem::ListDirResponse::kEntriesFieldNumber, kLimits);
  filesystem::ListDirResponse listed;
  Result<bool> more = reader.next(listed.add_entries());
  while (more && *more) more = reader.next(listed.add_entries());
  listed.mutable_entries()->RemoveLast();
  fuzz::require(listed.entries_size() <= static_cast<int>(kLimits.count), "the limit of entries");
  filesystem::ListDirResponse whole;
  if (!more || !whole.ParseFromString(bytes)) return;
  fuzz::require(whole.entries_size() == listed.entries_size(), "as many as in the whole");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const fuzz::Input input(data, size);
  (void)fuzz::loop()->run_plain(read_frames(input.text, 1 + input.choice % 40, (input.choice & 64) != 0));
  const auto codec = (input.choice & 1) == 0 ? connect::Codec::kJson : connect::Codec::kProto;
  round_trip<process::StartRequest>(input.text, codec);
  round_trip<filesystem::ListDirResponse>(input.text, codec);
  read_elements(std::string(input.text));
  const auto error = connect::error_from_json(input.text, Code::kUnknown);
  if (error) (void)connect::error_json(*error);
  const auto end = connect::end_stream_from_json(input.text);
  if (end) (void)connect::end_stream_json(end->error, end->trailers);
  net::Headers headers;
  headers.set("connect-timeout-ms", input.text);
  (void)connect::parse_timeout(headers);
  return 0;
}
