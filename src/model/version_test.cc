#include "model/version.h"

#include <gtest/gtest.h>

namespace wrenn::model {
namespace {

TEST(Version, IsReadFromText) {
  EXPECT_EQ(parse_version("6.18.44-fc-v669"), (Version{6, 18, 44}));
  EXPECT_EQ(parse_version("6.1-rc3"), (Version{6, 1, 0}));
  EXPECT_EQ(parse_version("10.0."), (Version{10, 0, 0}));
  for (const char* bad : {"", "6", "6.", ".7", "v1.2.3", "-1.2", "1.-2", " 1.2", "99999999999999.1"}) {
    EXPECT_EQ(parse_version(bad), std::nullopt) << bad;
  }
  EXPECT_EQ(version_after("QEMU emulator version 7.2.19 (Debian 1:7.2)\nCopyright", "version "),
            (Version{7, 2, 19}));
  EXPECT_EQ(firecracker_version("Firecracker v1.12.1\n\nSupported snapshot data format versions: v7.0.0\n"),
            (Version{1, 12, 1}));
  EXPECT_EQ(firecracker_version("Firecracker v1.15.0-dev"), (Version{1, 15, 0}));
  EXPECT_EQ(version_after("command not found", "version "), std::nullopt);
  EXPECT_EQ(version_after("version ", "version "), std::nullopt);
  EXPECT_LT((Version{6, 9, 9}), (Version{7, 2, 0}));
  EXPECT_EQ((Version{1, 14, 4}).text(), "1.14.4");
}

TEST(Version, SomeFirecrackersAreRefused) {
  for (const Version& safe : {Version{1, 12, 0}, Version{1, 12, 1}, Version{1, 14, 4}, Version{1, 15, 1},
                              Version{1, 16, 0}, Version{2, 0, 0}}) {
    EXPECT_EQ(why_refused(safe), "") << safe.text();
  }
  for (const Version& refused : {Version{0, 25, 0}, Version{1, 6, 9}, Version{1, 11, 9}, Version{1, 13, 0},
                                 Version{1, 13, 9}, Version{1, 14, 3}, Version{1, 15, 0}}) {
    EXPECT_NE(why_refused(refused), "") << refused.text();
  }
}

}  // namespace
}  // namespace wrenn::model
