#pragma once

#include "connect/connect.h"
#include "envd/session.h"
#include "filesystem/filesystem.pb.h"

namespace wrenn::envd {

// lstat as an EntryInfo. Blocking.
Result<filesystem::EntryInfo> entry_info(const std::string& path);

// Adds filesystem.Filesystem to the router. The pointers outlive it.
void serve_filesystem(connect::Router* router, asio::thread_pool* pool, Settings* settings);

}  // namespace wrenn::envd
