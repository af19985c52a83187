#include <boost/json/serialize.hpp>

#include "control/http_api.h"
#include "control/limits.h"

namespace wrenn::control {
namespace {

namespace rpc = hostagent::v1;

boost::json::object to_json(const rpc::FileEntry& entry) {
  boost::json::object out{
      {"name", entry.name()},   {"path", entry.path()},   {"type", entry.type()},
      {"size", entry.size()},   {"mode", entry.mode()},   {"permissions", entry.permissions()},
      {"owner", entry.owner()}, {"group", entry.group()}, {"modified_at", entry.modified_at()}};
  if (entry.has_symlink_target()) out["symlink_target"] = entry.symlink_target();
  return out;
}

Result<std::string> path_of(const JsonInput& input) {
  std::string path = TRY(input.text("path", model::kMaxPathBytes));
  TRY(model::check_path("path", path));
  return path;
}

}  // namespace

Task<> HttpApi::list_files(CallPtr call) {
  const JsonInput input = CO_TRY(co_await read_json(call));
  rpc::ListDirRequest request;
  request.set_sandbox_id(call->sandbox_id);
  request.set_path(CO_TRY(path_of(input)));
  const std::int64_t depth = CO_TRY(input.integer("depth", 0, kMaxListDepth, 1));
  request.set_depth(static_cast<std::uint32_t>(depth));
  CO_TRY(co_await service_->require_running(call->principal.team_id, call->sandbox_id));
  service_->note_activity(call->sandbox_id);
  ListAnswer list(&answers_, call->principal.team_id);
  CO_TRY(co_await agent_->list_dir(std::move(request), &list));
  JsonAnswer answer(call->exchange, 200, headers_for(*call));
  answer.add(R"({"entries":[)");
  CO_TRY(co_await list.send<rpc::FileEntry>(&answer, to_json));
  answer.add("]}");
  co_return co_await answer.finish();
}

Task<> HttpApi::make_dir(CallPtr call) {
  const JsonInput input = CO_TRY(co_await read_json(call));
  std::string path = CO_TRY(path_of(input));
  CO_TRY(co_await service_->require_running(call->principal.team_id, call->sandbox_id));
  service_->note_activity(call->sandbox_id);
  auto entry = co_await agent_->make_dir(call->sandbox_id, std::move(path));
  if (!entry && entry.error().code() == Code::kAlreadyExists) {
    co_return fail(std::move(entry).error().with_reason("path_exists"));
  }
  const boost::json::object body{{"entry", to_json(CO_TRY(std::move(entry)))}};
  co_return co_await reply(call, 200, "application/json", boost::json::serialize(body));
}

Task<> HttpApi::remove_path(CallPtr call) {
  const JsonInput input = CO_TRY(co_await read_json(call));
  std::string path = CO_TRY(path_of(input));
  CO_TRY(co_await service_->require_running(call->principal.team_id, call->sandbox_id));
  service_->note_activity(call->sandbox_id);
  CO_TRY(co_await agent_->remove_path(call->sandbox_id, std::move(path)));
  co_return co_await reply_empty(call);
}

}  // namespace wrenn::control
