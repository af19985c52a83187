#include "agent/config.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <filesystem>

#include "base/bytes.h"
#include "sandbox/limits.h"
#include "sys/file.h"

namespace wrenn::agent {
namespace {

constexpr std::size_t kMinSecretBytes = 32;
constexpr std::size_t kMaxSecretBytes = 4 * 1024;
constexpr std::size_t kSecretRandomBytes = 32;

std::unexpected<Error> bad(std::string message) { return fail(Code::kInvalidArgument, std::move(message)); }

Result<int> int_of(const Getenv& getenv, const std::string& name, int fallback, int low, int high) {
  const auto text = getenv(name);
  if (!text || text->empty()) return fallback;
  int value = 0;
  const auto [end, ec] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (ec != std::errc() || end != text->data() + text->size() || value < low || value > high) {
    return bad(fmt::format("{} must be a number between {} and {}", name, low, high));
  }
  return value;
}

Result<bool> bool_of(const Getenv& getenv, const std::string& name, bool fallback) {
  const auto text = getenv(name);
  if (!text || text->empty()) return fallback;
  if (*text == "1" || *text == "true") return true;
  if (*text == "0" || *text == "false") return false;
  return bad(name + " must be true or false");
}

Result<std::optional<net::TlsFiles>> tls_of(const Getenv& getenv) {
  const auto value = [&](const char* name) { return getenv(name).value_or(""); };
  net::TlsFiles files{value("AGENT_TLS_CERT"), value("AGENT_TLS_KEY"), value("AGENT_TLS_CLIENT_CA")};
  if (files.certificate.empty() && files.key.empty() && files.client_ca.empty())
    return std::optional<net::TlsFiles>{};
  if (files.certificate.empty() || files.key.empty())
    return bad("AGENT_TLS_CERT and AGENT_TLS_KEY go together");
  return files;
}

Result<std::string> secret_of(async::Blocking blocking, const Getenv& getenv, const std::string& wrenn_dir) {
  if (const auto secret = getenv("AGENT_SHARED_SECRET"); secret && !secret->empty()) {
    if (secret->size() < kMinSecretBytes) {
      return bad(fmt::format("AGENT_SHARED_SECRET must have at least {} characters", kMinSecretBytes));
    }
    return *secret;
  }
  return load_or_make_secret(blocking,
                             getenv("AGENT_SHARED_SECRET_FILE").value_or(wrenn_dir + "/agent.secret"));
}

Result<> read_limits(const Getenv& getenv, sandbox::Config* config) {
  constexpr int kMostMib = 4095;
  constexpr int kMostOps = 10'000'000;
  const auto mib = [](int value) { return static_cast<std::uint64_t>(value) * sandbox::kMiB; };
  vmm::DeviceLimits& limits = config->limits;
  limits.disk_bytes_per_sec = mib(TRY(int_of(getenv, "AGENT_DISK_MIB_PER_SEC", 512, 0, kMostMib)));
  limits.disk_ops_per_sec =
      static_cast<std::uint64_t>(TRY(int_of(getenv, "AGENT_DISK_OPS_PER_SEC", 20'000, 0, kMostOps)));
  limits.network_bytes_per_sec = mib(TRY(int_of(getenv, "AGENT_NETWORK_MIB_PER_SEC", 200, 0, kMostMib)));
  config->network.bytes_per_sec = limits.network_bytes_per_sec;
  host::NetworkOptions& network = config->network;
  constexpr int kMostConnections = 1'000'000;
  network.connections = TRY(int_of(getenv, "AGENT_CONNECTIONS", network.connections, 0, kMostConnections));
  network.connections_per_sec =
      TRY(int_of(getenv, "AGENT_CONNECTIONS_PER_SEC", network.connections_per_sec, 0, kMostConnections));
  return {};
}

}  // namespace

std::optional<std::string> process_env(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  if (value == nullptr) return std::nullopt;
  return std::string(value);
}

bool is_loopback(const net::Endpoint& endpoint) {
  if (!endpoint.unix_path.empty()) return true;
  return endpoint.host == "localhost" || endpoint.host == "::1" || endpoint.host.starts_with("127.");
}

Result<net::Endpoint> listen_endpoint(const std::string& text) {
  net::Endpoint endpoint = TRY(net::Endpoint::parse(text));
  if (endpoint.unix_path.empty() &&
      (endpoint.host.empty() || text.starts_with(':') || endpoint.host == "localhost")) {
    endpoint.host = "127.0.0.1";
  }
  return endpoint;
}

Result<std::string> load_or_make_secret(async::Blocking blocking, const std::string& path) {
  if (!sys::exists(path)) {
    std::uint8_t random[kSecretRandomBytes];
    fill_random(random);
    const std::string parent = std::filesystem::path(path).parent_path().string();
    TRY(sys::mkdirs(parent, 0755));
    // Written aside and linked, so that nobody reads half a secret and the first of two writers wins.
    const std::string temporary = random_id(path + ".new-");
    TRY(sys::write_file_atomic(blocking, temporary, to_hex(random) + "\n", 0600));
    const bool linked = ::link(temporary.c_str(), path.c_str()) == 0 || errno == EEXIST;
    const Error failure = Error::from_errno(errno, "make " + path);
    ::unlink(temporary.c_str());
    if (!linked) return fail(failure);
  }
  std::string secret(trim(TRY(sys::read_file(path, kMaxSecretBytes))));
  if (secret.size() < kMinSecretBytes) {
    return bad(fmt::format("{} must hold at least {} characters", path, kMinSecretBytes));
  }
  return secret;
}

Result<AgentConfig> read_config(async::Blocking blocking, const Getenv& getenv) {
  AgentConfig config;
  const std::string dir = getenv("WRENN_DIR").value_or("/var/lib/wrenn");
  const auto path = [&](const char* name, const char* below) {
    const auto value = getenv(name);
    return value && !value->empty() ? *value : dir + below;
  };
  config.sandbox.kernels_dir = path("AGENT_KERNEL_PATH", "/kernels");
  config.sandbox.images_dir = path("AGENT_IMAGES_PATH", "/images");
  config.sandbox.sandboxes_dir = path("AGENT_SANDBOXES_PATH", "/sandboxes");
  config.sandbox.snapshots_dir = path("AGENT_SNAPSHOTS_PATH", "/snapshots");
  config.sandbox.cache_dir = dir + "/cache";
  config.sandbox.driver = getenv("AGENT_DRIVER").value_or("auto");
  config.sandbox.firecracker = path("AGENT_FIRECRACKER_BIN", "/bin/firecracker");
  config.sandbox.network.ready_slots = TRY(int_of(getenv, "AGENT_READY_SLOTS", 4, 0, 64));
  config.sandbox.network.max_slots = TRY(int_of(getenv, "AGENT_MAX_SANDBOXES", 4096, 1, 32'767));
  config.sandbox.network.internet = TRY(bool_of(getenv, "AGENT_INTERNET", true));
  constexpr int kMostCacheMib = 1 << 30;
  config.sandbox.template_cache_bytes =
      static_cast<std::uint64_t>(TRY(int_of(getenv, "AGENT_TEMPLATE_CACHE_MIB", 0, 0, kMostCacheMib))) *
      sandbox::kMiB;
  TRY(read_limits(getenv, &config.sandbox));
  config.log_level = log::level_from_name(getenv("LOG_LEVEL").value_or("info"));
  config.listen = TRY(listen_endpoint(getenv("AGENT_LISTEN_ADDR").value_or(":50051")));
  config.tls = TRY(tls_of(getenv));
  const bool mutual = config.tls && !config.tls->client_ca.empty();
  if (!mutual) config.secret = TRY(secret_of(blocking, getenv, dir));
  if (!is_loopback(config.listen) && !config.tls && !TRY(bool_of(getenv, "AGENT_ALLOW_INSECURE", false))) {
    return bad("AGENT_LISTEN_ADDR " + config.listen.to_string() +
               " is not loopback: set AGENT_TLS_CERT, AGENT_TLS_KEY and AGENT_TLS_CLIENT_CA");
  }
  return config;
}

}  // namespace wrenn::agent
