#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "cli/up.h"
#include "net/http.h"
#include "sys/file.h"

namespace wrenn::cli {
namespace {

constexpr std::size_t kMaxStateBytes = 64 * 1024;

json::value to_json(const ProcessName& process) {
  return {{"name", process.name}, {"pid", process.pid}, {"start_time", process.start_time}};
}

Result<ProcessName> process_of(const json::value& value) {
  try {
    const json::object& object = value.as_object();
    return ProcessName{.name = std::string(object.at("name").as_string()),
                       .pid = object.at("pid").to_number<pid_t>(),
                       .start_time = object.at("start_time").to_number<std::uint64_t>()};
  } catch (const std::exception&) {
    return fail(Code::kDataLoss, "the state file does not name a process");
  }
}

}  // namespace

std::string state_path(const std::string& dir) { return dir + "/run/up.json"; }

Result<> save_state(const std::string& dir, const UpState& state) {
  TRY(sys::mkdirs(dir + "/run", 0755));
  json::array children;
  for (const auto& child : state.children) children.push_back(to_json(child));
  const json::value value{
      {"self", to_json(state.self)}, {"url", state.url}, {"children", std::move(children)}};
  return sys::write_file_atomic(async::Blocking::without_loop(), state_path(dir),
                                json::serialize(value) + "\n", 0644);
}

Result<UpState> load_state(const std::string& dir) {
  const std::string text = TRY(sys::read_file(state_path(dir), kMaxStateBytes));
  boost::system::error_code ec;
  const json::value value = json::parse(text, ec);
  const json::object* object = ec ? nullptr : value.if_object();
  const json::value* self = object != nullptr ? object->if_contains("self") : nullptr;
  const json::value* url = object != nullptr ? object->if_contains("url") : nullptr;
  const json::value* children = object != nullptr ? object->if_contains("children") : nullptr;
  if (self == nullptr || url == nullptr || !url->is_string() || children == nullptr ||
      !children->is_array()) {
    return fail(Code::kDataLoss, state_path(dir) + " is damaged; remove it");
  }
  UpState state{.self = TRY(process_of(*self)), .url = std::string(url->get_string()), .children = {}};
  for (const json::value& child : children->get_array()) state.children.push_back(TRY(process_of(child)));
  return state;
}

Result<std::string> local_url(const std::string& listen) {
  const net::Endpoint endpoint = TRY(net::Endpoint::parse(listen));
  if (!endpoint.unix_path.empty()) {
    return fail(Code::kInvalidArgument, "the API must listen on a port, not on " + listen);
  }
  std::string host = endpoint.host;
  const bool any =
      host.empty() || host == "0.0.0.0" || host == "::" || host == "127.0.0.1" || host == "localhost";
  if (any) host = "localhost";
  if (host.find(':') != std::string::npos && !host.starts_with('[')) host = "[" + host + "]";
  return "http://" + host + ":" + std::to_string(endpoint.port);
}

std::vector<std::string> missing_guest_files(const std::string& dir) {
  std::vector<std::string> missing;
  for (const char* name :
       {"kernels/bzImage", "kernels/initramfs.cpio.gz", "kernels/digest", "images/minimal/rootfs.ext4"}) {
    if (!sys::exists(dir + "/" + name)) missing.push_back(dir + "/" + name);
  }
  return missing;
}

}  // namespace wrenn::cli
