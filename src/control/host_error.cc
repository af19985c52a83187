#include "control/host_error.h"

#include <algorithm>
#include <array>

namespace wrenn::control {
namespace {

struct Sentence {
  std::string_view reason;
  std::string_view text;
};

constexpr std::array kSentences{
    Sentence{"journal_unreadable", "its host cannot read its notes about it"},
    Sentence{"manifest_unreadable", "the description of its snapshot cannot be read"},
    Sentence{"snapshot_missing", "its snapshot is not where it was"},
    Sentence{"snapshot_mismatch", "its snapshot is not the last one that was made of it"},
    Sentence{"vm_unreachable", "its VM does not answer its host"},
    Sentence{"guest_unreachable", "its VM runs, but the guest in it does not answer"},
    Sentence{"vm_not_killed", "its VM could not be ended"},
};

}  // namespace

std::string_view host_error_sentence(std::string_view reason) {
  const auto found = std::ranges::find(kSentences, reason, &Sentence::reason);
  return found == kSentences.end() ? "its host can neither run nor resume it" : found->text;
}

}  // namespace wrenn::control
