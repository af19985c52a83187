#include "envd/process_table.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "base/log.h"
#include "envd/limits.h"

namespace wrenn::envd {
namespace {

using Clock = std::chrono::steady_clock;
enum Kind { kStdout, kStderr, kPty };

ProcessEvent start_event(std::uint32_t pid) {
  ProcessEvent event;
  event.mutable_start()->set_pid(pid);
  return event;
}

ProcessEvent end_event(const sys::ExitStatus& status) {
  ProcessEvent event;
  auto* end = event.mutable_end();
  end->set_exited(status.signal == 0);
  end->set_exit_code(status.signal == 0 ? status.exit_code : -1);
  end->set_status(status.to_string());
  if (!status.ok()) end->set_error(status.to_string());
  return event;
}

ProcessEvent data_event(int kind, std::string bytes) {
  ProcessEvent event;
  auto* data = event.mutable_data();
  std::string* field = kind == kStdout   ? data->mutable_stdout()
                       : kind == kStderr ? data->mutable_stderr()
                                         : data->mutable_pty();
  *field = std::move(bytes);
  return event;
}

std::string describe(const process::ProcessSelector& selector) {
  if (selector.has_tag()) return fmt::format("no process with tag '{}'", selector.tag());
  return fmt::format("no process with pid {}", selector.pid());
}

}  // namespace

struct ProcessTable::Entry {
  explicit Entry(asio::any_io_executor executor, sys::ChildProcess process)
      : child(std::move(process)), exited(executor), writing(std::move(executor)) {}
  sys::ChildProcess child;
  process::ProcessInfo info;
  sys::Fd input;   // stdin's write end, or the PTY's master
  sys::Fd output;  // stdout, or a duplicate of the master
  sys::Fd errors;
  bool pty = false;
  bool done = false;  // exited; its pipes may still hold output
  async::Condition exited;
  async::Mutex writing;
  std::vector<std::shared_ptr<EventChannel>> subscribers;
  std::optional<std::string> group;  // its cgroup
};

struct ProcessTable::Ended {
  std::uint32_t pid = 0;
  std::optional<std::string> tag;
  ProcessEvent end;
  Clock::time_point until;
};

ProcessTable::ProcessTable(asio::any_io_executor executor, ProcessGroups* groups)
    : executor_(executor), groups_(groups), nursery_(std::move(executor)) {}
ProcessTable::~ProcessTable() = default;

namespace {

struct Plumbing {
  sys::Fd child_in, child_out, child_err;
  sys::Fd input, output, errors;
};

Result<Plumbing> make_plumbing(const process::StartRequest& request, uid_t owner) {
  Plumbing p;
  if (request.has_pty()) {
    const auto& size = request.pty().size();
    auto pty = TRY(sys::open_pty(static_cast<std::uint16_t>(size.cols()),
                                 static_cast<std::uint16_t>(size.rows()), owner));
    p.child_in = TRY(sys::duplicate(pty.slave.get()));
    p.child_out = TRY(sys::duplicate(pty.slave.get()));
    p.child_err = std::move(pty.slave);
    p.output = TRY(sys::duplicate(pty.master.get()));
    p.input = std::move(pty.master);
  } else {
    if (!request.has_stdin() || request.stdin()) {
      auto in = TRY(sys::make_pipe());
      p.child_in = std::move(in.read);
      p.input = std::move(in.write);
    }
    auto out = TRY(sys::make_pipe());
    auto err = TRY(sys::make_pipe());
    p.child_out = std::move(out.write);
    p.output = std::move(out.read);
    p.child_err = std::move(err.write);
    p.errors = std::move(err.read);
  }
  for (const sys::Fd* fd : {&p.input, &p.output, &p.errors}) {
    if (fd->valid()) TRY(sys::set_nonblocking(fd->get()));
  }
  return p;
}

}  // namespace

Result<> check_cwd(async::Blocking /*blocking*/, const std::string& cwd) {
  struct stat info{};
  if (::stat(cwd.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return fail(Error(Code::kInvalidArgument, fmt::format("cwd '{}' does not exist", cwd)).with_field("cwd"));
  }
  return {};
}

Result<Subscription> ProcessTable::start(StartSpec spec) {
  if (entries_.size() >= kMaxProcesses) {
    return fail(Error(Code::kResourceExhausted, fmt::format("{} processes already run", kMaxProcesses))
                    .with_reason("too_many_processes"));
  }
  const auto& config = spec.request.process();
  if (config.cmd().empty()) return fail(Error(Code::kInvalidArgument, "cmd is empty").with_field("cmd"));
  Plumbing plumbing = TRY(make_plumbing(spec.request, spec.user.uid));
  sys::SpawnSpec child;
  child.argv = {config.cmd()};
  child.argv.insert(child.argv.end(), config.args().begin(), config.args().end());
  child.env = spec.env;
  child.cwd = spec.cwd;
  child.stdin_fd = plumbing.child_in.get();
  child.stdout_fd = plumbing.child_out.get();
  child.stderr_fd = plumbing.child_err.get();
  child.new_session = true;
  child.controlling_terminal = spec.request.has_pty();
  child.credentials = sys::Credentials{spec.user.uid, spec.user.gid, sys::groups_of(spec.user)};
  child.oom_score_adj = kProcessOomScore;
  child.max_open_files = kProcessOpenFiles;
  child.exec_failure_exits = true;
  auto group =
      TRY(groups_->add(spec.request.has_pty() ? ProcessGroups::Kind::kPty : ProcessGroups::Kind::kUser));
  if (group) child.cgroup_procs_files = {*group + "/cgroup.procs"};
  auto spawned = sys::spawn(child);
  if (!spawned && group) groups_->release(*group);
  auto entry = std::make_shared<Entry>(executor_, TRY(std::move(spawned)));
  entry->group = std::move(group);
  const auto pid = static_cast<std::uint32_t>(entry->child.pid());
  entry->info.set_pid(pid);
  *entry->info.mutable_config() = config;
  if (spec.request.has_tag()) entry->info.set_tag(spec.request.tag());
  entry->pty = spec.request.has_pty();
  entry->input = std::move(plumbing.input);
  entry->output = std::move(plumbing.output);
  entry->errors = std::move(plumbing.errors);
  auto channel = std::make_shared<EventChannel>(executor_, kSubscriberEvents);
  channel->try_send(start_event(pid));
  entry->subscribers.push_back(channel);
  entries_[pid] = entry;
  nursery_.spawn("process", supervise(entry));
  if (spec.lifetime) nursery_.spawn("lifetime", enforce_lifetime(entry, *spec.lifetime));
  return Subscription(std::move(channel));
}

void ProcessTable::kill_all_of(const Entry& entry) {
  if (entry.group) {
    const Result<> killed = ProcessGroups::kill(*entry.group);
    if (killed) return;
    log::warn("process {}: {}", entry.info.pid(), killed.error().to_string());
  }
  // Without cgroups what has left the process group lives on. A group that has just ended is no error.
  (void)entry.child.signal_group(SIGKILL);
}

Task<> ProcessTable::enforce_lifetime(std::shared_ptr<Entry> entry, Milliseconds lifetime) {
  const auto until = Clock::now() + lifetime;
  while (!entry->done) {
    const auto left = std::chrono::ceil<Milliseconds>(until - Clock::now());
    if (left.count() <= 0) {
      kill_all_of(*entry);
      break;
    }
    const Result<> woken = co_await entry->exited.wait_for(left);
    if (!woken && woken.error().code() == Code::kCanceled) break;
  }
  co_return Result<>{};
}

Task<> ProcessTable::publish(std::shared_ptr<Entry> entry, ProcessEvent event) {
  const auto listeners = entry->subscribers;
  for (const auto& listener : listeners) {
    if (co_await listener->send(event)) continue;
    if (co_await async::is_cancelled()) co_return fail(async::canceled_error());
    std::erase(entry->subscribers, listener);
  }
  co_return Result<>{};
}

Task<> ProcessTable::wait_exited(std::shared_ptr<Entry> entry) {
  while (!entry->done) CO_TRY(co_await entry->exited.wait());
  co_return Result<>{};
}

Task<> ProcessTable::pump(std::shared_ptr<Entry> entry, int fd, int kind) {
  const std::size_t chunk = kind == kPty ? kPtyChunkBytes : kPipeChunkBytes;
  std::string buffer(chunk, '\0');
  while (true) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got > 0) {
      CO_TRY(co_await publish(entry, data_event(kind, buffer.substr(0, static_cast<std::size_t>(got)))));
      continue;
    }
    if (got < 0 && errno == EINTR) continue;
    if (got == 0 || errno != EAGAIN) co_return Result<>{};  // a PTY whose slaves are closed says EIO
    // Grandchildren may keep the pipe open for ever; what the process wrote is in the pipe by now.
    if (entry->done) co_return Result<>{};
    const Result<> waited = co_await async::run_until(sys::wait_readable(fd), wait_exited(entry));
    if (!waited && co_await async::is_cancelled()) co_return waited;
  }
}

Task<> ProcessTable::supervise(std::shared_ptr<Entry> entry) {
  async::Nursery pumps(executor_);
  pumps.spawn("stdout", pump(entry, entry->output.get(), entry->pty ? kPty : kStdout));
  if (entry->errors.valid()) pumps.spawn("stderr", pump(entry, entry->errors.get(), kStderr));
  auto status = co_await entry->child.wait();
  entry->done = true;
  entry->exited.notify_all();
  if (!status) {
    co_await pumps.cancel_and_join();
    co_return fail(status.error());
  }
  co_await pumps.join();
  if (entry->group) groups_->release(*entry->group);
  const ProcessEvent end = end_event(*status);
  remember(*entry, end);
  // The number may be another process's by now: readers that lag were waited for.
  const auto listed = entries_.find(entry->info.pid());
  if (listed != entries_.end() && listed->second == entry) entries_.erase(listed);
  const Result<> told = co_await publish(entry, end);
  for (const auto& listener : entry->subscribers) listener->close();
  entry->subscribers.clear();
  co_return told;
}

void ProcessTable::remember(const Entry& entry, ProcessEvent end) {
  const auto now = Clock::now();
  std::erase_if(ended_, [now](const Ended& old) { return old.until < now; });
  if (ended_.size() >= kMaxProcesses) ended_.pop_front();
  std::optional<std::string> tag;
  if (entry.info.has_tag()) tag = entry.info.tag();
  ended_.push_back({entry.info.pid(), std::move(tag), std::move(end), now + kRememberExits});
}

Result<std::shared_ptr<ProcessTable::Entry>> ProcessTable::find(
    const process::ProcessSelector& selector) const {
  if (selector.has_tag()) {
    for (const auto& [pid, entry] : entries_) {
      if (entry->info.has_tag() && entry->info.tag() == selector.tag()) return entry;
    }
    return fail(Code::kNotFound, describe(selector));
  }
  const auto found = entries_.find(selector.pid());
  if (found == entries_.end()) return fail(Code::kNotFound, describe(selector));
  return found->second;
}

Result<Subscription> ProcessTable::connect(const process::ProcessSelector& selector) {
  auto channel = std::make_shared<EventChannel>(executor_, kSubscriberEvents);
  const auto running = find(selector);
  if (running) {
    channel->try_send(start_event((*running)->info.pid()));
    (*running)->subscribers.push_back(channel);
    return Subscription(std::move(channel));
  }
  const auto now = Clock::now();
  const auto past = std::find_if(ended_.rbegin(), ended_.rend(), [&](const Ended& old) {
    return old.until >= now && (selector.has_tag() ? old.tag == selector.tag() : old.pid == selector.pid());
  });
  if (past == ended_.rend()) return fail(running.error());
  channel->try_send(start_event(past->pid));
  channel->try_send(past->end);
  Subscription subscription(channel);
  return subscription;
}

std::vector<process::ProcessInfo> ProcessTable::list() const {
  std::vector<process::ProcessInfo> infos;
  infos.reserve(entries_.size());
  for (const auto& [pid, entry] : entries_) infos.push_back(entry->info);
  return infos;
}

Result<> ProcessTable::resize(const process::ProcessSelector& selector, const process::PTY& pty) {
  const auto entry = TRY(find(selector));
  if (!entry->pty) return fail(Code::kFailedPrecondition, "the process has no PTY");
  return sys::resize_pty(entry->input.get(), static_cast<std::uint16_t>(pty.size().cols()),
                         static_cast<std::uint16_t>(pty.size().rows()));
}

Task<> ProcessTable::send_input(process::ProcessSelector selector, process::ProcessInput input) {
  const auto entry = CO_TRY(find(selector));
  if (input.has_pty() != entry->pty) {
    co_return fail(Code::kInternal,
                   entry->pty ? "the process has a PTY: send pty input" : "the process has no PTY");
  }
  const auto turn = CO_TRY(co_await entry->writing.lock());
  std::string_view rest = entry->pty ? input.pty() : input.stdin();
  while (!rest.empty()) {
    if (!entry->input.valid()) co_return fail(Code::kInternal, "stdin is closed or disabled");
    const ssize_t sent = ::write(entry->input.get(), rest.data(), rest.size());
    if (sent > 0) {
      rest.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN) {
      CO_TRY(co_await sys::wait_writable(entry->input.get()));
    } else if (errno != EINTR) {
      co_return fail(Error::from_errno(errno, "write to the process"));
    }
  }
  co_return Result<>{};
}

Result<> ProcessTable::signal(const process::ProcessSelector& selector, int number) {
  const auto entry = TRY(find(selector));
  if (number != SIGKILL) return entry->child.signal_group(number);
  kill_all_of(*entry);
  return {};
}

Result<> ProcessTable::close_stdin(const process::ProcessSelector& selector) {
  const auto entry = TRY(find(selector));
  if (entry->pty) return fail(Code::kFailedPrecondition, "a PTY's input cannot be closed: send Ctrl-D");
  entry->input.reset();
  return {};
}

asio::awaitable<void> ProcessTable::shutdown() {
  for (const auto& [pid, entry] : entries_) kill_all_of(*entry);
  co_await nursery_.join();
}

}  // namespace wrenn::envd
