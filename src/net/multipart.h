#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace wrenn::net {

// The boundary of a multipart/form-data Content-Type; kInvalidArgument if it is none.
Result<std::string> multipart_boundary(std::string_view content_type);

// Parses multipart/form-data from pieces of any size and holds no more than one delimiter of content.
class MultipartParser {
 public:
  struct Event {
    enum class Kind { kPartBegin, kData, kPartEnd, kEnd } kind;
    std::string text;      // the field's name, or content
    std::string filename;  // of a part that begins; empty when it has none
  };

  explicit MultipartParser(const std::string& boundary);
  // kInvalidArgument for a malformed body; the parser must not be used after that.
  Result<std::vector<Event>> feed(std::string_view bytes);
  bool done() const { return state_ == State::kDone; }

 private:
  enum class State { kPreamble, kAfterDelimiter, kHeaders, kBody, kDone };
  // False when more bytes are needed.
  Result<bool> step(std::vector<Event>* events);
  bool step_content(std::vector<Event>* events);
  Result<bool> step_after_delimiter(std::vector<Event>* events);
  Result<bool> step_headers(std::vector<Event>* events);

  std::string delimiter_;
  std::string buffer_ = "\r\n";  // so that the first delimiter looks like the others
  State state_ = State::kPreamble;
  std::size_t parts_ = 0;
};

}  // namespace wrenn::net
