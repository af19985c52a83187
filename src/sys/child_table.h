#pragma once

#include <sys/types.h>

#include <csignal>
#include <functional>
#include <mutex>

#include "base/result.h"

// Keeps reap_orphans() (waitpid on everything) from losing the status of children that spawn() started.
// Thread-safe.
namespace wrenn::sys::child_table {

// Held while a child is created and recorded, so that it cannot be reaped unrecorded.
std::unique_lock<std::mutex> lock();
// With the lock held.
void add(pid_t pid);
// waitid on one child without blocking: true with si_pid 0 while it runs, true with its status once (it is
// then reaped and forgotten), false with errno set when it is none of ours.
bool collect(pid_t pid, siginfo_t* out);

}  // namespace wrenn::sys::child_table
