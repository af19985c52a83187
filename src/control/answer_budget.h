#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <utility>

#include "base/result.h"

namespace wrenn::control {

// The memory of answers that are held until their client has read them, shared by teams: a team may hold no
// more than it leaves free for the others. So one that reads nothing takes half, a second a third each, and
// there is always room for one more.
class AnswerBudget {
 public:
  explicit AnswerBudget(std::size_t total) : total_(total) {}
  AnswerBudget(const AnswerBudget&) = delete;
  AnswerBudget& operator=(const AnswerBudget&) = delete;

  // What one answer holds; gives it back when it goes.
  class Share {
   public:
    Share(AnswerBudget* budget, std::string team) : budget_(budget), team_(std::move(team)) {}
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;
    ~Share() { shrink(held_); }

    // kResourceExhausted with reason "answers_held" when the team holds its share.
    Result<> grow(std::size_t bytes);
    void shrink(std::size_t bytes);
    std::size_t held() const { return held_; }

   private:
    AnswerBudget* budget_;
    std::string team_;
    std::size_t held_ = 0;
  };

  std::size_t held() const { return held_; }

 private:
  std::size_t total_;
  std::size_t held_ = 0;
  std::map<std::string, std::size_t> by_team_;
};

}  // namespace wrenn::control
