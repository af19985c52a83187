#pragma once

#include "connect/connect.h"
#include "envd/process_table.h"

namespace wrenn::envd {

// Adds process.Process to the router. Both pointers outlive it.
void serve_processes(connect::Router* router, ProcessTable* table, Settings* settings);

}  // namespace wrenn::envd
