#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>

#include "base/result.h"

namespace wrenn {

namespace asio = boost::asio;

// What every waiting call returns. Rules, enforced by `make check` where a lint can:
//  - parameters own their data (values, shared_ptr): a lazily started coroutine outlives its caller's stack;
//  - a Task is awaited at once, or given to an owner (Nursery); never detached;
//  - a canceled Task returns Code::kCanceled, it does not throw.
template <class T = void>
using Task = asio::awaitable<Result<T>>;

using Milliseconds = std::chrono::milliseconds;

}  // namespace wrenn
