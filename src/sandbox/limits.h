#pragma once

#include <cstddef>
#include <cstdint>

#include "async/task.h"
#include "model/limits.h"
#include "vmm/limits.h"

namespace wrenn::sandbox {

inline constexpr std::uint64_t kMiB = 1024 * 1024;

inline constexpr std::uint64_t kDiskBytes = 5 * 1024 * kMiB;
// Left free on the snapshot filesystem after a pause.
inline constexpr std::uint64_t kDiskReserveBytes = 64 * kMiB;
// Template snapshots: their part of the disk unless a setting says otherwise, how many builds run or wait
// beside the sandboxes, and how often what is made of an image begins anew when the image was replaced
// meanwhile.
inline constexpr std::uint64_t kTemplateCacheShare = 10;  // a tenth
inline constexpr int kMaxTemplateBuilds = 8;
// What must be free for a build, beside kDiskReserveBytes: more than what the guest of the minimal image
// writes.
inline constexpr std::uint64_t kTemplateSpaceBytes = 256 * kMiB;
inline constexpr int kImageTries = 3;
// Kept back on the sandboxes' filesystem for their journals: room for a thousand of them.
inline constexpr std::uint64_t kJournalReserveBytes = 4 * kMiB;

inline constexpr std::size_t kMaxExecOutputBytes = 8 * kMiB;
// Of all commands of one sandbox whose output the agent collects at a time.
inline constexpr std::size_t kMaxCollectedBytes = 64 * kMiB;
inline constexpr std::size_t kMaxFileBytes = 100 * kMiB;
inline constexpr std::size_t kFileChunkBytes = 64 * 1024;
inline constexpr std::size_t kMaxUploadChunkBytes = kMiB;

// What a guest may answer, which may be hostile: to a plain call, as one event of a process (which carries at
// most 32 KiB of output), and as a list, which is read entry by entry.
inline constexpr std::size_t kMaxEnvdAnswerBytes = 64 * 1024;
inline constexpr std::size_t kMaxGuestEventBytes = 64 * 1024;
inline constexpr std::size_t kMaxGuestListBytes = 16 * kMiB;
inline constexpr std::size_t kMaxGuestListEntries = 100'000;
inline constexpr std::size_t kMaxFileEntryBytes = 64 * 1024;
inline constexpr std::size_t kMaxProcessEntryBytes = 256 * 1024;
// Of one sandbox at a time: streams of its processes, and lists, which are long.
inline constexpr long kMaxGuestStreams = 256;
inline constexpr std::uint64_t kMaxGuestLists = 2;

inline constexpr std::size_t kMinTokenBytes = 32;
inline constexpr std::size_t kMaxTokenBytes = 128;
inline constexpr std::uint16_t kEnvdPort = 49983;

inline constexpr Milliseconds kReapTick{2'000};
inline constexpr std::size_t kMaxParallelPauses = 4;
// A pause that failed is not tried again by the reaper before this has passed.
inline constexpr Milliseconds kPauseRetry{15'000};
inline constexpr Milliseconds kBuildRetry{60'000};
// Sandboxes that are looked at, taken over or saved beside each other at an agent's start and end.
inline constexpr std::size_t kParallelRecoveries = 16;
// How often a sandbox that is kept in error is looked at again when its fault may pass, how many beside each
// other, and how long the watch over a VM rests after it failed to watch.
inline constexpr Milliseconds kMendPeriod{2'000};
inline constexpr std::size_t kMaxParallelMends = 4;
inline constexpr Milliseconds kWatchRetry{1'000};

inline constexpr Milliseconds kLockLimit{2'000};
inline constexpr Milliseconds kLockPoll{20};
// Guests that start at a time, for each processor: enough to keep it busy while some read, few enough that
// each answers long before kInitLimit.
inline constexpr unsigned kStartsPerProcessor = 4;
inline constexpr Milliseconds kStartQueueLimit{120'000};
inline constexpr Milliseconds kBootLimit{60'000};
inline constexpr Milliseconds kInitLimit{20'000};
inline constexpr std::size_t kEntropyBytes = 64;  // with each /init
// A guest that has been started and does not answer keeps its place among those that start for this long.
inline constexpr Milliseconds kStartPlaceLimit{10'000};
// How often a resume queues for a place while other transitions of its sandbox overtake it.
inline constexpr int kResumeTries = 3;
// A guest's clock is set again while it may be further off than this, but not more often.
inline constexpr Milliseconds kClockGoal{40};
inline constexpr int kInitRounds = 4;
inline constexpr Milliseconds kQuiesceLimit{5'000};
// Before a pause: what a guest keeps to itself when its free memory is taken, from how much written memory on
// that is worth the time, and the time.
inline constexpr std::uint64_t kGuestReserveBytes = 32 * kMiB;
inline constexpr std::uint64_t kReclaimWorthBytes = 64 * kMiB;
inline constexpr Milliseconds kReclaimLimit{2'000};
// The guest's clock runs until the VM stands still, and from its resume on.
static_assert(kQuiesceLimit + kReclaimLimit + vmm::kCommandLimit + kInitLimit < model::kGuestFreezeLimit,
              "a resumed guest's processes would run before its /init");
inline constexpr Milliseconds kKillProcessLimit{5'000};
// Who leaves while a process starts waits this long for its number, to have it killed.
inline constexpr Milliseconds kStartGrace{2'000};
// A guest says at once that a process runs, or why not.
inline constexpr Milliseconds kProcessStartLimit{30'000};
inline constexpr Milliseconds kGuestCallLimit{5'000};
inline constexpr Milliseconds kGuestListLimit{60'000};  // large trees
// Samples of what a sandbox uses: fine ones for 10 minutes, averages for 2 hours and for a day.
inline constexpr Milliseconds kSamplePeriod{500};
inline constexpr std::size_t kFineSamples = 1200;
inline constexpr std::size_t kSamplesPerMiddle = 60;  // 30 s
inline constexpr std::size_t kMiddleSamples = 240;
inline constexpr std::size_t kMiddlesPerCoarse = 10;  // 5 min
inline constexpr std::size_t kCoarseSamples = 288;
inline constexpr Milliseconds kTransitionWait{10'000};
// How often operations that must end are told so, and from when on that is worth a line in the log.
inline constexpr Milliseconds kDropPeriod{500};
inline constexpr Milliseconds kSlowDrop{5'000};
inline constexpr Milliseconds kWarmUpLimit{30'000};

}  // namespace wrenn::sandbox
