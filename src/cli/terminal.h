#pragma once

#include <termios.h>

#include <cstdint>
#include <optional>

#include "base/result.h"

namespace wrenn::cli {

// Puts a terminal into raw mode and back.
class RawTerminal {
 public:
  static Result<RawTerminal> enter(int fd);
  RawTerminal(RawTerminal&& other) noexcept;
  RawTerminal& operator=(RawTerminal&&) = delete;
  ~RawTerminal();

 private:
  RawTerminal(int fd, const termios& saved) : fd_(fd), saved_(saved) {}
  int fd_;
  termios saved_;
};

struct TerminalSize {
  std::uint16_t cols = 80;
  std::uint16_t rows = 24;
};
// 80x24 when `fd` is no terminal.
TerminalSize terminal_size(int fd);

}  // namespace wrenn::cli
