#include "net/gzip.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>

#include "net/limits.h"

namespace wrenn::net {
namespace {

constexpr int kGzipWindow = 15 + 16;
constexpr std::size_t kStep = 64 * 1024;

// Owns a zlib stream; `End` is deflateEnd or inflateEnd.
template <int (*End)(z_stream*)>
struct ZStream : z_stream {
  ZStream() : z_stream{} {}
  ZStream(const ZStream&) = delete;
  ZStream& operator=(const ZStream&) = delete;
  ~ZStream() { End(this); }
};

void set_input(z_stream* stream, std::string_view bytes) {
  stream->next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream->avail_in = static_cast<uInt>(bytes.size());
}

std::unexpected<Error> malformed() { return fail(Code::kInvalidArgument, "gzip: malformed data"); }

}  // namespace

Result<std::string> gzip_compress(std::string_view plain) {
  ZStream<deflateEnd> stream;
  if (deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, kGzipWindow, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
    return fail(Code::kInternal, "gzip: cannot start");
  }
  set_input(&stream, plain);
  std::string out(deflateBound(&stream, plain.size()), '\0');
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  if (deflate(&stream, Z_FINISH) != Z_STREAM_END) return fail(Code::kInternal, "gzip: cannot compress");
  out.resize(stream.total_out);
  return out;
}

Result<std::string> gzip_decompress(std::string_view packed, std::size_t limit) {
  ZStream<inflateEnd> stream;
  if (inflateInit2(&stream, kGzipWindow) != Z_OK) return fail(Code::kInternal, "gzip: cannot start");
  set_input(&stream, packed);
  std::string out;
  int status = Z_OK;
  while (status != Z_STREAM_END) {
    const std::size_t before = out.size();
    if (before > limit) {
      return fail(Error(Code::kResourceExhausted, fmt::format("message is larger than {} bytes", limit))
                      .with_reason("too_large"));
    }
    out.resize(before + kStep);
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + before);
    stream.avail_out = static_cast<uInt>(kStep);
    status = inflate(&stream, Z_NO_FLUSH);
    out.resize(before + kStep - stream.avail_out);
    const bool starved = stream.avail_in == 0 && stream.avail_out != 0;
    if (status != Z_STREAM_END && (status != Z_OK || starved)) {
      return malformed();
    }
  }
  if (out.size() > limit) {
    return fail(Error(Code::kResourceExhausted, fmt::format("message is larger than {} bytes", limit))
                    .with_reason("too_large"));
  }
  return out;
}

// ---- streams

struct GzipStream::State {
  ZStream<deflateEnd> stream;
  bool ready = deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, kGzipWindow, 8, Z_DEFAULT_STRATEGY) == Z_OK;
};

GzipStream::GzipStream() : state_(std::make_unique<State>()) {}
GzipStream::~GzipStream() = default;

Result<std::string> GzipStream::push(std::string_view plain) { return run(plain, Z_NO_FLUSH); }
Result<std::string> GzipStream::finish() { return run({}, Z_FINISH); }

Result<std::string> GzipStream::run(std::string_view plain, int flush) {
  if (!state_->ready) return fail(Code::kInternal, "gzip: cannot start");
  z_stream* stream = &state_->stream;
  set_input(stream, plain);
  std::string out;
  int status = Z_OK;
  do {
    const std::size_t before = out.size();
    out.resize(before + kStep);
    stream->next_out = reinterpret_cast<Bytef*>(out.data() + before);
    stream->avail_out = static_cast<uInt>(kStep);
    status = deflate(stream, flush);
    out.resize(before + kStep - stream->avail_out);
    if (status == Z_STREAM_ERROR) return fail(Code::kInternal, "gzip: cannot compress");
  } while (stream->avail_out == 0);
  return out;
}

struct GunzipReader::State {
  explicit State(BodyReader* from) : packed(from) {}
  BodyReader* packed;
  ZStream<inflateEnd> stream;
  bool ready = inflateInit2(&stream, kGzipWindow) == Z_OK;
  std::string input = std::string(kReadBufferBytes, '\0');
  bool ended = false;  // a member has ended, and no other has begun
};

GunzipReader::GunzipReader(BodyReader* packed) : state_(std::make_unique<State>(packed)) {}
GunzipReader::~GunzipReader() = default;

Task<std::size_t> GunzipReader::read(std::span<char> buffer) {
  State& state = *state_;
  if (!state.ready) co_return fail(Code::kInternal, "gzip: cannot start");
  if (buffer.empty()) co_return std::size_t{0};
  while (true) {
    const std::size_t got = CO_TRY(inflate_some(buffer));
    if (got > 0) co_return got;
    if (state.stream.avail_in > 0) continue;
    const std::size_t more = CO_TRY(co_await state.packed->read(state.input));
    if (more == 0) {
      if (!state.ended) co_return fail(Code::kInvalidArgument, "gzip: the data is cut off");
      co_return std::size_t{0};
    }
    set_input(&state.stream, std::string_view(state.input).substr(0, more));
  }
}

Result<std::size_t> GunzipReader::inflate_some(std::span<char> buffer) {
  State& state = *state_;
  z_stream* stream = &state.stream;
  if (state.ended) {
    if (stream->avail_in == 0) return std::size_t{0};
    if (inflateReset(stream) != Z_OK) return fail(Code::kInternal, "gzip: cannot start");
    state.ended = false;
  }
  stream->next_out = reinterpret_cast<Bytef*>(buffer.data());
  stream->avail_out = static_cast<uInt>(std::min(buffer.size(), kStep));
  const uInt room = stream->avail_out;
  const int status = inflate(stream, Z_NO_FLUSH);
  if (status == Z_STREAM_END) state.ended = true;
  if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) return malformed();
  return room - stream->avail_out;
}

}  // namespace wrenn::net
