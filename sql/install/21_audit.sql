-- The audit log. Only the background writer adds to it, and seals what it adds in the same transaction.

CREATE TABLE meshhook_secrets.audit_log (
  id               bigint NOT NULL,
  time             timestamptz NOT NULL,
  action           text NOT NULL,
  outcome          text NOT NULL,
  sqlstate         text,
  project_id       uuid,
  secret_id        uuid,
  name             text COLLATE "C",
  version          integer,
  kek_id           integer,
  purpose          text,
  detail           text,
  actor            text NOT NULL,
  actor_role       text,
  claimed_sub      text,
  claimed_role     text,
  client_address   text,
  application_name text,
  request_id       text,
  transaction_id   bigint,
  times            integer NOT NULL
) PARTITION BY RANGE (time);
-- Keys and indexes are on each partition (audit_make_partition): pg_dump attaches the partitions before it
-- makes their indexes, and could not if they came from here.
-- The first partition changes the row of the parent in pg_class; from then on none does, and no GRANT ON ALL
-- TABLES collides with the writer's making one.
CREATE TABLE meshhook_secrets.audit_log_first PARTITION OF meshhook_secrets.audit_log FOR VALUES FROM ('2000-01-01') TO ('2000-01-02');
DROP TABLE meshhook_secrets.audit_log_first;
COMMENT ON TABLE meshhook_secrets.audit_log IS 'Who did what when; never a value. A partition for each month (UTC), made by the writer. Read it with audit_search.';
COMMENT ON COLUMN meshhook_secrets.audit_log.id IS 'Grows in the order of writing: microseconds since 2000-01-01 when it was sealed, or more.';
COMMENT ON COLUMN meshhook_secrets.audit_log.outcome IS 'ok, denied, not_found or error.';
COMMENT ON COLUMN meshhook_secrets.audit_log.actor IS 'The user who connected, or system.';
COMMENT ON COLUMN meshhook_secrets.audit_log.actor_role IS 'The role whose rights counted.';
COMMENT ON COLUMN meshhook_secrets.audit_log.claimed_sub IS 'sub of the JWT as the session claimed it: any SQL session can claim anything.';
COMMENT ON COLUMN meshhook_secrets.audit_log.times IS 'More than 1: so many repeats of a failure within a minute.';

CREATE TABLE meshhook_secrets.audit_pending (
  pending_id    uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
  ring_id       bigint,
  ring_position bigint,
  record        bytea NOT NULL
);
-- Rows stay for milliseconds: what they leave behind is to be cleaned up before it is much.
ALTER TABLE meshhook_secrets.audit_pending SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE meshhook_secrets.audit_pending IS 'Records that are not sealed yet: of changes, written in their own transaction, until the writer takes them over; while the server is sealed, all.';

CREATE TABLE meshhook_secrets.audit_seals (
  seal_id       bigint PRIMARY KEY,
  previous_id   bigint NOT NULL,
  previous_mac  bytea NOT NULL,
  from_id       bigint NOT NULL,
  records       integer NOT NULL,
  digest        bytea NOT NULL,
  month         timestamptz NOT NULL,
  key_version   integer NOT NULL,
  ring_id       bigint NOT NULL,
  ring_position bigint NOT NULL,
  sealed_at     timestamptz NOT NULL,
  mac           bytea NOT NULL
);
COMMENT ON TABLE meshhook_secrets.audit_seals IS 'A seal for each batch of records: HMAC-SHA-256 over their digest and the seal before it.';
COMMENT ON COLUMN meshhook_secrets.audit_seals.seal_id IS 'The id of the last record that it covers.';

CREATE TABLE meshhook_secrets.audit_head (
  one           boolean PRIMARY KEY DEFAULT true CHECK (one),
  seal_id       bigint NOT NULL,
  seal_mac      bytea NOT NULL,
  anchor_id     bigint NOT NULL,
  anchor_mac    bytea NOT NULL,
  pruned_before timestamptz,
  pruned_seal   bigint NOT NULL,
  server_event  timestamptz,
  key_version   integer NOT NULL,
  mac           bytea NOT NULL
);
COMMENT ON TABLE meshhook_secrets.audit_head IS 'Where the chain of seals ends and, once pruned, begins.';

CREATE TABLE meshhook_secrets.audit_keys (
  key_version   integer PRIMARY KEY CHECK (key_version OPERATOR(pg_catalog.>) 0),
  key_encrypted bytea NOT NULL,
  root_key_id   text NOT NULL,
  created_at    timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE meshhook_secrets.audit_keys IS 'Audit keys, which make the MACs of the seals, each wrapped by the root key.';
COMMENT ON COLUMN meshhook_secrets.audit_keys.key_encrypted IS 'Envelope of 74 bytes, bound to key_version and root_key_id.';

-- The partitions are no members of the extension, so pg_dump carries them and their rows by itself.
SELECT pg_catalog.pg_extension_config_dump('meshhook_secrets.audit_pending', '');
SELECT pg_catalog.pg_extension_config_dump('meshhook_secrets.audit_seals', '');
SELECT pg_catalog.pg_extension_config_dump('meshhook_secrets.audit_head', '');
SELECT pg_catalog.pg_extension_config_dump('meshhook_secrets.audit_keys', '');
