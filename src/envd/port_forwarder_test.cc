#include "envd/port_forwarder.h"

#include <gtest/gtest.h>

namespace wrenn::envd {
namespace {

TEST(LoopbackPorts, AreThoseNobodyElseSees) {
  const std::string header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n";
  const std::string tcp = header +
                          "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000\n"
                          "   1: 00000000:C34F 00000000:0000 0A 00000000:00000000 00:00000000 00000000\n"
                          "   2: 0100007F:0050 0100007F:9999 01 00000000:00000000 00:00000000 00000000\n"
                          "   3: 0100007F:C34F 00000000:0000 0A 00000000:00000000 00:00000000 00000000\n"
                          "   4: 1500FEA9:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000\n";
  const std::string tcp6 = header +
                           "   0: 00000000000000000000000001000000:0BB8 "
                           "00000000000000000000000000000000:0000 0A 00000000:00000000\n"
                           "   1: 00000000000000000000000000000000:0BB9 "
                           "00000000000000000000000000000000:0000 0A 00000000:00000000\n";
  EXPECT_EQ(parse_loopback_ports(tcp, tcp6), (LoopbackPorts{{8080, "127.0.0.1"}, {3000, "::1"}}));
  EXPECT_TRUE(parse_loopback_ports("garbage\n 1: x:y z 0A", "").empty());
}

}  // namespace
}  // namespace wrenn::envd
