#pragma once

#include "envd/session.h"
#include "net/http.h"

namespace wrenn::envd {

// GET and POST /files, POST /files/compose: whole files over HTTP. 400 bad path, folder or body, 401 unknown
// user, wrong token or signature, 404 missing, 406 no acceptable encoding, 507 disk full.
Task<> serve_file(std::shared_ptr<net::Exchange> exchange, asio::thread_pool* pool, const Settings* settings);

// Answers with the status that fits the error and `{"code","message"}`.
Task<> respond_error(std::shared_ptr<net::Exchange> exchange, Error error);

}  // namespace wrenn::envd
