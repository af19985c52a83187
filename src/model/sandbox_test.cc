#include "model/sandbox.h"

#include <gtest/gtest.h>

namespace wrenn::model {
namespace {

TEST(Names, RoundTrip) {
  for (Status status : {Status::kPending, Status::kRunning, Status::kPaused, Status::kStopped, Status::kError,
                        Status::kMissing}) {
    EXPECT_EQ(status_from_name(status_name(status)), status);
  }
  for (HostStatus status : {HostStatus::kStarting, HostStatus::kRunning, HostStatus::kPausing,
                            HostStatus::kPaused, HostStatus::kResuming, HostStatus::kStopping}) {
    EXPECT_EQ(host_status_from_name(host_status_name(status)), status);
  }
  EXPECT_EQ(status_from_name("hibernated"), std::nullopt);
  EXPECT_EQ(transition_from_name(""), Transition::kNone);
  EXPECT_EQ(end_reason_from_name("lost"), EndReason::kLost);
}

TEST(Transitions, OnlyFromTheRightStatus) {
  EXPECT_TRUE(can_begin(Status::kRunning, Transition::kPausing));
  EXPECT_FALSE(can_begin(Status::kPaused, Transition::kPausing));
  EXPECT_TRUE(can_begin(Status::kPaused, Transition::kResuming));
  EXPECT_FALSE(can_begin(Status::kRunning, Transition::kResuming));
  EXPECT_FALSE(can_begin(Status::kStopped, Transition::kResuming));
  EXPECT_TRUE(can_begin(Status::kError, Transition::kDestroying));
  EXPECT_FALSE(can_begin(Status::kError, Transition::kResuming)) << "nothing is left of a failed creation";
  EXPECT_TRUE(can_begin(Status::kError, Transition::kResuming, true)) << "what a host keeps may be tried";
  EXPECT_FALSE(can_begin(Status::kError, Transition::kPausing, true));
  EXPECT_EQ(status_after(Transition::kPausing), Status::kPaused);
  EXPECT_EQ(status_after(Transition::kResuming), Status::kRunning);
  EXPECT_EQ(status_after(Transition::kDestroying), Status::kStopped);
}

TEST(IdleExpired, CountsFromTheLastActivity) {
  using std::chrono::milliseconds;
  EXPECT_FALSE(idle_expired(seconds(5), milliseconds(4'999), false));
  EXPECT_TRUE(idle_expired(seconds(5), milliseconds(5'000), false));
  EXPECT_FALSE(idle_expired(seconds(5), milliseconds(899'000), true)) << "busy is active";
  EXPECT_FALSE(idle_expired(seconds(0), milliseconds(1'000'000'000), false)) << "0 is never";
}

TEST(Checks, NameTheFieldAndTheRange) {
  auto bad = check_vcpus(33);
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code(), Code::kInvalidArgument);
  EXPECT_EQ(bad.error().field(), "vcpus");
  EXPECT_NE(bad.error().message().find("between 1 and 32"), std::string::npos) << bad.error().message();
  EXPECT_TRUE(check_vcpus(1) && check_vcpus(32));
  EXPECT_FALSE(check_vcpus(0));
  EXPECT_TRUE(check_memory_mb(128) && check_memory_mb(65'536));
  EXPECT_FALSE(check_memory_mb(127) || check_memory_mb(65'537));
  EXPECT_TRUE(check_timeout_sec(0) && check_timeout_sec(31'536'000));
  EXPECT_FALSE(check_timeout_sec(-1) || check_timeout_sec(31'536'001));
}

TEST(Checks, Names) {
  for (const char* good : {"minimal", "a", "9", "code-runner-beta", "a.b_c-d"}) {
    EXPECT_TRUE(check_name("template", good)) << good;
  }
  for (const std::string& bad :
       {std::string(), std::string("-a"), std::string(".."), std::string("a/b"), std::string("a b"),
        std::string("a\0b", 3), std::string(65, 'a'), std::string("ü")}) {
    EXPECT_FALSE(check_name("template", bad)) << bad;
  }
  EXPECT_TRUE(check_name("template", std::string(64, 'a')));
}

TEST(Checks, PathsAndIds) {
  EXPECT_TRUE(check_path("path", "/tmp/a b"));
  EXPECT_FALSE(check_path("path", ""));
  EXPECT_FALSE(check_path("path", std::string("/a\0b", 4)));
  EXPECT_FALSE(check_path("path", std::string(4'097, 'a')));
  EXPECT_TRUE(is_sandbox_id("sb-abc234"));
  EXPECT_FALSE(is_sandbox_id("../x"));
  EXPECT_FALSE(is_sandbox_id(""));
}

}  // namespace
}  // namespace wrenn::model
