#pragma once

namespace wrenn::async {

namespace detail {
struct BlockingPass;
}

// Proof that the calling thread may block: what a function takes that waits for a disk, a child process or a
// lock. Only offload() hands one out, so the compiler refuses such a call on the event loop. Pass it on by
// value; never store it where another thread could find it.
class Blocking {
 public:
  // For threads that have no event loop: unit tests, one-shot commands, and a program before its loop runs.
  // `make check` refuses it everywhere else.
  static Blocking without_loop() { return {}; }

 private:
  Blocking() = default;
  friend struct detail::BlockingPass;
};

namespace detail {
struct BlockingPass {
  static Blocking make() { return {}; }
};
}  // namespace detail

}  // namespace wrenn::async
