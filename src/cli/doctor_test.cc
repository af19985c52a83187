#include "cli/doctor.h"

#include <gtest/gtest.h>

#include <set>

#include "cli/doctor_vmm.h"
#include "cli/up.h"
#include "sys/file.h"

namespace wrenn::cli {
namespace {

constexpr auto kBlocking = async::Blocking::without_loop();

Environment variables(std::vector<std::pair<std::string, std::string>> all) {
  return [all](std::string_view name) -> std::optional<std::string> {
    for (const auto& [known, value] : all) {
      if (known == name) return value;
    }
    return std::nullopt;
  };
}

TEST(Doctor, Places) {
  const Places plain = places_of("/w", "/p", variables({}));
  EXPECT_EQ(plain.images, "/w/images");
  EXPECT_EQ(plain.firecracker, "");
  const Places moved =
      places_of("/w", "/p", variables({{"AGENT_IMAGES_PATH", "/i"}, {"AGENT_FIRECRACKER_BIN", "/f"}}));
  EXPECT_EQ(moved.images, "/i");
  EXPECT_EQ(moved.sandboxes, "/w/sandboxes");
  EXPECT_EQ(moved.firecracker, "/f");
}

TEST(Doctor, EveryProblemHasAFix) {
  const auto findings = check_host(places_of("/nonexistent/wrenn", "/nonexistent", process_environment()));
  std::set<std::string> names;
  for (const auto& finding : findings) {
    EXPECT_EQ(finding.fix.empty(), finding.verdict == Verdict::kOk) << finding.name;
    EXPECT_FALSE(finding.detail.empty()) << finding.name;
    EXPECT_FALSE(finding.why.empty()) << finding.name;
    EXPECT_TRUE(names.insert(finding.name).second) << finding.name;
    if (finding.name == "guest image") {
      EXPECT_EQ(finding.verdict, Verdict::kFail);
    }
  }
}

std::optional<Finding> find(const std::vector<Finding>& findings, std::string_view name) {
  for (const auto& finding : findings) {
    if (finding.name == name) return finding;
  }
  return std::nullopt;
}

TEST(Doctor, FindsFirecracker) {
  auto dir = sys::TempDir::make(kBlocking);
  ASSERT_TRUE(dir && sys::mkdirs(dir->path() + "/bin"));
  const auto script = [&](const char* name, const std::string& says) {
    return sys::write_file(kBlocking, dir->path() + "/bin/" + name, "#!/bin/sh\necho '" + says + "'\n", 0755);
  };
  ASSERT_TRUE(script("firecracker", "Firecracker v1.14.3"));
  const auto in_dir = check_monitors(places_of(dir->path(), "/nonexistent", variables({})));
  ASSERT_TRUE(find(in_dir, "Firecracker") && find(in_dir, "jailer"));
  EXPECT_EQ(find(in_dir, "Firecracker")->verdict, Verdict::kFail);
  EXPECT_EQ(find(in_dir, "jailer")->verdict, Verdict::kWarn);

  ASSERT_TRUE(script("jailer", "Jailer v1.14.4") && script("firecracker", "Firecracker v1.14.4"));
  const auto on_path = check_monitors(
      places_of("/nonexistent", "/nonexistent", variables({{"PATH", "/nowhere:" + dir->path() + "/bin"}})));
  ASSERT_TRUE(find(on_path, "Firecracker") && find(on_path, "jailer"));
  EXPECT_EQ(find(on_path, "Firecracker")->verdict, Verdict::kOk);
  EXPECT_EQ(find(on_path, "jailer")->verdict, Verdict::kOk);

  const auto wrong = check_monitors(
      places_of(dir->path(), "/nonexistent", variables({{"AGENT_FIRECRACKER_BIN", "/nonexistent/f"}})));
  ASSERT_TRUE(find(wrong, "Firecracker"));
  EXPECT_EQ(find(wrong, "Firecracker")->verdict, Verdict::kWarn);
  EXPECT_FALSE(find(wrong, "jailer"));
}

TEST(Doctor, Summary) {
  constexpr Check kCheck{"name", "why"};
  EXPECT_EQ(summary({}), "0 ok, 0 warnings, 0 to be fixed");
  EXPECT_EQ(summary({kCheck.ok(""), kCheck.warn("", "f"), kCheck.bad("", "f"), kCheck.ok("")}),
            "2 ok, 1 warning, 1 to be fixed");
}

TEST(UpState, RoundTrip) {
  auto dir = sys::TempDir::make(kBlocking);
  ASSERT_TRUE(dir);
  EXPECT_EQ(load_state(dir->path()).error().code(), Code::kNotFound);
  ASSERT_TRUE(save_state(dir->path(), {{"wrenn", 12, 345}, "http://localhost:1", {{"wrenn-cp", 13, 346}}}));
  const auto state = load_state(dir->path());
  ASSERT_TRUE(state) << state.error().to_string();
  EXPECT_EQ(state->self.pid, 12);
  EXPECT_EQ(state->url, "http://localhost:1");
  ASSERT_EQ(state->children.size(), 1U);
  EXPECT_EQ(state->children[0].start_time, 346U);
  ASSERT_TRUE(sys::write_file(kBlocking, state_path(dir->path()), "{\"self\":1}"));
  EXPECT_EQ(load_state(dir->path()).error().code(), Code::kDataLoss);
}

TEST(UpState, LocalUrls) {
  EXPECT_EQ(*local_url(":8000"), "http://localhost:8000");
  EXPECT_EQ(*local_url("127.0.0.1:9"), "http://localhost:9");
  EXPECT_EQ(*local_url("10.1.2.3:80"), "http://10.1.2.3:80");
  EXPECT_FALSE(local_url("unix:/x"));
}

}  // namespace
}  // namespace wrenn::cli
