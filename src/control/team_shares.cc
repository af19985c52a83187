#include "control/team_shares.h"

#include <fmt/format.h>

namespace wrenn::control {

TeamShares::Place::~Place() {
  if (shares_ == nullptr) return;
  --shares_->taken_;
  const auto it = shares_->by_team_.find(team_);
  if (--it->second == 0) shares_->by_team_.erase(it);
}

Result<TeamShares::Place> TeamShares::take(const std::string& team_id) {
  const auto it = by_team_.find(team_id);
  if (it != by_team_.end() && it->second >= of_team_) {
    return fail(Error(Code::kResourceExhausted, fmt::format("the team has {} {}", it->second, what_))
                    .with_reason("team_share"));
  }
  if (taken_ >= of_all_) return fail(Code::kResourceExhausted, "too many " + what_);
  ++taken_;
  ++by_team_[team_id];
  return Place(this, team_id);
}

}  // namespace wrenn::control
