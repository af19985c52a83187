#pragma once

#include <string>

#include "net/http.h"

namespace wrenn::control {

// The client's X-Request-Id if it is a sane one, else a new one. Ties an answer to our log.
std::string request_id_of(const net::RequestHead& head);

}  // namespace wrenn::control
