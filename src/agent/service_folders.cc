// Folders in a guest.
#include "agent/limits.h"
#include "agent/service.h"

namespace wrenn::agent {
namespace {

using sandbox::RunningGuest;

const char* type_name(const filesystem::EntryInfo& entry) {
  if (entry.is_symlink()) return "symlink";
  switch (entry.type()) {
    case filesystem::FILE_TYPE_FILE:
      return "file";
    case filesystem::FILE_TYPE_DIRECTORY:
      return "directory";
    case filesystem::FILE_TYPE_SYMLINK:
      return "symlink";
    default:
      return "unknown";
  }
}

pb::FileEntry to_entry(filesystem::EntryInfo info) {
  pb::FileEntry entry;
  entry.set_type(type_name(info));
  entry.set_name(std::move(*info.mutable_name()));
  entry.set_path(std::move(*info.mutable_path()));
  entry.set_size(info.size());
  entry.set_mode(info.mode());
  entry.set_permissions(std::move(*info.mutable_permissions()));
  entry.set_owner(std::move(*info.mutable_owner()));
  entry.set_group(std::move(*info.mutable_group()));
  entry.set_modified_at(info.modified_time().seconds());
  if (info.has_symlink_target()) entry.set_symlink_target(std::move(*info.mutable_symlink_target()));
  return entry;
}

Result<pb::ListDirResponse> to_response(connect::ElementReader entries) {
  pb::ListDirResponse response;
  filesystem::EntryInfo info;
  while (TRY(entries.next(&info))) *response.add_entries() = to_entry(std::move(info));
  return response;
}

// A long list takes its time, so a pool thread turns it into ours.
Task<pb::ListDirResponse> list_body(RunningGuest guest, asio::thread_pool* pool, pb::ListDirRequest request) {
  auto list = CO_TRY(co_await guest.client->list_dir(request.path(), request.depth()));
  co_return co_await async::offload(
      *pool, [entries = std::move(list.entries)]() mutable { return to_response(std::move(entries)); });
}

Task<pb::MakeDirResponse> make_body(RunningGuest guest, std::string path) {
  pb::MakeDirResponse response;
  *response.mutable_entry() = to_entry(CO_TRY(co_await guest.client->make_dir(std::move(path))));
  co_return response;
}

Task<pb::RemovePathResponse> remove_body(RunningGuest guest, std::string path) {
  CO_TRY(co_await guest.client->remove(std::move(path)));
  co_return pb::RemovePathResponse();
}

}  // namespace

void Service::add_folders() {
  add(&router_, "ListDir", &Service::list_dir);
  add(&router_, "MakeDir", &Service::make_dir);
  add(&router_, "RemovePath", &Service::remove_path);
}

Task<pb::ListDirResponse> Service::list_dir(pb::ListDirRequest request) {
  CO_TRY(model::check_path("path", request.path()));
  CO_TRY(model::check_range("depth", request.depth(), 0, kMaxListDepth));
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  co_return co_await sandbox->operate(list_body, manager_->context().pool, std::move(request));
}

Task<pb::MakeDirResponse> Service::make_dir(pb::MakeDirRequest request) {
  CO_TRY(model::check_path("path", request.path()));
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  co_return co_await sandbox->operate(make_body, request.path());
}

Task<pb::RemovePathResponse> Service::remove_path(pb::RemovePathRequest request) {
  CO_TRY(model::check_path("path", request.path()));
  const auto sandbox = CO_TRY(manager_->find(request.sandbox_id()));
  co_return co_await sandbox->operate(remove_body, request.path());
}

}  // namespace wrenn::agent
