#include "control/settings.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/bytes.h"

namespace wrenn::control {
namespace {

constexpr std::size_t kMinSecretBytes = 32;
constexpr std::size_t kMaxSecretBytes = 4096;

std::unexpected<Error> bad(std::string message) { return fail(Code::kInvalidArgument, std::move(message)); }

// Written aside and linked, so that nobody reads half a secret and the first of two writers wins.
Result<> make_secret(async::Blocking /*blocking*/, const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  std::array<std::uint8_t, 32> random;
  fill_random(random);
  const std::string temporary = random_id(path + ".new-");
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return fail_errno("make " + path);
  const std::string text = to_hex(random) + "\n";
  // On the disk before it has its name: a power cut must not leave an empty secret.
  const bool written =
      ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(fd) == 0;
  ::close(fd);
  const bool linked = written && (::link(temporary.c_str(), path.c_str()) == 0 || errno == EEXIST);
  const Error failure = Error::from_errno(errno, "make " + path);
  ::unlink(temporary.c_str());
  if (!linked) return fail(failure);
  return {};
}

Result<std::optional<net::TlsFiles>> tls_of(const Getenv& getenv) {
  const auto value = [&](const char* name) { return getenv(name).value_or(""); };
  net::TlsFiles files{value("CP_AGENT_TLS_CERT"), value("CP_AGENT_TLS_KEY"), value("CP_AGENT_TLS_CA")};
  if (files.certificate.empty() && files.key.empty() && files.client_ca.empty()) {
    return std::optional<net::TlsFiles>{};
  }
  if (files.certificate.empty() != files.key.empty()) {
    return bad("CP_AGENT_TLS_CERT and CP_AGENT_TLS_KEY go together");
  }
  return files;
}

Result<std::string> secret_of(async::Blocking blocking, const Getenv& getenv, const std::string& wrenn_dir) {
  std::string secret = getenv("AGENT_SHARED_SECRET").value_or("");
  if (secret.empty()) {
    return load_or_make_secret(blocking,
                               getenv("AGENT_SHARED_SECRET_FILE").value_or(wrenn_dir + "/agent.secret"));
  }
  if (secret.size() < kMinSecretBytes) {
    return bad(fmt::format("AGENT_SHARED_SECRET must have at least {} characters", kMinSecretBytes));
  }
  return secret;
}

// What is set and not empty.
std::string setting(const Getenv& getenv, const char* name, std::string fallback) {
  auto value = getenv(name);
  return value && !value->empty() ? *std::move(value) : std::move(fallback);
}

}  // namespace

std::optional<std::string> process_env(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  if (value == nullptr) return std::nullopt;
  return std::string(value);
}

Result<std::string> load_or_make_secret(async::Blocking blocking, const std::string& path) {
  if (!std::filesystem::exists(path)) TRY(make_secret(blocking, path));
  std::ifstream in(path, std::ios::binary);
  if (!in) return fail_errno("open " + path);
  std::string text(kMaxSecretBytes, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  std::string secret(trim(text));
  if (secret.size() < kMinSecretBytes) {
    return bad(fmt::format("{} must hold at least {} characters", path, kMinSecretBytes));
  }
  return secret;
}

Result<Settings> read_settings(async::Blocking blocking, const Getenv& getenv) {
  Settings settings;
  const std::string dir = setting(getenv, "WRENN_DIR", "/var/lib/wrenn");
  settings.database_url = setting(getenv, "DATABASE_URL", dir + "/wrenn.db");
  if (settings.database_url.starts_with("sqlite://")) settings.database_url.erase(0, 9);
  settings.log_level = log::level_from_name(setting(getenv, "LOG_LEVEL", "info"));
  auto listen = net::Endpoint::parse(setting(getenv, "CP_LISTEN_ADDR", ":8000"));
  if (!listen) return fail(std::move(listen).error().in("CP_LISTEN_ADDR"));
  settings.listen = *std::move(listen);
  const std::string proxy = setting(getenv, "CP_PROXY_LISTEN_ADDR", "off");
  if (proxy != "off") {
    auto proxy_listen = net::Endpoint::parse(proxy);
    if (!proxy_listen) return fail(std::move(proxy_listen).error().in("CP_PROXY_LISTEN_ADDR"));
    settings.proxy_listen = *std::move(proxy_listen);
  }
  settings.domain = ascii_lower(setting(getenv, "CP_SANDBOX_DOMAIN", "localhost"));
  auto proxies = TrustedProxies::parse(setting(getenv, "CP_TRUSTED_PROXIES", ""));
  if (!proxies) return fail(std::move(proxies).error().in("CP_TRUSTED_PROXIES"));
  settings.proxies = *std::move(proxies);
  auto agent = net::Endpoint::parse_remote(setting(getenv, "CP_HOST_AGENT_ADDR", "http://localhost:50051"));
  if (!agent) return fail(std::move(agent).error().in("CP_HOST_AGENT_ADDR"));
  settings.agent = *std::move(agent);
  settings.agent_tls = TRY(tls_of(getenv));
  const bool mutual = settings.agent_tls && !settings.agent_tls->certificate.empty();
  if (mutual && !settings.agent.tls) return bad("CP_HOST_AGENT_ADDR must be https:// with CP_AGENT_TLS_CERT");
  if (!mutual) settings.agent_secret = TRY(secret_of(blocking, getenv, dir));
  return settings;
}

}  // namespace wrenn::control
