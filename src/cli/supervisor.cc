#include "cli/supervisor.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "base/log.h"
#include "sys/file.h"

namespace wrenn::cli {
namespace {

constexpr Milliseconds kReadyPoll{50};
constexpr Milliseconds kWatchTick{250};
constexpr std::size_t kTailLines = 12;
constexpr std::size_t kTailBytes = 16 * 1024;

using Clock = std::chrono::steady_clock;

}  // namespace

bool is_alive(const ProcessName& process) {
  const auto start = sys::process_start_time(process.pid);
  return process.pid > 0 && start && *start == process.start_time;
}

Result<> trim_log(const std::string& path, std::uint64_t limit) {
  if (!sys::exists(path)) return {};
  if (TRY(sys::file_size(path)) <= limit) return {};
  const std::string older = path + ".1";
  TRY(sys::remove_file(async::Blocking::without_loop(), older));
  TRY(sys::copy_sparse(async::Blocking::without_loop(), path, older));
  if (::truncate(path.c_str(), 0) != 0) return fail_errno("truncate " + path);
  return {};
}

std::string log_tail(const std::string& path, std::size_t lines) {
  const auto file = sys::open_file(path, O_RDONLY);
  const auto size = sys::file_size(path);
  if (!file || !size) return {};
  const std::uint64_t offset = *size > kTailBytes ? *size - kTailBytes : 0;
  std::string text(static_cast<std::size_t>(*size - offset), '\0');
  if (!sys::pread_all(async::Blocking::without_loop(), file->get(), text.data(), text.size(), offset))
    return {};
  while (text.ends_with('\n')) text.pop_back();
  std::size_t start = text.size();
  while (lines > 0 && start != 0) {
    const std::size_t newline = text.rfind('\n', start - 1);
    if (newline == std::string::npos) return text;
    start = newline;
    --lines;
  }
  return start < text.size() ? text.substr(start + 1) : std::string();
}

Supervisor::Supervisor(SupervisorOptions options,
                       std::function<void(const std::vector<ProcessName>&)> changed)
    : options_(options), changed_(std::move(changed)) {}

Result<> Supervisor::launch(Child* child) {
  const sys::Fd log = TRY(sys::open_file(child->program.log_path, O_WRONLY | O_CREAT | O_APPEND, 0600));
  sys::SpawnSpec spec;
  spec.argv = child->program.argv;
  spec.env = child->program.env;
  spec.stdout_fd = log.get();
  spec.stderr_fd = log.get();
  // Ctrl-C at our terminal must not reach them: they are stopped in order.
  spec.new_session = true;
  child->process.emplace(TRY(sys::spawn(spec)));
  // One that has ended already has none; try_wait tells its story.
  child->start_time = sys::process_start_time(child->process->pid()).value_or(0);
  child->started = Clock::now();
  announce();
  return {};
}

void Supervisor::announce() {
  std::vector<ProcessName> running;
  for (const auto& child : children_) {
    if (child->process) running.push_back({child->program.name, child->process->pid(), child->start_time});
  }
  changed_(running);
}

Task<> Supervisor::start(Program program) {
  auto& child = children_.emplace_back(std::make_unique<Child>());
  child->program = std::move(program);
  Child* raw = child.get();
  CO_TRY(launch(raw));
  co_return co_await wait_ready(raw);
}

Task<> Supervisor::wait_ready(Child* child) {
  const auto deadline = Clock::now() + options_.ready_limit;
  while (true) {
    const auto exited = CO_TRY(child->process->try_wait());
    if (exited) {
      child->process.reset();
      co_return fail(Code::kUnavailable, child->program.name + " ended at its start (" + exited->to_string() +
                                             "):\n" + log_tail(child->program.log_path, kTailLines));
    }
    const Result<> answer = co_await child->program.ready();
    if (answer || answer.error().code() == Code::kCanceled) co_return answer;
    if (Clock::now() > deadline) {
      co_return fail(Code::kDeadlineExceeded, child->program.name + " is not ready after " +
                                                  std::to_string(options_.ready_limit.count()) + " ms (" +
                                                  answer.error().message() + "):\n" +
                                                  log_tail(child->program.log_path, kTailLines));
    }
    CO_TRY(co_await async::sleep_for(kReadyPoll));
  }
}

void Supervisor::restart_if_dead(Child* child) {
  const auto now = Clock::now();
  if (child->process) {
    const auto exited = child->process->try_wait();
    if (exited && !*exited) return;
    const bool was_healthy = now - child->started >= options_.healthy_after;
    child->backoff = was_healthy || child->backoff.count() == 0
                         ? options_.first_backoff
                         : std::min(child->backoff * 2, options_.max_backoff);
    child->restart_at = now + child->backoff;
    child->process.reset();
    log::warn("{} ended ({}); starting it again in {} ms; see {}", child->program.name,
              exited ? (*exited)->to_string() : exited.error().message(), child->backoff.count(),
              child->program.log_path);
  }
  if (now < child->restart_at) return;
  if (const Result<> launched = launch(child); !launched) {
    log::error("{} cannot start: {}", child->program.name, launched.error().to_string());
    child->backoff = std::min(child->backoff * 2, options_.max_backoff);
    child->restart_at = now + child->backoff;
  }
}

Task<> Supervisor::watch() {
  while (true) {
    for (const auto& child : children_) {
      restart_if_dead(child.get());
      if (const Result<> trimmed = trim_log(child->program.log_path, options_.max_log_bytes); !trimmed) {
        log::warn("{}", trimmed.error().to_string());
      }
    }
    CO_TRY(co_await async::sleep_for(kWatchTick));
  }
}

Task<> Supervisor::stop() { co_return co_await async::shielded(stop_all()); }

Task<> Supervisor::stop_all() {
  Result<> worst;
  for (auto child = children_.rbegin(); child != children_.rend(); ++child) {
    if (!(*child)->process) continue;
    const Result<> stopped = co_await stop_one(child->get());
    if (!stopped) worst = stopped;
  }
  co_return worst;
}

Task<> Supervisor::stop_one(Child* child) {
  static_cast<void>(child->process->signal(SIGTERM));
  const auto exited =
      co_await async::with_timeout(child->process->wait(), options_.stop_limit, child->program.name);
  if (!exited) {
    log::warn("{} did not stop within {} ms; killing it", child->program.name, options_.stop_limit.count());
    static_cast<void>(child->process->signal(SIGKILL));
    CO_TRY(co_await child->process->wait());
  }
  child->process.reset();
  announce();
  co_return Result<>{};
}

}  // namespace wrenn::cli
