#include "cli/up.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <map>

#include "base/bytes.h"
#include "base/log.h"
#include "cli/doctor_checks.h"
#include "cli/limits.h"
#include "cli/run_program.h"
#include "sys/file.h"

extern char** environ;

namespace wrenn::cli {
namespace {

constexpr char kDefaultListen[] = "127.0.0.1:8000";
constexpr char kDefaultAgentListen[] = "127.0.0.1:50051";
constexpr char kReadyMark[] = "\x04";  // ends the report of a background `up`
constexpr Milliseconds kProbeLimit{2'000};
constexpr Milliseconds kDownLimit{150'000};

struct Plan {
  std::string dir;
  std::string programs;  // folder of wrenn-cp and wrenn-agent
  std::string listen;
  std::string agent_listen;
  std::string url;
  std::vector<std::string> env;
  std::string log_path(const std::string& name) const { return dir + "/log/" + name + ".log"; }
};

// Progress and results of `up`: to the terminal, or through a pipe to the `up --detach` that started us.
class Report {
 public:
  explicit Report(int fd) : fd_(fd < 0 ? STDOUT_FILENO : fd), owned_(fd) {}
  void line(const std::string& text) const {
    if (fd_ >= 0)
      static_cast<void>(sys::write_all(async::Blocking::without_loop(), fd_, printable(text) + "\n"));
  }
  void ready() {
    if (!owned_.valid()) return;
    static_cast<void>(sys::write_all(async::Blocking::without_loop(), fd_, kReadyMark));
    owned_.reset();
    fd_ = -1;
  }

 private:
  int fd_;
  sys::Fd owned_;
};

std::vector<std::string> child_environment(const std::map<std::string, std::string>& settings) {
  std::vector<std::string> env;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (!settings.contains(text.substr(0, text.find('=')))) env.push_back(text);
  }
  for (const auto& [name, value] : settings) env.push_back(name + "=" + value);
  return env;
}

Result<Plan> make_plan(const Args& args) {
  const Environment environment = process_environment();
  const auto pick = [&](const std::string& flag, const char* variable, const char* fallback) {
    return flag.empty() ? environment(variable).value_or(fallback) : flag;
  };
  Plan plan;
  plan.dir = pick(args.dir, "WRENN_DIR", kDefaultDir);
  if (!plan.dir.starts_with('/')) {
    return fail(Code::kInvalidArgument, "the folder must be an absolute path, not " + plan.dir);
  }
  plan.programs = own_folder();
  plan.listen = pick(args.listen, "CP_LISTEN_ADDR", kDefaultListen);
  plan.agent_listen = pick(args.agent_listen, "AGENT_LISTEN_ADDR", kDefaultAgentListen);
  plan.url = TRY(local_url(plan.listen));
  std::map<std::string, std::string> settings{
      {"WRENN_DIR", plan.dir}, {"CP_LISTEN_ADDR", plan.listen}, {"AGENT_LISTEN_ADDR", plan.agent_listen}};
  if (!environment("CP_HOST_AGENT_ADDR")) settings["CP_HOST_AGENT_ADDR"] = TRY(local_url(plan.agent_listen));
  plan.env = child_environment(settings);
  return plan;
}

Result<> check_machine(const Plan& plan) {
  if (::geteuid() != 0) {
    return fail(Code::kPermissionDenied, "`wrenn up` makes VMs, networks and cgroups: run it as root");
  }
  for (const char* name : {"wrenn-agent", "wrenn-cp"}) {
    if (!sys::exists(plan.programs + "/" + name)) {
      return fail(Code::kFailedPrecondition,
                  plan.programs + "/" + name + " is missing; `make build` makes it");
    }
  }
  const auto missing = missing_guest_files(plan.dir);
  if (!missing.empty()) {
    return fail(Code::kFailedPrecondition,
                "no guest to boot: " + missing.front() + " is missing; `scripts/build-guest.sh` makes it");
  }
  TRY(sys::mkdirs(plan.dir + "/run", 0755));
  TRY(sys::mkdirs(plan.dir + "/log", 0700));
  return {};
}

// Children of an `up` that was killed.
Task<> end_leftovers(std::string dir, Milliseconds limit) {
  const auto state = load_state(dir);
  if (!state) co_return Result<>{};
  for (auto child = state->children.rbegin(); child != state->children.rend(); ++child) {
    CO_TRY(co_await end_process(*child, limit));
  }
  co_return Result<>{};
}

Task<> probe_http(Context* context, Plan plan) {
  const Settings settings{.base_url = plan.url, .api_key = {}};
  auto api = CO_TRY(Api::make(context->loop->executor(), settings));
  CO_TRY(co_await api->call("GET", "/health", std::nullopt, kProbeLimit));
  co_return Result<>{};
}

Task<> probe_agent(Context* context, std::string url) {
  const Settings settings{.base_url = std::move(url), .api_key = {}};
  auto api = CO_TRY(Api::make(context->loop->executor(), settings));
  const auto answer = co_await api->call("GET", "/", std::nullopt, kProbeLimit);
  // Any answer shows that it serves.
  if (!answer &&
      (answer.error().code() == Code::kUnavailable || answer.error().code() == Code::kDeadlineExceeded ||
       answer.error().code() == Code::kCanceled)) {
    co_return fail(answer.error());
  }
  co_return Result<>{};
}

// A key is kept for this machine's commands unless the file belongs to another service.
Result<std::string> keep_key(const Plan& plan, const std::string& key) {
  std::string path = credentials_path(process_environment());
  if (path.empty()) return std::string();
  if (sys::exists(path)) {
    const Settings known = parse_credentials(TRY(sys::read_file(path)));
    const auto local = [](const std::string& url) { return url.find("://localhost") != std::string::npos; };
    if (!known.base_url.empty() && known.base_url != plan.url && !local(known.base_url)) return std::string();
  }
  TRY(save_credentials(path, {.base_url = plan.url, .api_key = key}));
  return path;
}

Task<> prepare_database(Context* context, const Plan* plan, const Report* report) {
  CO_TRY(co_await run_logged(&context->loop->pool(),
                             {.argv = {plan->programs + "/wrenn-cp", "migrate"}, .env = plan->env},
                             plan->log_path("cp"), kMigrateLimit));
  const std::string printed = CO_TRY(co_await run_logged(
      &context->loop->pool(), {.argv = {plan->programs + "/wrenn-cp", "bootstrap"}, .env = plan->env},
      plan->log_path("cp"), kMigrateLimit));
  const std::string key(trim(printed));
  if (key.empty()) co_return Result<>{};
  const std::string path = CO_TRY(keep_key(*plan, key));
  report->line("API key, shown once" + (path.empty() ? "" : " (also in " + path + ")") + ": " + key);
  co_return Result<>{};
}

Task<> start_services(Context* context, const Plan* plan, Supervisor* supervisor, const Report* report) {
  CO_TRY(co_await prepare_database(context, plan, report));
  report->line("preparing the default template (only the first time takes long)");
  CO_TRY(co_await stream_lines({.argv = {plan->programs + "/wrenn-agent", "prepare"}, .env = plan->env},
                               plan->log_path("agent"), kPrepareLimit,
                               [report](const std::string& line) { report->line("  " + line); }));
  const std::string agent_url = CO_TRY(local_url(plan->agent_listen));
  CO_TRY(co_await supervisor->start(
      {.name = "wrenn-agent",
       .argv = {plan->programs + "/wrenn-agent", "serve"},
       .env = plan->env,
       .log_path = plan->log_path("agent"),
       .ready = [context, agent_url] { return probe_agent(context, agent_url); }}));
  co_return co_await supervisor->start({.name = "wrenn-cp",
                                        .argv = {plan->programs + "/wrenn-cp", "serve"},
                                        .env = plan->env,
                                        .log_path = plan->log_path("cp"),
                                        .ready = [context, plan] { return probe_http(context, *plan); }});
}

Task<> follow_logs(std::vector<std::string> paths) {
  std::map<std::string, std::uint64_t> seen;
  for (const auto& path : paths) seen[path] = sys::file_size(path).value_or(0);
  while (true) {
    for (const auto& path : paths) {
      const std::string fresh = read_from(path, &seen[path]);
      if (!fresh.empty())
        static_cast<void>(sys::write_all(async::Blocking::without_loop(), STDERR_FILENO, fresh));
    }
    CO_TRY(co_await async::sleep_for(Milliseconds(200)));
  }
}

Task<> serve(Context* context, const Plan* plan) {
  const auto began = std::chrono::steady_clock::now();
  Report report(context->args.report_fd);
  UpState state{.self = {"wrenn", ::getpid(), CO_TRY(sys::process_start_time(::getpid()))},
                .url = plan->url,
                .children = {}};
  const auto changed = [&state, plan](const std::vector<ProcessName>& children) {
    state.children = children;
    if (const Result<> saved = save_state(plan->dir, state); !saved)
      log::warn("{}", saved.error().to_string());
  };
  SupervisorOptions options{.ready_limit = kReadyLimit,
                            .first_backoff = kFirstBackoff,
                            .max_backoff = kMaxBackoff,
                            .healthy_after = kHealthyAfter,
                            .stop_limit = kStopLimit,
                            .max_log_bytes = kMaxLogBytes};
  Supervisor supervisor(options, changed);
  changed({});
  async::Nursery logs(context->loop->executor());
  if (context->args.verbose) logs.spawn("logs", follow_logs({plan->log_path("cp"), plan->log_path("agent")}));
  Result<> result = co_await start_services(context, plan, &supervisor, &report);
  if (result) {
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    report.line(fmt::format("ready in {:.1f} s: {}  (docs: {}/docs, logs: {}/log)", took.count(), plan->url,
                            plan->url, plan->dir));
    report.ready();
    result = co_await supervisor.watch();
  }
  if (!result && result.error().code() != Code::kCanceled) report.line("failed: " + result.error().message());
  const Result<> stopped = co_await supervisor.stop();
  co_await logs.cancel_and_join();
  static_cast<void>(sys::remove_file(async::Blocking::without_loop(), state_path(plan->dir)));
  if (!result && result.error().code() == Code::kCanceled) co_return stopped;
  co_return result;
}

// Starts this program again in a session of its own and passes its report on until it is ready.
Task<int> detach(Context* context, const Plan* plan) {
  sys::Pipe pipe = CO_TRY(sys::make_pipe());
  const sys::Fd log = CO_TRY(sys::open_file(plan->log_path("up"), O_WRONLY | O_CREAT | O_APPEND, 0600));
  sys::SpawnSpec spec;
  spec.argv = {plan->programs + "/wrenn",
               "up",
               "--report-fd",
               "3",
               "--dir",
               plan->dir,
               "--listen",
               plan->listen,
               "--agent-listen",
               plan->agent_listen};
  spec.stdout_fd = log.get();
  spec.stderr_fd = log.get();
  spec.extra_fds = {{pipe.write.get(), 3}};
  spec.cwd = "/";
  spec.new_session = true;
  sys::ChildProcess child = CO_TRY(sys::spawn(spec));
  pipe.write.reset();
  bool ready = false;
  const Result<> read = co_await read_lines(pipe.read.get(), [&ready](const std::string& line) {
    if (line == kReadyMark) {
      ready = true;
    } else {
      static_cast<void>(print_line(line));
    }
  });
  if (ready) co_return kExitOk;
  // Interrupted, or the child gave up and says why in its log.
  static_cast<void>(child.signal(SIGTERM));
  static_cast<void>(
      co_await async::shielded(async::with_timeout(child.wait(), kDownLimit, std::string("stopping"))));
  if (!read) co_return fail(read.error());
  co_return fail(Code::kInternal, "the service did not start; see " + plan->log_path("up"));
}

}  // namespace

Task<int> up_command(Context* context) {
  const Plan plan = CO_TRY(make_plan(context->args));
  CO_TRY(check_machine(plan));
  std::signal(SIGPIPE, SIG_IGN);
  log::configure("up", log::level_from_name(process_environment()("LOG_LEVEL").value_or("info")));
  auto lock = sys::lock_file(plan.dir + "/run/up.lock");
  if (!lock && lock.error().code() == Code::kFailedPrecondition) {
    const auto state = load_state(plan.dir);
    co_return fail(Code::kAlreadyExists, "already running" + (state ? " at " + state->url : std::string()) +
                                             "; `wrenn down` stops it");
  }
  sys::Fd held = CO_TRY(std::move(lock));
  if (context->args.detach) {
    // The background process takes the lock itself.
    held.reset();
    co_return co_await detach(context, &plan);
  }
  CO_TRY(co_await end_leftovers(plan.dir, kStopLimit));
  CO_TRY(co_await serve(context, &plan));
  co_return kExitOk;
}

Task<int> down_command(Context* context) {
  const std::string dir = context->args.dir.empty() ? wrenn_dir(process_environment()) : context->args.dir;
  const auto state = load_state(dir);
  if (!state && state.error().code() == Code::kNotFound) {
    note("nothing is running below " + dir);
    co_return kExitOk;
  }
  if (!state) co_return fail(state.error());
  auto progress = context->progress();
  CO_TRY(co_await progress.run<void>("stopping", end_process(state->self, kDownLimit)));
  CO_TRY(co_await end_leftovers(dir, kStopLimit));
  CO_TRY(sys::remove_file(async::Blocking::without_loop(), state_path(dir)));
  if (context->args.json) {
    CO_TRY(print_json({{"stopped", state->url}}));
  } else {
    CO_TRY(print_line("stopped " + state->url));
  }
  co_return kExitOk;
}

}  // namespace wrenn::cli
