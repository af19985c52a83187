#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "net/http.h"

namespace wrenn::control {

// Appends `text`, which is UTF-8, as it stands inside a JSON string.
void append_json_text(std::string* out, std::string_view text);

// A JSON answer that is written as fast as its client reads and is never whole in memory. One that fits into
// a piece goes out with its length, a longer one in chunks. Every write gives the event loop its turn.
class JsonAnswer {
 public:
  JsonAnswer(std::shared_ptr<net::Exchange> exchange, int status, net::Headers headers);

  // JSON as it is, and what stands inside a string.
  void add(std::string_view json) { piece_ += json; }
  void add_text(std::string_view text) { append_json_text(&piece_, text); }
  // `if (answer.full()) CO_TRY(co_await answer.send());` between additions.
  bool full() const;
  // kDeadlineExceeded for a client that stopped reading.
  Task<> send();
  Task<> finish();

 private:
  std::shared_ptr<net::Exchange> exchange_;
  int status_;
  net::Headers headers_;
  std::string piece_;
};

}  // namespace wrenn::control
