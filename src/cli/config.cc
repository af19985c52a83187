#include "cli/config.h"

#include <cstdlib>

#include "base/bytes.h"
#include "cli/limits.h"
#include "sys/file.h"

namespace wrenn::cli {
namespace {

constexpr std::size_t kMaxCredentialsBytes = 16 * 1024;

bool is_local(std::string_view url) {
  const auto parsed = parse_base_url(url);
  if (!parsed) return false;
  const std::string_view host = std::string_view(parsed->endpoint).substr(parsed->endpoint.find("//") + 2);
  return host.starts_with("localhost") || host.starts_with("127.") || host.starts_with("[::1]");
}

}  // namespace

Environment process_environment() {
  return [](std::string_view name) -> std::optional<std::string> {
    const char* value = std::getenv(std::string(name).c_str());
    if (value == nullptr || *value == '\0') return std::nullopt;
    return std::string(value);
  };
}

Result<BaseUrl> parse_base_url(std::string_view text) {
  const std::string_view trimmed = trim(text);
  const std::size_t scheme_end = trimmed.find("://");
  const std::string_view scheme =
      scheme_end == std::string_view::npos ? std::string_view() : trimmed.substr(0, scheme_end);
  if (scheme != "http" && scheme != "https") {
    return fail(Error(Code::kInvalidArgument, "the base URL must start with http:// or https://, not \"" +
                                                  std::string(trimmed) + "\"")
                    .with_field("base_url"));
  }
  const std::size_t host = scheme_end + 3;
  std::size_t path = trimmed.find_first_of("/?#", host);
  if (path == std::string_view::npos) path = trimmed.size();
  if (path == host) {
    return fail(Error(Code::kInvalidArgument, "the base URL has no host").with_field("base_url"));
  }
  if (trimmed.find_first_of("?#", host) != std::string_view::npos) {
    return fail(Error(Code::kInvalidArgument, "the base URL may not have a query").with_field("base_url"));
  }
  std::string prefix(trimmed.substr(path));
  while (prefix.ends_with('/')) prefix.pop_back();
  return BaseUrl{std::string(trimmed.substr(0, path)), std::move(prefix)};
}

std::string credentials_path(const Environment& environment) {
  if (const auto config = environment("XDG_CONFIG_HOME")) return *config + "/wrenn/credentials";
  if (const auto home = environment("HOME")) return *home + "/.config/wrenn/credentials";
  return {};
}

Settings parse_credentials(std::string_view text) {
  Settings settings;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view line = trim(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    const std::size_t equals = line.find('=');
    if (line.starts_with('#') || equals == std::string_view::npos) continue;
    const std::string_view name = trim(line.substr(0, equals));
    const std::string_view value = trim(line.substr(equals + 1));
    if (name == "WRENN_BASE_URL") settings.base_url = value;
    if (name == "WRENN_API_KEY") settings.api_key = value;
  }
  return settings;
}

Result<Settings> load_settings(const std::string& flag_url, const std::string& flag_key,
                               const Environment& environment) {
  Settings stored;
  if (const std::string path = credentials_path(environment); !path.empty() && sys::exists(path)) {
    stored = parse_credentials(TRY(sys::read_file(path, kMaxCredentialsBytes)));
  }
  if (stored.base_url.empty()) stored.base_url = kDefaultBaseUrl;

  Settings settings = stored;
  if (const auto url = environment("WRENN_BASE_URL")) settings.base_url = *url;
  if (!flag_url.empty()) settings.base_url = flag_url;
  TRY(parse_base_url(settings.base_url));
  // A stored key goes only where it was stored for; on this machine one name is as good as another.
  const bool same_place =
      settings.base_url == stored.base_url || (is_local(settings.base_url) && is_local(stored.base_url));
  if (!same_place) settings.api_key.clear();
  if (const auto key = environment("WRENN_API_KEY")) settings.api_key = *key;
  if (!flag_key.empty()) settings.api_key = flag_key;
  return settings;
}

Result<> save_credentials(const std::string& path, const Settings& settings) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return fail(Code::kInvalidArgument, "no folder in \"" + path + "\"");
  TRY(sys::mkdirs(path.substr(0, slash), 0700));
  return sys::write_file_atomic(
      async::Blocking::without_loop(), path,
      "WRENN_BASE_URL=" + settings.base_url + "\nWRENN_API_KEY=" + settings.api_key + "\n", 0600);
}

std::string wrenn_dir(const Environment& environment) {
  return environment("WRENN_DIR").value_or(kDefaultDir);
}

}  // namespace wrenn::cli
