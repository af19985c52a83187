#pragma once

#include <cstddef>
#include <cstdint>

#include "async/task.h"

namespace wrenn::control {

inline constexpr std::size_t kMaxJsonBytes = 1024 * 1024;
inline constexpr std::size_t kMaxEnvs = 256;
inline constexpr std::int64_t kMaxListDepth = 64;
inline constexpr std::size_t kMaxFrameTypeBytes = 64;  // of a WebSocket frame
inline constexpr std::size_t kMaxJsonDepth = 32;
inline constexpr std::uint64_t kMaxBufferedFileBytes =
    100ULL * 1024 * 1024;                                              // files/write; streams have none
inline constexpr std::size_t kMaxExecOutputBytes = 8 * 1024 * 1024;    // stdout + stderr of one exec
inline constexpr std::size_t kMaxHeldAnswerBytes = 256 * 1024 * 1024;  // of all teams' answers at once
inline constexpr std::size_t kOutputBlockBytes = 60 * 1024;
inline constexpr std::size_t kAnswerPieceBytes = 64 * 1024;
inline constexpr std::size_t kMaxListBytes = 32 * 1024 * 1024;  // of one folder's or process list
inline constexpr std::size_t kMaxListEntries = 100'000;
inline constexpr std::size_t kMaxListEntryBytes = 256 * 1024;  // a process's arguments are the longest
inline constexpr std::size_t kChunkBytes = 64 * 1024;
inline constexpr std::size_t kMaxAgentMessageBytes = 4 * 1024 * 1024;
inline constexpr std::size_t kMaxAgentListBytes = 64 * 1024 * 1024;
// Further requests get 503.
inline constexpr std::size_t kMaxTransitions = 1'024;        // running at once
inline constexpr std::size_t kMaxTeamTransitions = 256;      // of one team
inline constexpr std::size_t kMaxWaitingDestroys = 1'024;    // sandboxes
inline constexpr std::size_t kMaxTeamWaitingDestroys = 256;  // of one team
inline constexpr std::size_t kMaxSweepsAtOnce = 4;
inline constexpr std::size_t kMaxCachedKeys = 10'000;
inline constexpr std::size_t kMaxTrackedNetworks = 10'000;
inline constexpr int kMaxAuthFailures = 30;          // of one network in kAuthWindow
inline constexpr std::size_t kMaxLookupBatch = 256;  // of one query
inline constexpr std::size_t kMaxWakes = 256;        // of sandboxes by traffic, at once
inline constexpr std::size_t kDefaultListLimit = 1'000;
inline constexpr std::size_t kMaxListLimit = 10'000;
inline constexpr std::uint64_t kMaxDrainBytes = 256ULL * 1024 * 1024;  // read on after an early refusal

inline constexpr Milliseconds kTransitionDeadline{300'000};
inline constexpr Milliseconds kAgentCallDeadline{15'000};
inline constexpr Milliseconds kAgentFilesDeadline{60'000};  // large trees
inline constexpr Milliseconds kBodyReadDeadline{60'000};    // between two pieces of a client's body
inline constexpr Milliseconds kBodyWriteDeadline{120'000};  // a client that stopped reading
inline constexpr Milliseconds kAgentDataDeadline{120'000};
inline constexpr Milliseconds kSocketAuthDeadline{5'000};
inline constexpr Milliseconds kSocketPingPeriod{30'000};
inline constexpr Milliseconds kPtyStartDeadline{30'000};
inline constexpr Milliseconds kPtyCallDeadline{8'000};  // input, resize, kill
inline constexpr Milliseconds kSocketStartDeadline{30'000};
inline constexpr Milliseconds kDrainDeadline{10'000};
inline constexpr Milliseconds kReconcilePeriod{5'000};
inline constexpr Milliseconds kMinPassPause{500};  // between passes that requests asked for
inline constexpr Milliseconds kSyncWait{15'000};   // of a request, for a pass
inline constexpr Milliseconds kHeartbeatPeriod{5'000};
inline constexpr Milliseconds kKeyCacheTime{10'000};
inline constexpr Milliseconds kHealthCacheTime{1'000};
inline constexpr Milliseconds kAuthWindow{60'000};
inline constexpr Milliseconds kWakeDeadline{60'000};  // of a paused sandbox that traffic wants
inline constexpr Milliseconds kWakePause{100};
inline constexpr Milliseconds kDestroyWait{60'000};       // for another transition to end
inline constexpr Milliseconds kTurnPoll{2'000};           // of one sandbox that a DELETE waits for
inline constexpr Milliseconds kOutcomeRetryTime{60'000};  // writing a result while the database is away
inline constexpr Milliseconds kShutdownGrace{10'000};
inline constexpr Milliseconds kStopPoll{50};
inline constexpr Milliseconds kLastFlushTime{3'000};  // of activity, at the end

}  // namespace wrenn::control
