#pragma once

#include "cli/context.h"

namespace wrenn::cli {

// One file between this machine and a sandbox, streamed.
Task<int> copy_command(Context* context);

// One side of a copy.
struct CopySide {
  std::string sandbox;  // empty: this machine
  std::string path;     // "-" on this machine: standard input or output
};
// "sb-abc:/tmp/x" is in a sandbox; a colon after the first slash, or none, is a local path.
CopySide parse_copy_side(std::string_view text);

// The bytes of a multipart body before and after the file's own.
struct MultipartFrame {
  std::string content_type;
  std::string head;
  std::string tail;
};
MultipartFrame multipart_frame(const std::string& path, const std::string& boundary);

}  // namespace wrenn::cli
