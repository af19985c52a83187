#pragma once

#include "envd/session.h"
#include "net/http.h"

namespace wrenn::envd {

// GET and POST /files: one file as an octet stream. 400 bad path or folder, 401 unknown user, 404 missing,
// 415 other content types, 507 disk full.
Task<> serve_file(std::shared_ptr<net::Exchange> exchange, asio::thread_pool* pool, const Settings* settings);

// Answers with the status that fits the error and `{"code","message"}`.
Task<> respond_error(std::shared_ptr<net::Exchange> exchange, Error error);

}  // namespace wrenn::envd
