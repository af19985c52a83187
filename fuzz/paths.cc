// Paths, queries, hosts and small headers.
#include "control/sandbox_proxy.h"
#include "envd/download.h"
#include "envd/init_route.h"
#include "envd/metadata.h"
#include "envd/port_forwarder.h"
#include "envd/session.h"
#include "envd/signature.h"
#include "input.h"
#include "model/sandbox.h"

using namespace wrenn;

namespace {

void check_traffic(const net::RequestHead& head) {
  const auto target = control::traffic_target(head, "localhost");
  if (!target) return;
  fuzz::require(model::is_sandbox_id(target->sandbox_id), "ids are ids");
  fuzz::require(target->port != 0, "ports are ports");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const fuzz::Input input(data, size);
  const std::string& text = input.text;
  const sys::User user{.name = "u", .uid = 1, .gid = 1, .home = "/home/u", .shell = "/bin/sh"};
  if (const auto path = envd::resolve_path(text, user, {})) {
    fuzz::require(path->starts_with('/') && path->size() < 4096, "paths are absolute and short");
    fuzz::require(path->find('\0') == std::string::npos, "paths hold no NUL");
    fuzz::require(envd::parent_of(*path).starts_with('/'), "parents are absolute");
  }
  net::RequestHead head{.method = "GET", .target = text, .headers = {}};
  (void)head.path();
  (void)head.query("path");
  (void)envd::authorize_file(head, envd::Settings{.access_token = "t"}, 1);
  for (const char* name : {"Host", "E2b-Sandbox-Id", "X-Metadata-A", "Authorization"})
    head.headers.set(name, text);
  check_traffic(head);
  (void)envd::metadata_of(head.headers);
  (void)envd::parse_loopback_ports(text, text);
  (void)envd::choose_coding(text);
  (void)envd::parse_rfc3339(text);
  (void)net::Endpoint::parse(text);
  const std::uint64_t length = input.choice * 40;
  if (const auto range = envd::parse_range(text, length); range && !range->unsatisfiable) {
    fuzz::require(range->count > 0 && range->first + range->count <= length, "ranges lie in the file");
  }
  return 0;
}
