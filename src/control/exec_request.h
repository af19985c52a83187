#pragma once

#include "control/json_input.h"
#include "hostagent/v1/hostagent.pb.h"

namespace wrenn::control {

// {cmd, args[], timeout_sec} of an exec. A missing or zero timeout is `default_timeout_sec`.
Result<hostagent::v1::ExecStreamRequest> parse_exec(const JsonInput& input, const std::string& sandbox_id,
                                                    std::int64_t default_timeout_sec);

}  // namespace wrenn::control
