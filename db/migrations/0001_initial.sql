-- Times are milliseconds since the Unix epoch; 0 means "not yet". The same text runs on SQLite and PostgreSQL.
CREATE TABLE teams (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  created_at BIGINT NOT NULL
);
CREATE TABLE team_api_keys (
  id TEXT PRIMARY KEY,
  team_id TEXT NOT NULL REFERENCES teams (id),
  name TEXT NOT NULL,
  key_hash TEXT NOT NULL UNIQUE,
  key_prefix TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  last_used BIGINT NOT NULL DEFAULT 0
);
CREATE TABLE sandboxes (
  id TEXT PRIMARY KEY,
  team_id TEXT NOT NULL REFERENCES teams (id),
  host_id TEXT NOT NULL DEFAULT 'default',
  template TEXT NOT NULL,
  status TEXT NOT NULL,
  transition TEXT NOT NULL DEFAULT '',
  transition_at BIGINT NOT NULL DEFAULT 0,
  end_reason TEXT NOT NULL DEFAULT '',
  version BIGINT NOT NULL DEFAULT 1,
  vcpus BIGINT NOT NULL,
  memory_mb BIGINT NOT NULL,
  timeout_sec BIGINT NOT NULL,
  guest_ip TEXT NOT NULL DEFAULT '',
  host_ip TEXT NOT NULL DEFAULT '',
  created_at BIGINT NOT NULL,
  started_at BIGINT NOT NULL DEFAULT 0,
  last_active_at BIGINT NOT NULL DEFAULT 0,
  last_updated BIGINT NOT NULL
);
CREATE INDEX sandboxes_team ON sandboxes (team_id, created_at);
CREATE INDEX sandboxes_host_status ON sandboxes (host_id, status);
