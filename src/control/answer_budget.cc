#include "control/answer_budget.h"

#include <algorithm>

namespace wrenn::control {

Result<> AnswerBudget::Share::grow(std::size_t bytes) {
  if (bytes == 0) return {};
  std::size_t& of_team = budget_->by_team_[team_];
  // Everything that is held then, and as much again as the team holds.
  if (budget_->held_ + bytes + of_team + bytes > budget_->total_) {
    if (of_team == 0) budget_->by_team_.erase(team_);
    return fail(Error(Code::kResourceExhausted, "the team's unread answers hold their share of memory")
                    .with_reason("answers_held"));
  }
  of_team += bytes;
  budget_->held_ += bytes;
  held_ += bytes;
  return {};
}

void AnswerBudget::Share::shrink(std::size_t bytes) {
  bytes = std::min(bytes, held_);
  if (bytes == 0) return;
  held_ -= bytes;
  budget_->held_ -= bytes;
  const auto it = budget_->by_team_.find(team_);
  it->second -= bytes;
  if (it->second == 0) budget_->by_team_.erase(it);
}

}  // namespace wrenn::control
