// What a live monitor may do and see, as /proc tells it; for the drivers' conformance suite.
#pragma once

#include <sys/types.h>

namespace wrenn::vmm {

// Expects user and group `uid`, no capabilities, no_new_privs, a PID namespace of its own, seccomp filters on
// every thread, no descriptor of the host's but those of its VM, and nothing mounted writable. Prints it all.
void audit_jail(pid_t pid, uid_t uid);

}  // namespace wrenn::vmm
