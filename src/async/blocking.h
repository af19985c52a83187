#pragma once

namespace wrenn::async {

namespace detail {
struct BlockingPass;
}

// Proof that the calling thread may block. A function takes one if it may wait longer than a system call on
// cached metadata does: for a disk, a child process, a lock, a timer, or a walk over much memory or many
// files. Without one go stat, mkdir, the rename or link of a file, and reads of small files and of /proc.
// Only offload() hands one out, so the compiler refuses such a call on the event loop. Pass it on by value;
// never store it where another thread could find it.
class Blocking {
 public:
  // For threads that have no event loop: unit tests, one-shot commands, and a program before its loop runs.
  // `make check` refuses it everywhere else.
  static constexpr Blocking without_loop() { return {}; }

 private:
  constexpr Blocking() = default;
  friend struct detail::BlockingPass;
};

namespace detail {
struct BlockingPass {
  static Blocking make() { return {}; }
};
}  // namespace detail

}  // namespace wrenn::async
