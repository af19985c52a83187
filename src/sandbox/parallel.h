#pragma once

#include <functional>
#include <string>

#include "async/async.h"

namespace wrenn::sandbox {

// Runs work(0) to work(count - 1), at most `limit` at a time. Errors are logged under `name`, and the others
// go on. When cancelled, it begins no more, cancels what runs, and answers kCanceled after that has returned.
Task<> for_each(asio::any_io_executor executor, std::string name, std::size_t count, std::size_t limit,
                std::function<Task<>(std::size_t)> work);

}  // namespace wrenn::sandbox
