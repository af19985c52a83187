#include "connect/gzip.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>

namespace wrenn::connect {
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
      return fail(Code::kInvalidArgument, "gzip: malformed data");
    }
  }
  if (out.size() > limit) {
    return fail(Error(Code::kResourceExhausted, fmt::format("message is larger than {} bytes", limit))
                    .with_reason("too_large"));
  }
  return out;
}

}  // namespace wrenn::connect
