#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/async.h"
#include "model/reconcile.h"
#include "model/sandbox.h"

// The control plane's rows, in SQLite or PostgreSQL. Every call runs on the pool with a connection of its
// own; called from the loop only. Errors: kUnavailable with reason "db_unavailable" when the database cannot
// be reached or is too busy, kResourceExhausted "disk_full", else kInternal with reason "db_error".
namespace wrenn::store {

using model::Time;

struct Team {
  std::string id;
  std::string name;
  Time created_at;
};

struct ApiKey {
  std::string id;
  std::string team_id;
  std::string name;
  std::string hash;    // SHA-256 in hex; the key itself is nowhere
  std::string prefix;  // for people to tell keys apart
  Time created_at;
};

struct KeyOwner {
  std::string key_id;
  std::string team_id;
};

// A zero time means "not yet".
struct Sandbox {
  std::string id;
  std::string team_id;
  std::string host_id = "default";
  std::string template_name;
  model::Status status = model::Status::kPending;
  model::Transition transition = model::Transition::kNone;
  Time transition_at;
  model::EndReason end_reason = model::EndReason::kNone;
  std::int64_t version = 1;
  std::int64_t vcpus = model::kDefaultVcpus;
  std::int64_t memory_mb = model::kDefaultMemoryMb;
  std::int64_t timeout_sec = 0;
  std::string guest_ip;
  std::string host_ip;
  Time created_at;
  Time started_at;
  Time last_active_at;
  Time last_updated;
  bool auto_resume = false;    // traffic wakes it
  bool public_traffic = true;  // its ports take requests without the token
  std::string access_token;    // of its guest agent
  model::HostError error;      // of kError
};

// The end of a transition. Empty addresses and zero times leave the row's.
struct Outcome {
  std::string id;
  std::int64_t version = 0;  // as begin_transition answered it; another one: nothing is written
  model::Status status = model::Status::kStopped;
  model::EndReason end_reason = model::EndReason::kNone;
  std::string guest_ip;
  std::string host_ip;
  Time started_at;
  Time last_active_at;
  model::HostError error;  // for kError
};

// A transition this process began.
struct Lease {
  std::string id;
  std::int64_t version = 0;
};

// Rows as the reconciler sees them, and the ids of those that hold words this program does not know, as after
// an upgrade: it leaves them alone, and what a host shows of them.
struct Views {
  std::vector<model::RowView> rows;
  std::vector<std::string> unreadable;
};

class Store {
 public:
  // `url`: "postgres://...", "postgresql://...", or the path of an SQLite file, made if missing, with or
  // without "sqlite://" before it. Does not
  // connect to PostgreSQL yet.
  static Result<std::unique_ptr<Store>> open(std::string url, async::Loop* loop);
  ~Store();

  // Brings the schema to this program's version, one migrator at a time; answers how many steps that took.
  // kFailedPrecondition when the database is newer than the program.
  Task<int> migrate();
  // Answers when the database does.
  Task<> check();

  // In one step: if no API key exists, makes the team (unless there) and the key. True if it did.
  Task<bool> bootstrap(Team team, ApiKey key);
  Task<> insert_team(Team team);
  Task<> insert_key(ApiKey key);
  // The owners of those keys, by hash, that exist.
  Task<std::map<std::string, KeyOwner>> find_keys(std::vector<std::string> hashes);
  Task<> touch_key(std::string key_id, Time now);

  Task<> insert_sandbox(Sandbox sandbox);
  // kNotFound also for another team's.
  Task<Sandbox> get_sandbox(std::string team_id, std::string id);
  // Those that exist, by id, of any team; for traffic, which has no key.
  Task<std::map<std::string, Sandbox>> find_sandboxes(std::vector<std::string> ids);
  // Newest first; at most min(limit, kMaxRows), without unreadable ones. A status narrows the list.
  Task<std::vector<Sandbox>> list_sandboxes(std::string team_id, std::optional<model::Status> status,
                                            std::size_t limit);
  Task<> delete_sandbox(std::string id, std::int64_t version);

  // Marks the row before the host is asked. kFailedPrecondition "invalid_state" from the wrong status,
  // kAborted "busy" while another transition runs.
  Task<Sandbox> begin_transition(std::string team_id, std::string id, model::Transition transition, Time now);
  // False if the row moved on meanwhile.
  Task<bool> finish_transition(Outcome outcome, Time now);
  // The owner's sign of life; a row whose version moved on is somebody else's.
  Task<> renew_transitions(std::vector<Lease> leases, Time now);
  // Later times only.
  Task<> touch_sandboxes(std::vector<std::pair<std::string, Time>> touches);

  // Rows the reconciler must look at: all but ended ones, however many.
  Task<Views> live_rows(std::string host_id);
  // Ended rows among `ids`.
  Task<Views> ended_rows(std::vector<std::string> ids);
  // Whether a row with this id has not ended: its VM must not be swept.
  Task<bool> is_live(std::string id);

 private:
  struct State;
  explicit Store(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace wrenn::store
