#pragma once

#include <string>

#include "model/sandbox.h"

namespace wrenn::control {

model::Time wall_clock();
// "2026-01-02T03:04:05.678Z"
std::string rfc3339(model::Time time);

}  // namespace wrenn::control
