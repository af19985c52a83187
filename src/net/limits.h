#pragma once

#include <cstddef>
#include <cstdint>

#include "async/task.h"

namespace wrenn::net {

// Read buffer of a connection: starts small (many connections are idle), grows while a peer fills it.
inline constexpr std::size_t kReadBufferBytes = 8 * 1024;
inline constexpr std::size_t kMaxReadBufferBytes = 64 * 1024;
// Head of a response, and the chunk framing and trailers between two pieces of a body.
inline constexpr std::size_t kMaxResponseHeaderBytes = 64 * 1024;
// Fields of one head, and so what any walk over them costs.
inline constexpr std::size_t kMaxHeaderFields = 200;
// Rest of a request body that is read and thrown away so that the connection can serve again.
inline constexpr std::uint64_t kMaxDrainBytes = 256 * 1024;
// Bodies up to this size leave in one write together with their head.
inline constexpr std::size_t kMaxJoinedBodyBytes = 16 * 1024;
// A connection closed by the server is read this long so that the client gets the answer before a reset.
inline constexpr Milliseconds kLingerTime{1'000};
inline constexpr std::size_t kMaxWebSocketMessageBytes = 1024 * 1024;
inline constexpr Milliseconds kWebSocketCloseTime{5'000};
inline constexpr std::size_t kMaxPartHeaderBytes = 16 * 1024;
inline constexpr std::size_t kMaxParts = 1024;            // of a multipart body
inline constexpr std::size_t kMaxRelayConnections = 512;  // of one port; more wait
inline constexpr Milliseconds kRelayPause{50};
// Extensions and trailers of one chunked body.
inline constexpr std::size_t kMaxChunkSkippedBytes = 16 * 1024;
// Interim (1xx) responses before the real one.
inline constexpr int kMaxInterimResponses = 16;
// A client that has ended its side, and to whom nothing was sent for this long, is taken for gone.
inline constexpr Milliseconds kHalfClosedQuiet{10'000};
// The answer to a request to upgrade.
inline constexpr Milliseconds kUpgradeAnswerLimit{60'000};
inline constexpr int kListenBacklog = 1024;
// A peer that takes nothing of what is written for this long is given up.
inline constexpr Milliseconds kWriteStallLimit{120'000};
// TCP asks a silent peer after the first time, then each second time; one that has not answered, or has taken
// nothing, for the last has vanished.
inline constexpr int kKeepAliveIdleSec = 30;
inline constexpr int kKeepAliveProbeSec = 10;
inline constexpr Milliseconds kPeerGoneLimit{120'000};
// A tunnel of which one direction has ended, without traffic in the other.
inline constexpr Milliseconds kHalfTunnelQuiet{60'000};
// An accept that failed for want of descriptors or memory is tried again, and told in the log, after these.
inline constexpr Milliseconds kAcceptPause{50};
inline constexpr Milliseconds kAcceptLogPeriod{10'000};

}  // namespace wrenn::net
