#include "control/settings.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <map>

namespace wrenn::control {
namespace {

class SettingsTest : public testing::Test {
 public:
  ~SettingsTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

 protected:
  SettingsTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "wrenn-settings-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    env_["WRENN_DIR"] = folder_;
  }
  Result<Settings> read() {
    return read_settings(async::Blocking::without_loop(),
                         [this](const std::string& name) -> std::optional<std::string> {
                           const auto it = env_.find(name);
                           if (it == env_.end()) return std::nullopt;
                           return it->second;
                         });
  }
  std::string folder_;
  std::map<std::string, std::string> env_;
};

TEST_F(SettingsTest, DefaultsMakeTheSecretOnce) {
  const auto first = read();
  ASSERT_TRUE(first) << first.error().message();
  EXPECT_EQ(first->database_url, folder_ + "/wrenn.db");
  EXPECT_EQ(first->listen.port, 8000);
  EXPECT_EQ(first->agent.port, 50051);
  EXPECT_GE(first->agent_secret.size(), 32U);
  struct stat info{};
  ASSERT_EQ(::stat((folder_ + "/agent.secret").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  EXPECT_EQ(read()->agent_secret, first->agent_secret);
}

TEST_F(SettingsTest, WrongValuesNameTheVariable) {
  env_["CP_LISTEN_ADDR"] = "nonsense::1:2:3";
  ASSERT_FALSE(read());
  EXPECT_NE(read().error().message().find("CP_LISTEN_ADDR"), std::string::npos);
  env_.erase("CP_LISTEN_ADDR");
  env_["CP_TRUSTED_PROXIES"] = "10.0.0.0/8, proxy.test";
  ASSERT_FALSE(read());
  EXPECT_NE(read().error().message().find("CP_TRUSTED_PROXIES"), std::string::npos);
  env_["CP_TRUSTED_PROXIES"] = "10.0.0.0/8, ::1";
  EXPECT_TRUE(read()->proxies.covers("10.9.9.9"));
  env_.erase("CP_TRUSTED_PROXIES");
  EXPECT_FALSE(read()->proxies.covers("127.0.0.1")) << "nobody by default";
  env_["AGENT_SHARED_SECRET"] = "short";
  ASSERT_FALSE(read());
  EXPECT_NE(read().error().message().find("AGENT_SHARED_SECRET"), std::string::npos);
  env_.erase("AGENT_SHARED_SECRET");
  env_["CP_AGENT_TLS_CERT"] = "/c.pem";
  EXPECT_FALSE(read()) << "a certificate without its key";
  env_["CP_AGENT_TLS_KEY"] = "/k.pem";
  EXPECT_FALSE(read()) << "TLS needs https://";
  env_["CP_HOST_AGENT_ADDR"] = "https://host:50051";
  const auto mutual = read();
  ASSERT_TRUE(mutual) << mutual.error().message();
  EXPECT_TRUE(mutual->agent_secret.empty());
}

}  // namespace
}  // namespace wrenn::control
