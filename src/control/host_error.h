#pragma once

#include <string_view>

namespace wrenn::control {

// What a sandbox's owner is told of its host's error: one of our sentences, since the host's own words may
// name its paths. Those are in the row and in the log.
std::string_view host_error_sentence(std::string_view reason);

}  // namespace wrenn::control
