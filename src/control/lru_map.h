#pragma once

#include <list>
#include <string>
#include <unordered_map>
#include <utility>

namespace wrenn::control {

// At most `max` entries by name; a further one takes the place of the one that was used longest ago.
template <class Value>
class LruMap {
 public:
  explicit LruMap(std::size_t max) : max_(max) {}

  // Null when there is none. Counts as a use.
  Value* find(const std::string& key) {
    const auto it = index_.find(key);
    if (it == index_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, it->second);
    return &it->second->second;
  }
  // The entry, made if it is missing. Valid until the next call.
  Value& at(const std::string& key) {
    if (Value* found = find(key)) return *found;
    if (entries_.size() >= max_) {
      index_.erase(entries_.back().first);
      entries_.pop_back();
    }
    entries_.emplace_front(key, Value());
    index_[key] = entries_.begin();
    return entries_.front().second;
  }
  void erase(const std::string& key) {
    const auto it = index_.find(key);
    if (it == index_.end()) return;
    entries_.erase(it->second);
    index_.erase(it);
  }
  std::size_t size() const { return entries_.size(); }

 private:
  using Entries = std::list<std::pair<std::string, Value>>;
  std::size_t max_;
  Entries entries_;  // the last used first
  std::unordered_map<std::string, typename Entries::iterator> index_;
};

}  // namespace wrenn::control
