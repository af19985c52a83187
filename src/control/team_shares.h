#pragma once

#include <map>
#include <string>
#include <utility>

#include "base/result.h"

namespace wrenn::control {

// Places for work that one team's requests cause, so that no team takes all of them. Belongs to the loop and
// outlives the places it gave.
class TeamShares {
 public:
  // `what` ends the log's sentence "the team has N ...".
  TeamShares(std::size_t of_all, std::size_t of_team, std::string what)
      : of_all_(of_all), of_team_(of_team), what_(std::move(what)) {}
  TeamShares(const TeamShares&) = delete;
  TeamShares& operator=(const TeamShares&) = delete;

  class Place {
   public:
    Place(Place&& other) noexcept
        : shares_(std::exchange(other.shares_, nullptr)), team_(std::move(other.team_)) {}
    Place& operator=(Place&&) = delete;
    ~Place();

   private:
    friend class TeamShares;
    Place(TeamShares* shares, std::string team) : shares_(shares), team_(std::move(team)) {}
    TeamShares* shares_;
    std::string team_;
  };

  // kResourceExhausted when the team (reason "team_share"), or all teams together, have no place left.
  Result<Place> take(const std::string& team_id);
  std::size_t taken() const { return taken_; }

 private:
  std::size_t of_all_;
  std::size_t of_team_;
  std::string what_;
  std::size_t taken_ = 0;
  std::map<std::string, std::size_t> by_team_;
};

}  // namespace wrenn::control
