#include "cli/config.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <map>

#include "sys/file.h"

namespace wrenn::cli {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

Environment environment_of(std::map<std::string, std::string> values) {
  return [values = std::move(values)](std::string_view name) -> std::optional<std::string> {
    const auto found = values.find(std::string(name));
    if (found == values.end()) return std::nullopt;
    return found->second;
  };
}

TEST(BaseUrl, SplitsEndpointAndPrefix) {
  EXPECT_EQ(parse_base_url("http://localhost:8000")->endpoint, "http://localhost:8000");
  EXPECT_EQ(parse_base_url("http://localhost:8000/")->prefix, "");
  const auto prefixed = parse_base_url("https://example.com/api/");
  EXPECT_EQ(prefixed->endpoint, "https://example.com");
  EXPECT_EQ(prefixed->prefix, "/api");
}

TEST(BaseUrl, RefusesWhatIsNoUrl) {
  for (const char* bad : {"", "localhost:8000", "ftp://x", "http://", "http:///api", "http://x/?a=b"}) {
    EXPECT_EQ(parse_base_url(bad).error().code(), Code::kInvalidArgument) << bad;
  }
}

TEST(Settings, FlagsBeatEnvironmentBeatsFile) {
  auto dir = sys::TempDir::make(kBlocking);
  ASSERT_TRUE(dir);
  const std::string path = dir->path() + "/wrenn/credentials";
  ASSERT_TRUE(save_credentials(path, {"http://file:1", "wrn_file"}));
  struct stat status{};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);

  const auto file_only = environment_of({{"XDG_CONFIG_HOME", dir->path()}});
  EXPECT_EQ(load_settings("", "", file_only)->base_url, "http://file:1");
  EXPECT_EQ(load_settings("", "", file_only)->api_key, "wrn_file");

  const auto both = environment_of(
      {{"XDG_CONFIG_HOME", dir->path()}, {"WRENN_BASE_URL", "http://env:2"}, {"WRENN_API_KEY", "wrn_env"}});
  EXPECT_EQ(load_settings("", "", both)->base_url, "http://env:2");
  EXPECT_EQ(load_settings("", "", both)->api_key, "wrn_env");
  EXPECT_EQ(load_settings("http://flag:3", "wrn_flag", both)->base_url, "http://flag:3");
  EXPECT_EQ(load_settings("http://flag:3", "wrn_flag", both)->api_key, "wrn_flag");
}

TEST(Settings, StoredKeyIsNotSentElsewhere) {
  auto dir = sys::TempDir::make(kBlocking);
  ASSERT_TRUE(dir);
  ASSERT_TRUE(save_credentials(dir->path() + "/wrenn/credentials", {"http://localhost:8000", "wrn_file"}));
  const auto environment = environment_of({{"XDG_CONFIG_HOME", dir->path()}});
  EXPECT_EQ(load_settings("http://evil.example", "", environment)->api_key, "");
  EXPECT_EQ(load_settings("http://127.0.0.1:9000", "", environment)->api_key, "wrn_file");
}

TEST(Settings, DefaultsWithoutAnything) {
  const auto settings = load_settings("", "", environment_of({}));
  ASSERT_TRUE(settings);
  EXPECT_EQ(settings->base_url, "http://localhost:8000");
  EXPECT_EQ(settings->api_key, "");
}

TEST(Settings, CommentsAndSpacesInTheFile) {
  const Settings settings =
      parse_credentials("# key\n WRENN_API_KEY = wrn_1 \n\nOTHER=x\nWRENN_BASE_URL=http://a");
  EXPECT_EQ(settings.api_key, "wrn_1");
  EXPECT_EQ(settings.base_url, "http://a");
}

}  // namespace
}  // namespace wrenn::cli
