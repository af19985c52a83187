#include "cli/cli.h"

#include "base/log.h"
#include "cli/copy.h"
#include "cli/doctor.h"
#include "cli/exec.h"
#include "cli/sandboxes.h"
#include "cli/shell.h"
#include "cli/up.h"

namespace wrenn::cli {
namespace {

constexpr std::size_t kPoolThreads = 2;

Task<int> dispatch(Context* context) {
  switch (context->args.command) {
    case Command::kUp:
      return up_command(context);
    case Command::kDown:
      return down_command(context);
    case Command::kDoctor:
      return doctor_command(context);
    case Command::kCreate:
      return create_command(context);
    case Command::kList:
      return list_command(context);
    case Command::kExec:
      return exec_command(context);
    case Command::kShell:
      return shell_command(context);
    case Command::kCopy:
      return copy_command(context);
    case Command::kGet:
    case Command::kPause:
    case Command::kResume:
    case Command::kPing:
    case Command::kRemove:
    case Command::kNone:
      break;
  }
  return each_command(context);
}

Task<> run_command(Context* context, Result<int>* result) {
  *result = co_await dispatch(context);
  co_return Result<>{};
}

}  // namespace

int run(int argc, char** argv) {
  Context context;
  if (const auto code = parse_args(argc, argv, &context.args)) return *code;
  log::configure("wrenn", log::Level::kError);
  const auto settings = load_settings(context.args.base_url, context.args.api_key, process_environment());
  if (!settings) {
    report_error(settings.error(), context.args.json);
    return exit_code_for(settings.error());
  }
  async::Loop loop(kPoolThreads);
  context.loop = &loop;
  auto api = Api::make(loop.executor(), *settings);
  if (!api) {
    report_error(api.error(), context.args.json);
    return exit_code_for(api.error());
  }
  context.api = std::move(*api);
  Result<int> result = kExitOk;
  const Result<> ran = loop.run(run_command(&context, &result));
  context.api.reset();
  if (!ran) result = fail(ran.error());
  if (result) return *result;
  if (result.error().code() != Code::kCanceled) report_error(result.error(), context.args.json);
  return exit_code_for(result.error());
}

}  // namespace wrenn::cli
