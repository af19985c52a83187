#include "net/multipart.h"

#include "base/bytes.h"
#include "net/limits.h"

namespace wrenn::net {
namespace {

// The value of parameter `name` in "form-data; name=\"a\"; filename=b".
std::optional<std::string> parameter(std::string_view value, std::string_view name) {
  std::size_t at = value.find(';');
  while (at != std::string_view::npos) {
    ++at;
    while (at < value.size() && (value[at] == ' ' || value[at] == '\t')) ++at;
    const std::size_t equals = value.find_first_of("=;", at);
    if (equals == std::string_view::npos) return std::nullopt;
    if (value[equals] == ';') {
      at = equals;
      continue;
    }
    const std::string_view key = trim(value.substr(at, equals - at));
    std::string text;
    at = equals + 1;
    if (at < value.size() && value[at] == '"') {
      for (++at; at < value.size() && value[at] != '"'; ++at) {
        if (value[at] == '\\' && at + 1 < value.size()) ++at;
        text += value[at];
      }
      at = value.find(';', at);
    } else {
      const std::size_t end = value.find(';', at);
      text = trim(value.substr(at, end == std::string_view::npos ? end : end - at));
      at = end;
    }
    if (ascii_iequal(key, name)) return text;
  }
  return std::nullopt;
}

// The value of the header `name` in a part's header block.
std::string_view part_header(std::string_view headers, std::string_view name) {
  while (!headers.empty()) {
    const std::size_t end = headers.find("\r\n");
    const std::string_view line = headers.substr(0, end);
    headers = end == std::string_view::npos ? std::string_view() : headers.substr(end + 2);
    const std::size_t colon = line.find(':');
    if (colon != std::string_view::npos && ascii_iequal(trim(line.substr(0, colon)), name)) {
      return line.substr(colon + 1);
    }
  }
  return {};
}

std::unexpected<Error> malformed(std::string message) {
  return fail(Code::kInvalidArgument, std::move(message));
}

}  // namespace

Result<std::string> multipart_boundary(std::string_view content_type) {
  const std::string_view type = trim(content_type.substr(0, content_type.find(';')));
  if (!ascii_iequal(type, "multipart/form-data")) {
    return malformed("the body must be multipart/form-data");
  }
  auto boundary = parameter(content_type, "boundary");
  if (!boundary || boundary->empty() || boundary->size() > 70) {
    return malformed("the Content-Type has no valid multipart boundary");
  }
  return *std::move(boundary);
}

MultipartParser::MultipartParser(const std::string& boundary) : delimiter_("\r\n--" + boundary) {}

Result<std::vector<MultipartParser::Event>> MultipartParser::feed(std::string_view bytes) {
  std::vector<Event> events;
  if (done()) return events;  // an epilogue is allowed and means nothing
  buffer_ += bytes;
  while (!done() && TRY(step(&events))) {
  }
  return events;
}

Result<bool> MultipartParser::step(std::vector<Event>* events) {
  switch (state_) {
    case State::kPreamble:
    case State::kBody:
      return step_content(events);
    case State::kAfterDelimiter:
      return step_after_delimiter(events);
    case State::kHeaders:
      return step_headers(events);
    case State::kDone:
      break;
  }
  return false;
}

bool MultipartParser::step_content(std::vector<Event>* events) {
  const bool body = state_ == State::kBody;
  const std::size_t found = buffer_.find(delimiter_);
  // Without a delimiter all but a possible start of one is content.
  const std::size_t keep = delimiter_.size() - 1;
  const std::size_t size =
      found != std::string::npos ? found : (buffer_.size() > keep ? buffer_.size() - keep : 0);
  if (body && size > 0) events->push_back({Event::Kind::kData, buffer_.substr(0, size), {}});
  if (found == std::string::npos) {
    buffer_.erase(0, size);
    return false;
  }
  if (body) events->push_back({Event::Kind::kPartEnd, {}, {}});
  buffer_.erase(0, found + delimiter_.size());
  state_ = State::kAfterDelimiter;
  return true;
}

Result<bool> MultipartParser::step_after_delimiter(std::vector<Event>* events) {
  const std::size_t padding = buffer_.find_first_not_of(" \t");
  if (padding == std::string::npos || buffer_.size() < padding + 2) {
    if (buffer_.size() > kMaxPartHeaderBytes) return malformed("malformed multipart body");
    return false;
  }
  const std::string mark = buffer_.substr(padding, 2);
  if (mark == "--") {
    events->push_back({Event::Kind::kEnd, {}, {}});
    buffer_.clear();
    state_ = State::kDone;
    return false;
  }
  if (mark != "\r\n") return malformed("malformed multipart body");
  if (++parts_ > kMaxParts) return malformed("too many parts in the multipart body");
  buffer_.erase(0, padding);  // the line end stays: headers may be none
  state_ = State::kHeaders;
  return true;
}

Result<bool> MultipartParser::step_headers(std::vector<Event>* events) {
  const std::size_t end = buffer_.find("\r\n\r\n");
  if (end == std::string::npos) {
    if (buffer_.size() > kMaxPartHeaderBytes)
      return malformed("the headers of a multipart part are too long");
    return false;
  }
  const auto disposition =
      part_header(std::string_view(buffer_).substr(2, end < 2 ? 0 : end - 2), "content-disposition");
  events->push_back({Event::Kind::kPartBegin, parameter(disposition, "name").value_or(""),
                     parameter(disposition, "filename").value_or("")});
  buffer_.erase(0, end + 4);
  state_ = State::kBody;
  return true;
}

}  // namespace wrenn::net
