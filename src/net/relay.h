#pragma once

#include <memory>

#include "net/http.h"

namespace wrenn::net {

// Accepts connections at one place and passes their bytes on to another and back.
class Relay {
 public:
  // kAlreadyExists when the place is taken.
  static Result<std::unique_ptr<Relay>> listen(asio::any_io_executor executor, const Endpoint& at,
                                               Endpoint target);
  ~Relay();
  // Until cancelled; every connection ends with it.
  Task<> run();

 private:
  struct State;
  explicit Relay(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace wrenn::net
