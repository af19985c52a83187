#include "cli/run_program.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <deque>

#include "base/bytes.h"
#include "sys/file.h"

namespace wrenn::cli {
namespace {

constexpr std::size_t kMaxLineBytes = 64 * 1024;
constexpr std::size_t kTailLines = 12;
constexpr Milliseconds kGonePoll{50};
constexpr Milliseconds kKillLimit{10'000};

std::string short_name(const std::vector<std::string>& argv) {
  std::string name = argv.front().substr(argv.front().rfind('/') + 1);
  for (std::size_t i = 1; i < argv.size(); ++i) name += " " + argv[i];
  return name;
}

Result<> append_to(const std::string& path, std::string_view text) {
  const sys::Fd file = TRY(sys::open_file(path, O_WRONLY | O_CREAT | O_APPEND, 0600));
  return sys::write_all(async::Blocking::without_loop(), file.get(), text);
}

Task<> wait_gone(ProcessName process) {
  while (is_alive(process)) CO_TRY(co_await async::sleep_for(kGonePoll));
  co_return Result<>{};
}

}  // namespace

Task<std::string> run_logged(asio::thread_pool* pool, Step step, std::string log_path, Milliseconds limit) {
  co_return co_await async::offload(
      *pool, [step = std::move(step), path = std::move(log_path), limit]() -> Result<std::string> {
        sys::SpawnSpec spec;
        spec.argv = step.argv;
        spec.env = step.env;
        const sys::RunOutput output = TRY(sys::run(async::Blocking::without_loop(), spec, limit));
        if (!output.stderr_text.empty()) TRY(append_to(path, output.stderr_text));
        if (!output.status.ok()) {
          return fail(Code::kInternal, short_name(step.argv) + ": " + output.status.to_string() + ": " +
                                           std::string(trim(output.stderr_text)));
        }
        return output.stdout_text;
      });
}

Task<> read_lines(int fd, std::function<void(const std::string&)> line) {
  std::array<char, 4096> buffer{};
  std::string pending;
  while (true) {
    CO_TRY(co_await sys::wait_readable(fd));
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) co_return fail_errno("read the program's output");
    if (got == 0) break;
    pending.append(buffer.data(), static_cast<std::size_t>(got));
    for (std::size_t end = pending.find('\n'); end != std::string::npos; end = pending.find('\n')) {
      line(pending.substr(0, end));
      pending.erase(0, end + 1);
    }
    if (pending.size() > kMaxLineBytes) line(std::exchange(pending, {}));
  }
  if (!pending.empty()) line(pending);
  co_return Result<>{};
}

Task<> stream_lines(Step step, std::string log_path, Milliseconds limit,
                    std::function<void(const std::string&)> line) {
  sys::Pipe pipe = CO_TRY(sys::make_pipe());
  sys::SpawnSpec spec;
  spec.argv = step.argv;
  spec.env = step.env;
  spec.stdout_fd = pipe.write.get();
  spec.stderr_fd = pipe.write.get();
  spec.new_session = true;
  sys::ChildProcess child = CO_TRY(sys::spawn(spec));
  pipe.write.reset();
  std::deque<std::string> last;
  const std::function<void(const std::string&)> note_line = [&](const std::string& text) {
    last.push_back(text);
    if (last.size() > kTailLines) last.pop_front();
    static_cast<void>(append_to(log_path, text + "\n"));
    line(text);
  };
  const std::string name = short_name(step.argv);
  const Result<> read = co_await async::with_timeout(read_lines(pipe.read.get(), note_line), limit, name);
  if (!read) static_cast<void>(child.signal(SIGTERM));
  auto exited = co_await async::shielded(async::with_timeout(child.wait(), kKillLimit, name));
  if (!exited) {
    static_cast<void>(child.signal(SIGKILL));
    exited = co_await async::shielded(child.wait());
  }
  if (!read) co_return fail(read.error());
  if (exited && exited->ok()) co_return Result<>{};
  std::string message = name + ": " + (exited ? exited->to_string() : exited.error().message());
  for (const auto& text : last) message += "\n" + text;
  co_return fail(Code::kInternal, message);
}

Task<> end_process(ProcessName process, Milliseconds limit) {
  if (!is_alive(process)) co_return Result<>{};
  const auto pidfd = sys::open_pidfd(process.pid);
  // Checked again with the descriptor in hand: now the pid cannot be another's.
  if (!pidfd || !is_alive(process)) co_return Result<>{};
  static_cast<void>(sys::signal_pidfd(pidfd->get(), SIGTERM));
  const Result<> ended = co_await async::with_timeout(wait_gone(process), limit, process.name);
  if (ended || ended.error().code() == Code::kCanceled) co_return ended;
  static_cast<void>(sys::signal_pidfd(pidfd->get(), SIGKILL));
  co_return co_await async::with_timeout(wait_gone(process), kKillLimit, process.name);
}

std::string read_from(const std::string& path, std::uint64_t* offset) {
  const auto size = sys::file_size(path);
  if (!size) return {};
  if (*size < *offset) *offset = 0;
  const std::uint64_t fresh = std::min<std::uint64_t>(*size - *offset, kMaxLineBytes);
  if (fresh == 0) return {};
  std::string text(static_cast<std::size_t>(fresh), '\0');
  const auto file = sys::open_file(path, O_RDONLY);
  if (!file ||
      !sys::pread_all(async::Blocking::without_loop(), file->get(), text.data(), text.size(), *offset))
    return {};
  *offset += fresh;
  return text;
}

}  // namespace wrenn::cli
