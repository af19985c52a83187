#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

// Where the API is and which key opens it: flags, then WRENN_BASE_URL and WRENN_API_KEY, then the credentials
// file (~/.config/wrenn/credentials, lines of NAME=value).
namespace wrenn::cli {

using Environment = std::function<std::optional<std::string>(std::string_view)>;
// The process's own environment.
Environment process_environment();

struct Settings {
  std::string base_url;
  std::string api_key;  // may be empty
};

struct BaseUrl {
  std::string endpoint;  // "http://host:port", for net::Endpoint::parse
  std::string prefix;    // "" or "/api"
};
// Splits "https://host:8443/api/". kInvalidArgument unless it is http or https with a host.
Result<BaseUrl> parse_base_url(std::string_view text);

// $XDG_CONFIG_HOME/wrenn/credentials or $HOME/.config/wrenn/credentials; empty without either.
std::string credentials_path(const Environment& environment);

Settings parse_credentials(std::string_view text);

// `flag_url` and `flag_key` are empty when not given.
Result<Settings> load_settings(const std::string& flag_url, const std::string& flag_key,
                               const Environment& environment);

// Writes the file with mode 0600 and its folder with 0700.
Result<> save_credentials(const std::string& path, const Settings& settings);

// $WRENN_DIR or /var/lib/wrenn.
std::string wrenn_dir(const Environment& environment);

}  // namespace wrenn::cli
