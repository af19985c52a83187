#pragma once

#include <expected>
#include <utility>

#include "base/error.h"

namespace wrenn {

// Every call that can fail returns one; exceptions stop at the seams of third-party libraries.
template <class T = void>
using Result = std::expected<T, Error>;

// `return fail(Code::kNotFound, "no such user")`.
inline std::unexpected<Error> fail(Code code, std::string message) {
  return std::unexpected<Error>(Error(code, std::move(message)));
}
inline std::unexpected<Error> fail(Error error) { return std::unexpected<Error>(std::move(error)); }
// `return fail_errno("open /dev/kvm")` right after the failed call.
std::unexpected<Error> fail_errno(std::string_view what);

namespace detail {
template <class T>
T unwrap(std::expected<T, Error>&& result) {
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}
}  // namespace detail

}  // namespace wrenn

// TRY(expr): the value of a Result, or return its error from this function.
// CO_TRY(co_await task): the same in a coroutine.
#define TRY(...)                                                                  \
  ({                                                                              \
    auto try_result_ = (__VA_ARGS__);                                             \
    if (!try_result_) return ::std::unexpected(::std::move(try_result_).error()); \
    ::wrenn::detail::unwrap(::std::move(try_result_));                            \
  })
#define CO_TRY(...)                                                                  \
  ({                                                                                 \
    auto try_result_ = (__VA_ARGS__);                                                \
    if (!try_result_) co_return ::std::unexpected(::std::move(try_result_).error()); \
    ::wrenn::detail::unwrap(::std::move(try_result_));                               \
  })
