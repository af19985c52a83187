#include "sandbox/parallel.h"

#include <algorithm>
#include <memory>

#include "base/log.h"

namespace wrenn::sandbox {
namespace {

struct Queue {
  std::string name;
  std::function<Task<>(std::size_t)> work;
  std::size_t next = 0;
  std::size_t count = 0;
};

Task<> worker(std::shared_ptr<Queue> queue) {
  while (queue->next < queue->count) {
    if (co_await async::is_cancelled()) co_return fail(async::canceled_error());
    const Result<> done = co_await queue->work(queue->next++);
    if (!done && done.error().code() != Code::kCanceled)
      log::warn("{}: {}", queue->name, done.error().to_string());
  }
  co_return Result<>{};
}

}  // namespace

Task<> for_each(asio::any_io_executor executor, std::string name, std::size_t count, std::size_t limit,
                std::function<Task<>(std::size_t)> work) {
  const auto queue = std::make_shared<Queue>(
      Queue{.name = std::move(name), .work = std::move(work), .next = 0, .count = count});
  async::Nursery workers(executor);
  for (std::size_t i = 0; i < std::min(count, limit); ++i) workers.spawn(queue->name, worker(queue));
  const Result<> waited = co_await workers.wait();
  if (!waited) co_return waited;
  if (co_await async::is_cancelled()) co_return fail(async::canceled_error());
  co_return Result<>{};
}

}  // namespace wrenn::sandbox
