#pragma once

#include "connect/connect.h"
#include "envd/process_table.h"

namespace wrenn::envd {

// Adds process.Process to the router. The pointers outlive it.
void serve_processes(connect::Router* router, asio::thread_pool* pool, ProcessTable* table,
                     Settings* settings);

// How long a stream may be silent: the Keepalive-Ping-Interval header in seconds, 90 without.
Milliseconds keepalive_interval(const net::Headers& headers);

}  // namespace wrenn::envd
