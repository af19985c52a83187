#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "net/http.h"

namespace wrenn::net {

Result<std::string> gzip_compress(std::string_view plain);
// kInvalidArgument when malformed; kResourceExhausted, reason "too_large", once the output passes `limit`
// bytes.
Result<std::string> gzip_decompress(std::string_view packed, std::size_t limit);

// Compresses a stream piece by piece; a piece may come out with a later one.
class GzipStream {
 public:
  GzipStream();
  ~GzipStream();
  Result<std::string> push(std::string_view plain);
  // The rest. Nothing may follow.
  Result<std::string> finish();

 private:
  Result<std::string> run(std::string_view plain, int flush);
  struct State;
  std::unique_ptr<State> state_;
};

// A compressed body as the plain one; gzip members may follow each other. read() answers kInvalidArgument for
// malformed or cut-off data. `packed` outlives it.
class GunzipReader : public BodyReader {
 public:
  explicit GunzipReader(BodyReader* packed);
  ~GunzipReader() override;
  Task<std::size_t> read(std::span<char> buffer) override;

 private:
  Result<std::size_t> inflate_some(std::span<char> buffer);
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace wrenn::net
