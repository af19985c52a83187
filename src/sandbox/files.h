#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "async/blocking.h"
#include "base/result.h"

// File helpers of the sandbox layer, beside those of sys/file.h.
namespace wrenn::sandbox {

// Replaces `path` (mode 0600) whole or not at all as other processes see it; nothing is fsynced.
Result<> replace_file(async::Blocking blocking, const std::string& path, std::string_view content);
// A hard link, or a sparse copy where the two folders are on different filesystems. Replaces `to`.
Result<> link_or_copy(async::Blocking blocking, const std::string& from, const std::string& to);
// Allocates every page of a file on tmpfs, where reading a hole would allocate it and, on a full filesystem,
// kill the process that mapped it. Without effect on other filesystems.
Result<> reserve_on_tmpfs(async::Blocking blocking, const std::string& path);
// Bytes that the files of a folder occupy.
std::uint64_t allocated_bytes(async::Blocking blocking, const std::string& dir);
// Size and modification time, which tell one version of a big file from another without reading it.
Result<std::string> file_identity(const std::string& path);

}  // namespace wrenn::sandbox
