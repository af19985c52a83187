// gzip bodies, streamed and whole, and back.
#include "net/gzip.h"

#include "input.h"

namespace {

using namespace wrenn;

constexpr std::size_t kLimit = std::size_t{1} << 20U;

Task<> unpack(std::string packed, std::size_t step, std::string* out) {
  fuzz::Pieces pieces(std::move(packed), step);
  net::GunzipReader reader(&pieces);
  std::string buffer(1 + step * 7 % 5000, '\0');
  while (const std::size_t got = CO_TRY(co_await reader.read(buffer))) {
    fuzz::require(got <= buffer.size(), "bounds of read");
    *out += buffer.substr(0, got);
    if (out->size() > kLimit) co_return fail(Code::kResourceExhausted, "enough");
  }
  co_return Result<>{};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const fuzz::Input input(data, size);
  const std::size_t step = 1 + input.choice;
  std::string streamed;
  const Result<> done = fuzz::loop()->run_plain(unpack(input.text, step, &streamed));
  const auto whole = net::gzip_decompress(input.text, kLimit);
  if (done && whole) fuzz::require(streamed.starts_with(*whole), "streamed is whole");
  net::GzipStream packer;
  std::string packed;
  for (std::size_t at = 0; at < input.text.size(); at += step) {
    packed += packer.push(std::string_view(input.text).substr(at, step)).value();
  }
  packed += packer.finish().value();
  std::string back;
  fuzz::require(fuzz::loop()->run_plain(unpack(packed, step, &back)).has_value() && back == input.text,
                "what is packed comes back");
  return 0;
}
