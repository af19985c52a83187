#include "agent/config.h"

#include <gtest/gtest.h>

#include <map>

#include "sys/file.h"

namespace wrenn::agent {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

class AgentConfigTest : public testing::Test {
 protected:
  AgentConfigTest() { env_["WRENN_DIR"] = dir_.path(); }
  Result<AgentConfig> read() {
    return read_config(kBlocking, [this](const std::string& name) -> std::optional<std::string> {
      const auto it = env_.find(name);
      if (it == env_.end()) return std::nullopt;
      return it->second;
    });
  }
  sys::TempDir dir_ = *sys::TempDir::make(kBlocking);
  std::map<std::string, std::string> env_;
};

TEST_F(AgentConfigTest, DefaultsAreLoopbackWithAGeneratedSecret) {
  const auto config = read();
  ASSERT_TRUE(config) << config.error().to_string();
  EXPECT_EQ(config->listen.host, "127.0.0.1");
  EXPECT_EQ(config->listen.port, 50051);
  EXPECT_EQ(config->sandbox.images_dir, dir_.path() + "/images");
  EXPECT_EQ(config->secret.size(), 64u);
  EXPECT_EQ(read()->secret, config->secret);
}

TEST_F(AgentConfigTest, RefusesToOpenItselfToANetworkWithoutTls) {
  env_["AGENT_LISTEN_ADDR"] = "0.0.0.0:50051";
  ASSERT_FALSE(read());
  EXPECT_EQ(read().error().code(), Code::kInvalidArgument);
  env_["AGENT_ALLOW_INSECURE"] = "true";
  EXPECT_TRUE(read());
}

TEST_F(AgentConfigTest, RefusesShortSecrets) {
  env_["AGENT_SHARED_SECRET"] = std::string(31, 'x');
  EXPECT_FALSE(read());
  env_["AGENT_SHARED_SECRET"] = std::string(32, 'x');
  EXPECT_TRUE(read());
}

TEST_F(AgentConfigTest, RefusesHalfATlsPairAndBadNumbers) {
  env_["AGENT_TLS_CERT"] = "/cert.pem";
  EXPECT_FALSE(read());
  env_.erase("AGENT_TLS_CERT");
  env_["AGENT_READY_SLOTS"] = "65";
  EXPECT_FALSE(read());
  env_["AGENT_READY_SLOTS"] = "4";
  EXPECT_EQ(read()->sandbox.limits.network_bytes_per_sec, 200U << 20U);
  env_["AGENT_NETWORK_MIB_PER_SEC"] = "4096";
  EXPECT_FALSE(read());
  env_["AGENT_NETWORK_MIB_PER_SEC"] = "0";
  EXPECT_EQ(read()->sandbox.network.bytes_per_sec, 0U);
  env_["AGENT_READY_SLOTS"] = "x";
  EXPECT_FALSE(read());
}

}  // namespace
}  // namespace wrenn::agent
