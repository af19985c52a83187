#pragma once

#include <utility>

#include "async/task.h"

namespace wrenn::sys {

// Owns a file descriptor; closes it when destroyed.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  explicit operator bool() const { return valid(); }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

struct Pipe {
  Fd read;
  Fd write;
};

// Close-on-exec, blocking.
Result<Pipe> make_pipe();
// A second descriptor of the same open file, close-on-exec.
Result<Fd> duplicate(int fd);
Result<> set_nonblocking(int fd);

// Wait on the event loop until `fd` is readable (for a pidfd: the process has exited) or writable. The
// descriptor must stay open meanwhile and must be pollable (not a regular file).
Task<> wait_readable(int fd);
Task<> wait_writable(int fd);

}  // namespace wrenn::sys
