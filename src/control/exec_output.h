#pragma once

#include <deque>
#include <string>
#include <string_view>

#include "control/answer_budget.h"
#include "control/json_answer.h"

namespace wrenn::control {

// What a command wrote to one of its streams, in blocks, so that growing copies nothing and a block can go as
// soon as it is sent.
class OutputText {
 public:
  void append(std::string_view bytes);
  // All of it is UTF-8.
  bool is_text() const { return valid_ && cut_.empty(); }
  // Null when nothing is left.
  const std::string* front() const { return blocks_.empty() ? nullptr : &blocks_.front(); }
  void pop_front() { blocks_.pop_front(); }

 private:
  void check(std::string_view bytes);

  std::deque<std::string> blocks_;  // all but the last of kOutputBlockBytes
  std::string cut_;                 // a character whose rest has not come
  bool valid_ = true;
};

// What one command wrote, held until its client has read it.
class ExecOutput {
 public:
  ExecOutput(AnswerBudget* budget, std::string team) : share_(budget, std::move(team)) {}

  enum class Stream { kOut, kErr };
  // kResourceExhausted: "output_limit" when the command wrote too much, "answers_held" when its team did;
  // then nothing is held any more.
  Result<> append(Stream stream, std::string_view bytes);
  bool is_text() const { return out_.is_text() && err_.is_text(); }
  // Adds the whole stream to a JSON string, as text or in base64, and lets it go piece by piece.
  Task<> send(Stream stream, JsonAnswer* answer);

 private:
  OutputText out_;
  OutputText err_;
  std::size_t size_ = 0;
  AnswerBudget::Share share_;
};

}  // namespace wrenn::control
