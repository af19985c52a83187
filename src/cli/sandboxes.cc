#include "cli/sandboxes.h"

#include <unistd.h>

#include <algorithm>
#include <ctime>

#include "cli/limits.h"

namespace wrenn::cli {
namespace {

std::string text_of(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  if (value == nullptr || value->is_null()) return {};
  if (value->is_string()) return std::string(value->get_string());
  if (value->is_int64()) return std::to_string(value->get_int64());
  if (value->is_uint64()) return std::to_string(value->get_uint64());
  return {};
}

std::int64_t number_of(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  return value != nullptr && value->is_int64() ? value->get_int64() : 0;
}

Row row_of(const json::object& sandbox) {
  return {text_of(sandbox, "id"),
          text_of(sandbox, "status"),
          text_of(sandbox, "template"),
          text_of(sandbox, "vcpus"),
          text_of(sandbox, "memory_mb") + " MiB",
          timeout_text(number_of(sandbox, "timeout_sec")),
          age_of(text_of(sandbox, "created_at"), std::time(nullptr))};
}

bool has_ended(const json::value& item) {
  if (!item.is_object()) return true;
  const std::string status = text_of(item.get_object(), "status");
  return status == "stopped" || status == "error";
}

Result<> print_fields(const json::value& sandbox) {
  if (!sandbox.is_object()) return print_json(sandbox);
  std::vector<Row> rows;
  for (const auto& field : sandbox.get_object()) {
    const std::string text = text_of(sandbox.get_object(), field.key());
    if (!text.empty()) rows.push_back({std::string(field.key()), text});
  }
  return print(is_terminal(STDOUT_FILENO) ? render_table({"FIELD", "VALUE"}, rows) : render_tsv(rows));
}

struct Action {
  const char* method;
  const char* suffix;
  const char* doing;  // for the progress line
  const char* done;   // for the result line; null: print the sandbox
};

Action action_of(Command command) {
  switch (command) {
    case Command::kPause:
      return {"POST", "/pause", "pausing", "paused"};
    case Command::kResume:
      return {"POST", "/resume", "resuming", "running"};
    case Command::kPing:
      return {"POST", "/ping", "pinging", "alive"};
    case Command::kRemove:
      return {"DELETE", "", "destroying", "destroyed"};
    default:
      return {"GET", "", "asking", nullptr};
  }
}

Task<> act_on(Context* context, Action action, std::string id) {
  auto progress = context->progress();
  const std::string full = CO_TRY(co_await context->api->resolve(std::move(id)));
  const json::value answer = CO_TRY(co_await progress.run<json::value>(
      action.doing + (" " + full), context->api->call(action.method, "/v1/sandboxes/" + full + action.suffix,
                                                      std::nullopt, kTransitionLimit)));
  if (context->args.json) {
    co_return print_json(answer.is_null() ? json::value{{"id", full}, {"result", action.done}} : answer);
  }
  if (action.done == nullptr) co_return print_fields(answer);
  co_return print_line(full + "\t" + action.done);
}

Task<std::vector<std::string>> every_live_id(Context* context) {
  const json::value list =
      CO_TRY(co_await context->api->call("GET", "/v1/sandboxes", std::nullopt, kCallLimit));
  std::vector<std::string> ids;
  if (!list.is_array()) co_return ids;
  for (const json::value& item : list.get_array()) {
    if (!has_ended(item)) ids.push_back(text_of(item.get_object(), "id"));
  }
  co_return ids;
}

}  // namespace

Task<int> create_command(Context* context) {
  const Args& args = context->args;
  json::object body;
  body["template"] = args.template_name.value_or("minimal");
  if (args.vcpus) body["vcpus"] = *args.vcpus;
  if (args.memory_mb) body["memory_mb"] = *args.memory_mb;
  if (args.timeout_sec) body["timeout_sec"] = *args.timeout_sec;
  auto progress = context->progress();
  const json::value sandbox = CO_TRY(co_await progress.run<json::value>(
      "creating a sandbox",
      context->api->call("POST", "/v1/sandboxes", json::value(std::move(body)), kTransitionLimit)));
  if (args.json || !sandbox.is_object()) {
    CO_TRY(print_json(sandbox));
  } else {
    CO_TRY(print_line(text_of(sandbox.get_object(), "id")));
  }
  co_return kExitOk;
}

Task<int> list_command(Context* context) {
  json::value list = CO_TRY(co_await context->api->call("GET", "/v1/sandboxes", std::nullopt, kCallLimit));
  if (!list.is_array()) co_return fail(Code::kInternal, "the list of sandboxes is not a list");
  json::array& items = list.get_array();
  if (!context->args.all) {
    items.erase(std::remove_if(items.begin(), items.end(), has_ended), items.end());
  }
  if (context->args.json) {
    CO_TRY(print_json(list));
    co_return kExitOk;
  }
  std::vector<Row> rows;
  for (const json::value& item : items) {
    if (item.is_object()) rows.push_back(row_of(item.get_object()));
  }
  const Row heading = {"ID", "STATUS", "TEMPLATE", "VCPUS", "MEMORY", "AUTO-PAUSE", "CREATED"};
  CO_TRY(print(is_terminal(STDOUT_FILENO) ? render_table(heading, rows) : render_tsv(rows)));
  co_return kExitOk;
}

Task<int> each_command(Context* context) {
  std::vector<std::string> ids = context->args.ids;
  if (context->args.command == Command::kRemove && context->args.all) {
    ids = CO_TRY(co_await every_live_id(context));
  }
  const Action action = action_of(context->args.command);
  int worst = kExitOk;
  for (const auto& id : ids) {
    const Result<> done = co_await act_on(context, action, id);
    if (done) continue;
    if (done.error().code() == Code::kCanceled) co_return fail(done.error());
    report_error(done.error(), context->args.json);
    worst = std::max(worst, exit_code_for(done.error()));
  }
  co_return worst;
}

}  // namespace wrenn::cli
