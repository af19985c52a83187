#pragma once

#include "envd/session.h"
#include "net/http.h"

namespace wrenn::envd {

// POST /files: an octet stream to `path`, or multipart/form-data whose parts named "file" go to `path` or,
// when it is empty, to their own file names. Bodies may be gzip. Answers what was written; X-Metadata-*
// headers become metadata of every file.
Task<> upload(std::shared_ptr<net::Exchange> exchange, asio::thread_pool* pool, const Settings* settings,
              sys::User user, std::string path);

// POST /files/compose: {"source_paths":[..],"destination":"..","username":".."} joins the sources in their
// order into the destination, and removes them.
Task<> compose(std::shared_ptr<net::Exchange> exchange, asio::thread_pool* pool, const Settings* settings);

}  // namespace wrenn::envd
