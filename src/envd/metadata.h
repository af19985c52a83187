#pragma once

#include <map>
#include <string>

#include "net/http.h"

// What clients attach to files: extended attributes named user.e2b.<key>, as E2B's guests keep them.
namespace wrenn::envd {

using Metadata = std::map<std::string, std::string>;

// The X-Metadata-<key> headers; keys in lower case, of repeated ones the first. kInvalidArgument: not
// printable ASCII, a key above 246 bytes, or above 4096 bytes in all.
Result<Metadata> metadata_of(const net::Headers& headers);

// Makes `metadata` the file's, replacing what it had.
Result<> set_metadata(int fd, const Metadata& metadata);

// Of the file itself, not of what a link leads to; empty where there is none.
Metadata read_metadata(const std::string& path);

}  // namespace wrenn::envd
