#pragma once

#include <cstdint>
#include <string>

#include "async/blocking.h"
#include "base/result.h"

// File helpers of the sandbox layer, beside those of sys/file.h.
namespace wrenn::sandbox {

// Whether there is something at `path`; an error when that cannot be told.
Result<bool> present(const std::string& path);
// kResourceExhausted reason "disk_full" unless `needed` bytes fit on the filesystem of `dir` and
// kDiskReserveBytes are left.
Result<> check_space(const std::string& dir, std::uint64_t needed);
// A hard link, or a sparse copy where the two folders are on different filesystems: the same content, size
// and time of modification. Replaces `to`.
Result<> link_or_copy(async::Blocking blocking, const std::string& from, const std::string& to);
// Fsyncs a file that link_or_copy copied; a link is on the disk as long as what it was linked from.
Result<> sync_copy(async::Blocking blocking, const std::string& path);
// Puts the image `from` at `to` by link_or_copy. kAborted reason kImageReplaced when it is not `version` any
// more.
inline constexpr char kImageReplaced[] = "image_replaced";
Result<> link_image(async::Blocking blocking, const std::string& from, const std::string& version,
                    const std::string& to);
// Allocates every page of a file on tmpfs, where reading a hole would allocate it and, on a full filesystem,
// kill the process that mapped it. Without effect on other filesystems.
Result<> reserve_on_tmpfs(async::Blocking blocking, const std::string& path);
// Bytes that the files of a folder occupy.
std::uint64_t allocated_bytes(async::Blocking blocking, const std::string& dir);
// Size and modification time of an image, which tell one version of it from another without reading it. Links
// and copies of it have the same.
Result<std::string> image_version(const std::string& path);

}  // namespace wrenn::sandbox
