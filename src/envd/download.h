#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "net/http.h"

namespace wrenn::envd {

// GET /files: a regular file. Range, If-* and ETag as in RFC 9110 for one range and no encoding; gzip when
// the client prefers it and asks for no range.
Task<> download(std::shared_ptr<net::Exchange> exchange, asio::thread_pool* pool, std::string path);

// For tests too: what a Range header asks of a file of `size` bytes.
struct ByteRange {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  bool unsatisfiable = false;
};
// Nullopt: the whole file, as for every header that is not one well-formed range of bytes.
std::optional<ByteRange> parse_range(std::string_view header, std::uint64_t size);

// Which coding an Accept-Encoding prefers.
enum class Coding { kIdentity, kGzip, kNone };
Coding choose_coding(std::string_view accept_encoding);

}  // namespace wrenn::envd
