#include "cli/args.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <iostream>

#include "cli/output.h"

namespace wrenn::cli {
namespace {

constexpr char kFooter[] =
    "Ids may be cut to a unique beginning. Settings: flags, then WRENN_BASE_URL and WRENN_API_KEY, then\n"
    "~/.config/wrenn/credentials.\n"
    "Exit codes: 0 success, 1 failure, 2 wrong usage or input, 3 service unreachable or key refused,\n"
    "124 out of time, 130 interrupted; exec and shell pass on the command's own.";

CLI::App* command(CLI::App* app, Args* args, Command which, const char* name, const char* what) {
  CLI::App* sub = app->add_subcommand(name, what);
  sub->callback([args, which] { args->command = which; });
  sub->fallthrough();
  return sub;
}

void add_service_commands(CLI::App* app, Args* args) {
  CLI::App* up = command(app, args, Command::kUp, "up",
                         "start control plane and host agent on this machine (root); Ctrl-C stops them");
  up->add_option("--listen", args->listen, "address of the API (default: CP_LISTEN_ADDR or 127.0.0.1:8000)");
  up->add_option("--agent-listen", args->agent_listen,
                 "address of the host agent (default: AGENT_LISTEN_ADDR or 127.0.0.1:50051)");
  up->add_option("--dir", args->dir, "where everything is kept (default: WRENN_DIR or /var/lib/wrenn)");
  up->add_flag("-d,--detach", args->detach, "return once ready and run in the background");
  up->add_flag("-v,--verbose", args->verbose, "also print what the services log");
  up->add_option("--report-fd", args->report_fd)->group("");

  CLI::App* down =
      command(app, args, Command::kDown, "down", "stop what `wrenn up` started; sandboxes stay as they are");
  down->add_option("--dir", args->dir, "as given to `wrenn up`");

  CLI::App* doctor =
      command(app, args, Command::kDoctor, "doctor",
              "check this machine and the service, with a fix for each problem; exit 1 if any fails");
  doctor->add_option("--dir", args->dir, "as given to `wrenn up`");
}

void add_lifecycle_commands(CLI::App* app, Args* args) {
  CLI::App* create = command(app, args, Command::kCreate, "create", "create a sandbox and print its id");
  create->add_option("-t,--template", args->template_name, "template (default: minimal)");
  create->add_option("-c,--vcpus", args->vcpus, "virtual CPUs, 1..32 (default: 1)");
  create->add_option("-m,--memory-mb", args->memory_mb, "memory in MiB, 128..65536 (default: 512)");
  create->add_option("--timeout-sec", args->timeout_sec,
                     "pause after so many seconds without activity, 0..31536000 (default: 0, never)");

  CLI::App* list = command(app, args, Command::kList, "ls", "list sandboxes");
  list->add_flag("-a,--all", args->all, "stopped and failed ones too");

  const auto with_ids = [&](Command which, const char* name, const char* what) {
    CLI::App* sub = command(app, args, which, name, what);
    sub->add_option("id", args->ids, "sandbox")->required();
    return sub;
  };
  with_ids(Command::kGet, "get", "show one sandbox");
  with_ids(Command::kPause, "pause", "save memory and disk, and stop the VM");
  with_ids(Command::kResume, "resume", "go on where a paused sandbox stood");
  with_ids(Command::kPing, "ping", "reset the inactivity timer");
  CLI::App* remove = command(app, args, Command::kRemove, "rm", "destroy sandboxes");
  CLI::Option* ids = remove->add_option("id", args->ids, "sandbox");
  remove->add_flag("-a,--all", args->all, "every sandbox of the team")->excludes(ids);
}

void add_data_commands(CLI::App* app, Args* args) {
  CLI::App* exec =
      command(app, args, Command::kExec, "exec",
              "run a command in a sandbox: wrenn exec ID -- CMD ARG...; its exit code is passed on");
  const auto one_id = [args](const std::string& id) { args->ids = {id}; };
  exec->add_option_function<std::string>("id", one_id, "sandbox")->required();
  exec->footer("After the id: -- COMMAND ARGUMENT...");
  exec->add_option("--timeout-sec", args->exec_timeout_sec, "kill it after so many seconds; exit code 124")
      ->check(CLI::Range(0, 86'400));

  CLI::App* shell = command(app, args, Command::kShell, "shell", "a terminal in a sandbox");
  shell->add_option_function<std::string>("id", one_id, "sandbox")->required();
  shell->footer("After the id, instead of /bin/bash: -- COMMAND ARGUMENT...");

  CLI::App* copy = command(app, args, Command::kCopy, "cp",
                           "copy one file: wrenn cp FILE ID:PATH, wrenn cp ID:PATH FILE; - is the pipe");
  copy->add_option("from", args->from, "file, ID:PATH or -")->required();
  copy->add_option("to", args->to, "file, folder, ID:PATH or -")->required();
}

// What follows the first `--` belongs to the command in the sandbox; CLI11 never sees it.
std::vector<std::string> cut_command_line(int argc, char** argv, std::vector<std::string>* words) {
  std::vector<std::string> rest;
  bool after = false;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (!after && word == "--") {
      after = true;
      continue;
    }
    (after ? rest : *words).push_back(word);
  }
  return rest;
}

bool takes_command(const std::vector<std::string>& words) {
  for (const auto& word : words) {
    if (word == "exec" || word == "shell") return true;
    if (!word.starts_with("-")) return false;
  }
  return false;
}

// `wrenn exec ID CMD -x`: what follows the command is its own, so everything from the second plain word on
// is.
void cut_at_command(std::vector<std::string>* words, std::vector<std::string>* rest) {
  if (!rest->empty() || !takes_command(*words)) return;
  int plain = 0;
  for (std::size_t i = 0; i < words->size(); ++i) {
    const std::string& word = (*words)[i];
    if (word == "--timeout-sec" || word == "--api-key" || word == "--base-url") {
      ++i;
      continue;
    }
    if (word.starts_with("-")) continue;
    if (++plain < 3) continue;
    rest->assign(words->begin() + static_cast<std::ptrdiff_t>(i), words->end());
    words->resize(i);
    return;
  }
}

}  // namespace

std::optional<int> parse_args(int argc, char** argv, Args* args) {
  CLI::App app("Sandboxes: small Linux VMs that start at once, keep their state and pause when idle.",
               "wrenn");
  app.footer(kFooter);
  app.require_subcommand(1);
  app.set_version_flag("--version", "wrenn 0.1.0");
  app.add_flag("--json", args->json, "print JSON");
  app.add_flag("-q,--quiet", args->quiet, "no progress on standard error");
  app.add_option("--base-url", args->base_url, "address of the API (default: http://localhost:8000)");
  app.add_option("--api-key", args->api_key, "key; better in WRENN_API_KEY, where other users cannot see it");
  add_service_commands(&app, args);
  add_lifecycle_commands(&app, args);
  add_data_commands(&app, args);

  std::vector<std::string> words;
  std::vector<std::string> rest = cut_command_line(argc, argv, &words);
  cut_at_command(&words, &rest);
  if (takes_command(words)) {
    args->command_line = std::move(rest);
  } else {
    words.insert(words.end(), rest.begin(), rest.end());
  }
  std::reverse(words.begin(), words.end());
  try {
    app.parse(words);
  } catch (const CLI::ParseError& error) {
    const bool asked = error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success);
    app.exit(error, std::cout, std::cerr);
    return asked ? kExitOk : kExitUsage;
  }
  if (args->command == Command::kExec && args->command_line.empty()) {
    std::cerr << "exec: give a command: wrenn exec ID -- COMMAND ARGUMENT...\n";
    return kExitUsage;
  }
  if (args->command == Command::kRemove && args->ids.empty() && !args->all) {
    std::cerr << "rm: give an id or --all\n";
    return kExitUsage;
  }
  return std::nullopt;
}

}  // namespace wrenn::cli
