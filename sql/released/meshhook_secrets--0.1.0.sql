\echo Use "CREATE EXTENSION meshhook_secrets" to load this file. \quit

-- What must be true before anything is created.
DO $guard$
BEGIN
  -- Values are sealed as UTF-8, and a dump may be restored into any other database.
  IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
    RAISE EXCEPTION 'meshhook_secrets needs a database with encoding UTF8'
      USING ERRCODE = '0A000', HINT = 'CREATE DATABASE ... ENCODING ''UTF8'' TEMPLATE template0.';
  END IF;
  -- Whoever owns the schema could plant functions in it.
  IF (SELECT n.nspowner FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) 'meshhook_secrets')
     OPERATOR(pg_catalog.<>)
     (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) CURRENT_USER) THEN
    RAISE EXCEPTION 'schema meshhook_secrets belongs to another role'
      USING ERRCODE = '42501', HINT = 'Drop or rename that schema, then try again.';
  END IF;
END
$guard$;
-- Roles are of the whole cluster: another database may have made them already.
DO $roles$
DECLARE
  role_name text;
BEGIN
  FOREACH role_name IN ARRAY ARRAY['meshhook_secrets_writer', 'meshhook_secrets_reader', 'meshhook_secrets_kek_admin', 'meshhook_secrets_auditor'] LOOP
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) role_name) THEN
      BEGIN
        EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', role_name);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL; -- another database was faster
      END;
    END IF;
  END LOOP;
END
$roles$;

-- What default privileges give to others is taken back at the end (99_grants.sql); what they give to our
-- own roles could not be told from what we grant.
DO $defaults$
BEGIN
  IF EXISTS (
      SELECT FROM pg_catalog.pg_default_acl d, pg_catalog.aclexplode(d.defaclacl) a, pg_catalog.pg_roles r
      WHERE r.oid OPERATOR(pg_catalog.=) a.grantee
        AND d.defaclrole OPERATOR(pg_catalog.=) (SELECT u.oid FROM pg_catalog.pg_roles u WHERE u.rolname OPERATOR(pg_catalog.=) CURRENT_USER)
        AND r.rolname OPERATOR(pg_catalog.=) ANY (ARRAY['meshhook_secrets_writer', 'meshhook_secrets_reader', 'meshhook_secrets_kek_admin', 'meshhook_secrets_auditor']::pg_catalog.name[])) THEN
    RAISE EXCEPTION 'default privileges grant to roles of meshhook_secrets'
      USING ERRCODE = '42501', HINT = 'ALTER DEFAULT PRIVILEGES ... REVOKE ... FROM these roles, then try again.';
  END IF;
END
$defaults$;

COMMENT ON ROLE meshhook_secrets_writer IS 'Lists, writes and deletes secrets of the projects that row-level security shows; reveals none.';
COMMENT ON ROLE meshhook_secrets_reader IS 'Reveals secrets of the projects that row-level security shows.';
COMMENT ON ROLE meshhook_secrets_kek_admin IS 'Manages root key and KEKs; reads no secret.';
COMMENT ON ROLE meshhook_secrets_auditor IS 'Reads and verifies the audit log, and asks how things are; reads no secret.';

REVOKE ALL ON SCHEMA meshhook_secrets FROM PUBLIC;
GRANT USAGE ON SCHEMA meshhook_secrets TO meshhook_secrets_writer, meshhook_secrets_reader, meshhook_secrets_kek_admin, meshhook_secrets_auditor;
COMMENT ON SCHEMA meshhook_secrets IS 'Project-scoped secrets. Access is by function; the tables are not for direct use.';
-- Tables. Every primary key starts with project_id where there is one, so that the tables can be
-- distributed by project. The order of the columns is known to src/store.

CREATE TABLE meshhook_secrets.kek_storage (
  kek_id        integer PRIMARY KEY CHECK (kek_id OPERATOR(pg_catalog.>) 0),
  kek_encrypted bytea,
  root_key_id   text NOT NULL,
  status        text NOT NULL CHECK (status IN
    ('pending', 'active', 'retiring', 'retired', 'disabled', 'compromised', 'destroy_scheduled', 'destroyed')),
  created_at    timestamptz NOT NULL DEFAULT pg_catalog.now(),
  rotated_at    timestamptz,
  retired_at    timestamptz,
  destroy_after timestamptz,
  destroyed_at  timestamptz,
  CHECK ((status OPERATOR(pg_catalog.=) 'destroyed') OPERATOR(pg_catalog.=) (kek_encrypted IS NULL))
);
CREATE UNIQUE INDEX kek_storage_one_active ON meshhook_secrets.kek_storage (status)
  WHERE status OPERATOR(pg_catalog.=) 'active';
COMMENT ON TABLE meshhook_secrets.kek_storage IS 'Key-encryption keys (KEKs), each wrapped by the root key. One is active.';
COMMENT ON COLUMN meshhook_secrets.kek_storage.kek_encrypted IS 'Envelope of 74 bytes, bound to kek_id, root_key_id and status.';
COMMENT ON COLUMN meshhook_secrets.kek_storage.root_key_id IS 'Fingerprint of the root key that wraps it: 16 hexadecimal digits.';

CREATE TABLE meshhook_secrets.data_keys (
  project_id    uuid NOT NULL,
  dek_version   integer NOT NULL CHECK (dek_version OPERATOR(pg_catalog.>) 0),
  kek_id        integer NOT NULL,
  dek_encrypted bytea NOT NULL,
  status        text NOT NULL CHECK (status IN ('active', 'retiring', 'disabled')),
  created_at    timestamptz NOT NULL DEFAULT pg_catalog.now(),
  rotated_at    timestamptz,
  PRIMARY KEY (project_id, dek_version)
);
CREATE UNIQUE INDEX data_keys_one_active ON meshhook_secrets.data_keys (project_id)
  WHERE status OPERATOR(pg_catalog.=) 'active';
CREATE INDEX data_keys_disabled ON meshhook_secrets.data_keys (project_id)
  WHERE status OPERATOR(pg_catalog.=) 'disabled';
CREATE INDEX data_keys_by_kek ON meshhook_secrets.data_keys (kek_id, project_id, dek_version);
-- No foreign key to kek_storage: it would look with the transaction's snapshot, which may be older than
-- the active KEK. Whoever wraps holds the KEK's row, and KEKs are never deleted.
COMMENT ON TABLE meshhook_secrets.data_keys IS 'Data keys (DEKs), one active per project, each wrapped by a KEK.';
COMMENT ON COLUMN meshhook_secrets.data_keys.dek_encrypted IS 'Envelope of 74 bytes, bound to project_id, dek_version, kek_id and status.';

CREATE TABLE meshhook_secrets.project_secrets (
  project_id      uuid NOT NULL,
  id              uuid NOT NULL,
  name            text COLLATE "C" NOT NULL,
  description     text,
  metadata        jsonb,
  current_version integer NOT NULL,
  oldest_version  integer NOT NULL,
  dek_version     integer NOT NULL,
  created_at      timestamptz NOT NULL,
  updated_at      timestamptz NOT NULL,
  created_by      text NOT NULL,
  expires_at      timestamptz,
  deleted_at      timestamptz,
  purge_after     timestamptz,
  mac             bytea NOT NULL,
  PRIMARY KEY (project_id, id),
  CONSTRAINT project_secrets_name UNIQUE (project_id, name)
);
CREATE INDEX project_secrets_due ON meshhook_secrets.project_secrets (expires_at) WHERE expires_at IS NOT NULL;
COMMENT ON TABLE meshhook_secrets.project_secrets IS 'Secrets without their values. Row-level security shows the projects that the caller is a member of.';
COMMENT ON COLUMN meshhook_secrets.project_secrets.dek_version IS 'The data key that makes the mac.';
COMMENT ON COLUMN meshhook_secrets.project_secrets.oldest_version IS 'Versions before it are destroyed.';
COMMENT ON COLUMN meshhook_secrets.project_secrets.mac IS 'HMAC-SHA-256 over ids, name, version pointers, expiry and deletion: 32 bytes.';

CREATE TABLE meshhook_secrets.secret_versions (
  project_id  uuid NOT NULL,
  secret_id   uuid NOT NULL,
  version     integer NOT NULL,
  dek_version integer NOT NULL,
  value       bytea NOT NULL,
  created_at  timestamptz NOT NULL,
  created_by  text NOT NULL,
  expires_at  timestamptz,
  PRIMARY KEY (project_id, secret_id, version),
  FOREIGN KEY (project_id, secret_id) REFERENCES meshhook_secrets.project_secrets (project_id, id) ON DELETE CASCADE
);
-- Ciphertext does not compress.
ALTER TABLE meshhook_secrets.secret_versions ALTER COLUMN value SET STORAGE EXTERNAL;
COMMENT ON TABLE meshhook_secrets.secret_versions IS 'Sealed values. Nobody but the owner reads it.';
COMMENT ON COLUMN meshhook_secrets.secret_versions.value IS 'Envelope, 42 bytes longer than the value, bound to ids, name, version, data key and expiry.';

CREATE TABLE meshhook_secrets.settings (
  key   text PRIMARY KEY,
  value jsonb NOT NULL
);
COMMENT ON TABLE meshhook_secrets.settings IS 'What belongs to this database and not to the server: the binding made by attach_projects, the schedule made by kek_configure.';

CREATE TABLE meshhook_secrets.rotation_jobs (
  job_id      integer PRIMARY KEY,
  kek_id      integer NOT NULL REFERENCES meshhook_secrets.kek_storage (kek_id),
  reason      text,
  total       bigint NOT NULL,
  started_at  timestamptz NOT NULL,
  started_by  text NOT NULL,
  finished_at timestamptz,
  last_error  text
);
CREATE UNIQUE INDEX rotation_jobs_one_running ON meshhook_secrets.rotation_jobs ((finished_at IS NULL))
  WHERE finished_at IS NULL;
COMMENT ON TABLE meshhook_secrets.rotation_jobs IS 'Rotations of the KEK. The one that is not finished is running.';
COMMENT ON COLUMN meshhook_secrets.rotation_jobs.total IS 'Data keys to rewrap when it started.';

-- All of it is data: pg_dump carries it.
SELECT pg_catalog.pg_extension_config_dump('meshhook_secrets.kek_storage', '');
SELECT pg_catalog.pg_extension_config_dump('meshhook_secrets.data_keys', '');
SELECT pg_catalog.pg_extension_config_dump('meshhook_secrets.project_secrets', '');
SELECT pg_catalog.pg_extension_config_dump('meshhook_secrets.secret_versions', '');
SELECT pg_catalog.pg_extension_config_dump('meshhook_secrets.rotation_jobs', '');
SELECT pg_catalog.pg_extension_config_dump('meshhook_secrets.settings', '');
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
CREATE TYPE meshhook_secrets.secret_version_info AS (
  id         uuid,
  name       text,
  version    integer,
  created_at timestamptz,
  expires_at timestamptz
);
COMMENT ON TYPE meshhook_secrets.secret_version_info IS 'The version of a secret that was just written.';

CREATE TYPE meshhook_secrets.secret_info AS (
  id          uuid,
  name        text,
  description text,
  metadata    jsonb,
  version     integer,
  status      text,
  created_at  timestamptz,
  updated_at  timestamptz,
  created_by  text,
  expires_at  timestamptz,
  deleted_at  timestamptz,
  purge_after timestamptz
);
COMMENT ON TYPE meshhook_secrets.secret_info IS 'A secret without its value. status: enabled, expired or deleted.';
CREATE TYPE meshhook_secrets.kek_rotation AS (
  job_id      integer,
  kek_id      integer,
  reason      text,
  total       bigint,
  remaining   bigint,
  started_at  timestamptz,
  started_by  text,
  finished_at timestamptz,
  last_error  text
);
COMMENT ON TYPE meshhook_secrets.kek_rotation IS 'A rotation: the KEK that became active, and how many data keys are still to be rewrapped.';
REVOKE ALL ON TYPE meshhook_secrets.kek_rotation FROM PUBLIC;
GRANT USAGE ON TYPE meshhook_secrets.kek_rotation TO meshhook_secrets_kek_admin;

REVOKE ALL ON TYPE meshhook_secrets.secret_version_info, meshhook_secrets.secret_info FROM PUBLIC;
GRANT USAGE ON TYPE meshhook_secrets.secret_version_info, meshhook_secrets.secret_info TO meshhook_secrets_writer;
-- Who may do what to which row.

CREATE FUNCTION meshhook_secrets.member_projects() RETURNS uuid[]
  LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_member_projects';
REVOKE ALL ON FUNCTION meshhook_secrets.member_projects() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.member_projects() TO meshhook_secrets_writer, meshhook_secrets_reader;
COMMENT ON FUNCTION meshhook_secrets.member_projects() IS
  'The projects that the caller is a member of, by the binding of attach_projects; none without it. The row-level security policies ask it.';

CREATE FUNCTION meshhook_secrets.refuse_direct_change() RETURNS trigger
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_refuse_direct_change';
REVOKE ALL ON FUNCTION meshhook_secrets.refuse_direct_change() FROM PUBLIC;
COMMENT ON FUNCTION meshhook_secrets.refuse_direct_change() IS
  'Refuses (42501) changes of our tables that do not come from our functions. Superusers may: a restore is one.';

DO $triggers$
DECLARE
  table_name text;
BEGIN
  FOREACH table_name IN ARRAY ARRAY['kek_storage', 'data_keys', 'project_secrets', 'secret_versions', 'rotation_jobs', 'settings',
                                   'audit_log', 'audit_pending', 'audit_seals', 'audit_head', 'audit_keys'] LOOP
    EXECUTE pg_catalog.format('REVOKE ALL ON TABLE meshhook_secrets.%I FROM PUBLIC', table_name);
    EXECUTE pg_catalog.format('ALTER TABLE meshhook_secrets.%I ENABLE ROW LEVEL SECURITY', table_name);
    EXECUTE pg_catalog.format('ALTER TABLE meshhook_secrets.%I FORCE ROW LEVEL SECURITY', table_name);
    EXECUTE pg_catalog.format(
      'CREATE TRIGGER refuse_direct_change BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON meshhook_secrets.%I '
      'FOR EACH STATEMENT EXECUTE FUNCTION meshhook_secrets.refuse_direct_change()', table_name);
  END LOOP;
END
$triggers$;

-- Columns: a reader finds a secret and checks its mac, a writer sees and changes the rest.
-- ids, names and creation are written once. No privilege on a whole table: it would allow LOCK TABLE.
GRANT SELECT (project_id, id, name, current_version, oldest_version, dek_version, expires_at, deleted_at, purge_after, mac)
  ON meshhook_secrets.project_secrets TO meshhook_secrets_reader, meshhook_secrets_writer;
GRANT SELECT (description, metadata, created_at, updated_at, created_by)
  ON meshhook_secrets.project_secrets TO meshhook_secrets_writer;
GRANT INSERT (project_id, id, name, description, metadata, current_version, oldest_version, dek_version,
              created_at, updated_at, created_by, expires_at, deleted_at, purge_after, mac)
  ON meshhook_secrets.project_secrets TO meshhook_secrets_writer;
GRANT UPDATE (description, metadata, current_version, oldest_version, dek_version, updated_at, expires_at,
              deleted_at, purge_after, mac)
  ON meshhook_secrets.project_secrets TO meshhook_secrets_writer;

-- To PUBLIC, since a NOINHERIT role (Supabase's authenticated) is in no group for a policy; whoever
-- lacks the column privileges above gets nothing either way. The subselect runs once per query.
CREATE POLICY members ON meshhook_secrets.project_secrets
  USING (project_id OPERATOR(pg_catalog.=) ANY ((SELECT meshhook_secrets.member_projects())::pg_catalog.uuid[]))
  WITH CHECK (project_id OPERATOR(pg_catalog.=) ANY ((SELECT meshhook_secrets.member_projects())::pg_catalog.uuid[]));
COMMENT ON POLICY members ON meshhook_secrets.project_secrets IS 'Rows of the projects that the caller is a member of.';
-- Writing. New versions only: nothing is overwritten.

CREATE FUNCTION meshhook_secrets.secret_put(
  project_id uuid,
  name text,
  value text,
  cas integer DEFAULT NULL,
  description text DEFAULT NULL,
  expires_at timestamptz DEFAULT NULL,
  metadata jsonb DEFAULT NULL,
  previous_valid_for interval DEFAULT NULL
) RETURNS meshhook_secrets.secret_version_info
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_secret_put';
REVOKE ALL ON FUNCTION meshhook_secrets.secret_put(uuid, text, text, integer, text, timestamptz, jsonb, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_put(uuid, text, text, integer, text, timestamptz, jsonb, interval) TO meshhook_secrets_writer;
COMMENT ON FUNCTION meshhook_secrets.secret_put(uuid, text, text, integer, text, timestamptz, jsonb, interval) IS
  'Stores a new version of a secret, creating the secret if there is none. cas: the current version it must have, 0 for none. expires_at: when the new version stops working. description, metadata: kept if NULL. previous_valid_for: how long the previous version still works, forever if NULL. Errors: 42501 not a member, PT409 cas mismatch, PT410 deleted, PT413 too large, 22004/22023 bad argument, 23503 no such project, 25006 read-only, PT503 sealed.';

CREATE FUNCTION meshhook_secrets.secret_put_bytes(
  project_id uuid,
  name text,
  value bytea,
  cas integer DEFAULT NULL,
  description text DEFAULT NULL,
  expires_at timestamptz DEFAULT NULL,
  metadata jsonb DEFAULT NULL,
  previous_valid_for interval DEFAULT NULL
) RETURNS meshhook_secrets.secret_version_info
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_secret_put_bytes';
REVOKE ALL ON FUNCTION meshhook_secrets.secret_put_bytes(uuid, text, bytea, integer, text, timestamptz, jsonb, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_put_bytes(uuid, text, bytea, integer, text, timestamptz, jsonb, interval) TO meshhook_secrets_writer;
COMMENT ON FUNCTION meshhook_secrets.secret_put_bytes(uuid, text, bytea, integer, text, timestamptz, jsonb, interval) IS
  'As secret_put, for a binary value.';

CREATE FUNCTION meshhook_secrets.secret_generate(
  project_id uuid,
  name text,
  length integer DEFAULT 32,
  charset text DEFAULT 'base64url',
  cas integer DEFAULT NULL,
  description text DEFAULT NULL,
  expires_at timestamptz DEFAULT NULL,
  metadata jsonb DEFAULT NULL,
  previous_valid_for interval DEFAULT NULL
) RETURNS meshhook_secrets.secret_version_info
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_secret_generate';
REVOKE ALL ON FUNCTION meshhook_secrets.secret_generate(uuid, text, integer, text, integer, text, timestamptz, jsonb, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_generate(uuid, text, integer, text, integer, text, timestamptz, jsonb, interval) TO meshhook_secrets_writer;
COMMENT ON FUNCTION meshhook_secrets.secret_generate(uuid, text, integer, text, integer, text, timestamptz, jsonb, interval) IS
  'As secret_put, with a new random value that is stored and never returned. length: 1 to 4096 characters. charset: base64url, hex, alphanumeric, digits or printable.';

CREATE FUNCTION meshhook_secrets.secret_rollback(
  project_id uuid,
  name text,
  version integer,
  cas integer DEFAULT NULL
) RETURNS meshhook_secrets.secret_version_info
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_secret_rollback';
REVOKE ALL ON FUNCTION meshhook_secrets.secret_rollback(uuid, text, integer, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_rollback(uuid, text, integer, integer) TO meshhook_secrets_writer;
COMMENT ON FUNCTION meshhook_secrets.secret_rollback(uuid, text, integer, integer) IS
  'Stores the value of an earlier version as a new version. Errors as secret_put; PT404 no such version, PT410 it is expired or destroyed.';
-- Revealing.

CREATE FUNCTION meshhook_secrets.secret_get(
  project_id uuid,
  name text,
  version integer DEFAULT NULL,
  purpose text DEFAULT NULL
) RETURNS text
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_secret_get';
REVOKE ALL ON FUNCTION meshhook_secrets.secret_get(uuid, text, integer, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_get(uuid, text, integer, text) TO meshhook_secrets_reader;
COMMENT ON FUNCTION meshhook_secrets.secret_get(uuid, text, integer, text) IS
  'The value of a secret, of its current version if none is given. purpose: what it is used for (reveal, copy, run), at most 100 characters. Errors: 42501 not a member, PT404 no such secret or version, PT410 expired, deleted or destroyed, 22023 the value is binary (secret_get_bytes reads it), PT503 sealed, XX001 stored bytes were tampered with.';

CREATE FUNCTION meshhook_secrets.secret_get_bytes(
  project_id uuid,
  name text,
  version integer DEFAULT NULL,
  purpose text DEFAULT NULL
) RETURNS bytea
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_secret_get_bytes';
REVOKE ALL ON FUNCTION meshhook_secrets.secret_get_bytes(uuid, text, integer, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_get_bytes(uuid, text, integer, text) TO meshhook_secrets_reader;
COMMENT ON FUNCTION meshhook_secrets.secret_get_bytes(uuid, text, integer, text) IS
  'As secret_get, as bytes.';

CREATE FUNCTION meshhook_secrets.secret_get_many(
  project_id uuid,
  names text[] DEFAULT NULL,
  purpose text DEFAULT NULL
) RETURNS TABLE (name text, value text, version integer, status text)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_secret_get_many';
REVOKE ALL ON FUNCTION meshhook_secrets.secret_get_many(uuid, text[], text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_get_many(uuid, text[], text) TO meshhook_secrets_reader;
COMMENT ON FUNCTION meshhook_secrets.secret_get_many(uuid, text[], text) IS
  'The current values of the named secrets in one call, each name once; of all that are not deleted if names is NULL. At most 1000 names. status: ok, or why there is no value: not_found, expired, deleted, binary, corrupted, sealed. Errors: 42501 not a member, 22023 bad names, PT503 sealed.';
-- Looking around: never a value, no key needed.

CREATE FUNCTION meshhook_secrets.secret_list(
  project_id uuid,
  search text DEFAULT NULL,
  include_deleted boolean DEFAULT false,
  after text DEFAULT NULL,
  page_size integer DEFAULT 100
) RETURNS SETOF meshhook_secrets.secret_info
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_secret_list';
REVOKE ALL ON FUNCTION meshhook_secrets.secret_list(uuid, text, boolean, text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_list(uuid, text, boolean, text, integer) TO meshhook_secrets_writer;
COMMENT ON FUNCTION meshhook_secrets.secret_list(uuid, text, boolean, text, integer) IS
  'The secrets of a project by name, a page at a time. search: part of the name or description, in any case. after: the last name of the previous page. page_size: 1 to 1000. Errors: 42501 not a member, 22004/22023 bad argument.';

CREATE FUNCTION meshhook_secrets.secret_describe(
  project_id uuid,
  name text
) RETURNS meshhook_secrets.secret_info
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_secret_describe';
REVOKE ALL ON FUNCTION meshhook_secrets.secret_describe(uuid, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_describe(uuid, text) TO meshhook_secrets_writer;
COMMENT ON FUNCTION meshhook_secrets.secret_describe(uuid, text) IS
  'A secret without its value. Errors: 42501 not a member, PT404 no such secret.';

CREATE FUNCTION meshhook_secrets.secret_versions(
  project_id uuid,
  name text
) RETURNS TABLE (version integer, status text, is_current boolean, created_at timestamptz, created_by text, expires_at timestamptz)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_secret_versions';
REVOKE ALL ON FUNCTION meshhook_secrets.secret_versions(uuid, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_versions(uuid, text) TO meshhook_secrets_writer;
COMMENT ON FUNCTION meshhook_secrets.secret_versions(uuid, text) IS
  'The versions of a secret that are kept, newest first. status: enabled, expired or deleted. Errors: 42501 not a member, PT404 no such secret.';

CREATE FUNCTION meshhook_secrets.secret_due(
  project_id uuid DEFAULT NULL,
  within interval DEFAULT '30 days'
) RETURNS TABLE (project_id uuid, name text, version integer, expires_at timestamptz, status text)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_secret_due';
REVOKE ALL ON FUNCTION meshhook_secrets.secret_due(uuid, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_due(uuid, interval) TO meshhook_secrets_writer;
COMMENT ON FUNCTION meshhook_secrets.secret_due(uuid, interval) IS
  'The secrets that have expired or will within this time, most urgent first; of all projects that row-level security shows if project_id is NULL. status: due or expired. Errors: 42501 not a member, 22023 negative interval.';
-- Expiry and deletion.

CREATE FUNCTION meshhook_secrets.secret_delete(
  project_id uuid,
  name text
) RETURNS meshhook_secrets.secret_info
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_secret_delete';
REVOKE ALL ON FUNCTION meshhook_secrets.secret_delete(uuid, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_delete(uuid, text) TO meshhook_secrets_writer;
COMMENT ON FUNCTION meshhook_secrets.secret_delete(uuid, text) IS
  'Deletes a secret; secret_undelete brings it back within meshhook_secrets.recovery_window. Errors: 42501 not a member, PT404 no such secret, 25006 read-only, PT503 sealed. PT410 it is deleted already.';

CREATE FUNCTION meshhook_secrets.secret_undelete(
  project_id uuid,
  name text
) RETURNS meshhook_secrets.secret_info
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_secret_undelete';
REVOKE ALL ON FUNCTION meshhook_secrets.secret_undelete(uuid, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_undelete(uuid, text) TO meshhook_secrets_writer;
COMMENT ON FUNCTION meshhook_secrets.secret_undelete(uuid, text) IS
  'Brings a deleted secret back. Errors: 42501 not a member, PT404 no such secret, 25006 read-only, PT503 sealed. PT409 it is not deleted, PT410 the recovery window has passed.';

CREATE FUNCTION meshhook_secrets.secret_purge(
  project_id uuid,
  name text,
  confirm text
) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_secret_purge';
REVOKE ALL ON FUNCTION meshhook_secrets.secret_purge(uuid, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_purge(uuid, text, text) TO meshhook_secrets_writer;
COMMENT ON FUNCTION meshhook_secrets.secret_purge(uuid, text, text) IS
  'Removes a secret and all its versions for good. confirm: its name once more. Errors: 42501 not a member, PT404 no such secret, 22023 confirm is not the name, 25006 read-only.';

CREATE FUNCTION meshhook_secrets.secret_expire(
  project_id uuid,
  name text,
  expires_at timestamptz
) RETURNS meshhook_secrets.secret_info
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_secret_expire';
REVOKE ALL ON FUNCTION meshhook_secrets.secret_expire(uuid, text, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_expire(uuid, text, timestamptz) TO meshhook_secrets_writer;
COMMENT ON FUNCTION meshhook_secrets.secret_expire(uuid, text, timestamptz) IS
  'Sets when the current version stops working; now or earlier: at once; NULL: never. Errors: 42501 not a member, PT404 no such secret, 25006 read-only, PT503 sealed. PT410 it is deleted.';
-- Root key and sealing.

CREATE FUNCTION meshhook_secrets.seal(
  project_id uuid DEFAULT NULL
) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_seal';
REVOKE ALL ON FUNCTION meshhook_secrets.seal(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.seal(uuid) TO meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.seal(uuid) IS
  'Wipes all keys from the memory of the whole server, at once; everything that needs a key raises PT503 until unseal() or a restart. With a project: disables its data keys, durably, in this database, until unseal(project_id).';

CREATE FUNCTION meshhook_secrets.unseal(
  project_id uuid DEFAULT NULL
) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_unseal';
REVOKE ALL ON FUNCTION meshhook_secrets.unseal(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.unseal(uuid) TO meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.unseal(uuid) IS
  'Lifts seal(), fetches the root key anew and waits for it. With a project: enables its data keys again. Errors: PT503 with the cause if the root key cannot be had.';

CREATE FUNCTION meshhook_secrets.seal_status() RETURNS TABLE (sealed boolean, cause text, remedy text, since timestamptz, key_memory text, sealed_projects bigint)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_seal_status';
REVOKE ALL ON FUNCTION meshhook_secrets.seal_status() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.seal_status() TO meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.seal_status() IS
  'Whether the server is sealed, why, what to do and since when; how key memory is protected (memfd_secret, mlock or madvise); how many projects of this database are sealed.';

CREATE FUNCTION meshhook_secrets.project_seal_status(
  project_id uuid
) RETURNS TABLE (sealed boolean, cause text, remedy text)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_project_seal_status';
REVOKE ALL ON FUNCTION meshhook_secrets.project_seal_status(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.project_seal_status(uuid) TO meshhook_secrets_writer, meshhook_secrets_reader;
COMMENT ON FUNCTION meshhook_secrets.project_seal_status(uuid) IS
  'For members of a project: whether its secrets can be written and revealed now or are sealed (by the server, the project or its KEK), and if so, what DETAIL and HINT of PT503 would say. Reveals and opens nothing. Errors: 42501 not a member, 22004, XX001 the data key was tampered with.';

CREATE FUNCTION meshhook_secrets.root_key_status() RETURNS TABLE (root_key_id text, is_current boolean, is_loaded boolean, keks bigint)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_root_key_status';
REVOKE ALL ON FUNCTION meshhook_secrets.root_key_status() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.root_key_status() TO meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.root_key_status() IS
  'The root keys that are loaded or that KEKs of this database need, by fingerprint, and how many KEKs each wraps. A key that is needed but not loaded keeps its KEKs sealed.';
-- The life of KEKs and data keys.

CREATE FUNCTION meshhook_secrets.kek_generate() RETURNS integer
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_kek_generate';
REVOKE ALL ON FUNCTION meshhook_secrets.kek_generate() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.kek_generate() TO meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.kek_generate() IS
  'Makes a KEK that waits (pending) for the next kek_rotate, and returns its id. Errors: 25006 read-only, PT503 sealed.';

CREATE FUNCTION meshhook_secrets.kek_rotate(
  reason text DEFAULT NULL
) RETURNS meshhook_secrets.kek_rotation
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_kek_rotate';
REVOKE ALL ON FUNCTION meshhook_secrets.kek_rotate(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.kek_rotate(text) TO meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.kek_rotate(text) IS
  'Makes another KEK active, at once for new data keys; a background worker rewraps the existing ones, and the former KEK is retired when provably nothing needs it. While a rotation runs and its KEK is still active, returns that one. Takes time by the number of projects, not of secrets. Errors: 25006 read-only, PT503 sealed.';

CREATE FUNCTION meshhook_secrets.kek_rewrap(
  batch_size integer DEFAULT 1000
) RETURNS TABLE (rewrapped bigint, failed bigint, remaining bigint)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_kek_rewrap';
REVOKE ALL ON FUNCTION meshhook_secrets.kek_rewrap(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.kek_rewrap(integer) TO meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.kek_rewrap(integer) IS
  'Rewraps up to batch_size (1 to 100000) data keys with the active KEK, as the background worker does, and retires KEKs that nothing needs any more. Call it again until remaining is 0. Errors: 22023 batch_size, 25006 read-only, PT503 sealed.';

CREATE FUNCTION meshhook_secrets.kek_status() RETURNS TABLE (kek_id integer, status text, root_key_id text, wraps bigint, created_at timestamptz, rotated_at timestamptz, retired_at timestamptz, destroy_after timestamptz, destroyed_at timestamptz, next_rotation timestamptz, remaining bigint, done bigint, per_second double precision, estimated_end timestamptz, last_error text)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_kek_status';
REVOKE ALL ON FUNCTION meshhook_secrets.kek_status() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.kek_status() TO meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.kek_status() IS
  'The KEKs, newest first, with the number of data keys that each wraps. On the active one: next_rotation by schedule, and of the last rotation how many data keys remain and are done, how fast, when it will probably end, and its last error.';

CREATE FUNCTION meshhook_secrets.kek_verify(
  kek_id integer DEFAULT NULL,
  deep boolean DEFAULT false
) RETURNS TABLE (kek_id integer, status text, wraps bigint, good bigint, bad bigint, problem text)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_kek_verify';
REVOKE ALL ON FUNCTION meshhook_secrets.kek_verify(integer, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.kek_verify(integer, boolean) TO meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.kek_verify(integer, boolean) IS
  'Unwraps each KEK (or this one) with its root key, and, if deep, every data key with its KEK and checks every secret and version of its project; problem says what is wrong with the first bad one. Errors: PT404 no such KEK, PT503 sealed.';

CREATE FUNCTION meshhook_secrets.kek_disable(
  kek_id integer
) RETURNS text
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_kek_disable';
REVOKE ALL ON FUNCTION meshhook_secrets.kek_disable(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.kek_disable(integer) TO meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.kek_disable(integer) IS
  'Switches a KEK off: what it wraps cannot be read until kek_enable. Returns the new status. Errors: PT404 no such KEK, PT409 its status does not allow it, 25006 read-only, PT503 sealed.';

CREATE FUNCTION meshhook_secrets.kek_enable(
  kek_id integer
) RETURNS text
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_kek_enable';
REVOKE ALL ON FUNCTION meshhook_secrets.kek_enable(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.kek_enable(integer) TO meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.kek_enable(integer) IS
  'Switches a disabled KEK on again, for reading: retiring if it still wraps data keys, else retired. A disabled KEK never becomes active again: kek_rotate. Returns the new status. Errors as kek_disable.';

CREATE FUNCTION meshhook_secrets.kek_mark_compromised(
  kek_id integer
) RETURNS text
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_kek_mark_compromised';
REVOKE ALL ON FUNCTION meshhook_secrets.kek_mark_compromised(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.kek_mark_compromised(integer) TO meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.kek_mark_compromised(integer) IS
  'Marks a KEK as known to somebody else: it still reads and never wraps again. Follow with kek_rotate, then dek_rotate and secret_reencrypt for each project, since whoever had the KEK and a copy of the tables has the data keys. Returns the new status. Errors as kek_disable.';

CREATE FUNCTION meshhook_secrets.kek_destroy(
  kek_id integer,
  confirm text,
  wait interval DEFAULT '7 days'
) RETURNS timestamptz
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_kek_destroy';
REVOKE ALL ON FUNCTION meshhook_secrets.kek_destroy(integer, text, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.kek_destroy(integer, text, interval) TO meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.kek_destroy(integer, text, interval) IS
  'Schedules the destruction of a KEK that nothing needs, and returns when it happens; until then kek_cancel_destroy undoes it. Data restored from a backup that still needs the KEK is lost then. confirm: its id as text. Errors: PT404 no such KEK, PT409 still in use, active, or its status does not allow it, 22023 confirm or wait, 25006 read-only, PT503 sealed.';

CREATE FUNCTION meshhook_secrets.kek_cancel_destroy(
  kek_id integer
) RETURNS text
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_kek_cancel_destroy';
REVOKE ALL ON FUNCTION meshhook_secrets.kek_cancel_destroy(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.kek_cancel_destroy(integer) TO meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.kek_cancel_destroy(integer) IS
  'Cancels a scheduled destruction; the KEK is disabled then. Returns the new status. Errors as kek_disable.';

CREATE FUNCTION meshhook_secrets.kek_configure(
  auto_rotate_period interval DEFAULT NULL
) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_kek_configure';
REVOKE ALL ON FUNCTION meshhook_secrets.kek_configure(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.kek_configure(interval) TO meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.kek_configure(interval) IS
  'Sets how old the active KEK gets before it is rotated by itself, at least an hour; NULL: never. Errors: 22023, 25006.';

CREATE FUNCTION meshhook_secrets.dek_rotate(
  project_id uuid
) RETURNS integer
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_dek_rotate';
REVOKE ALL ON FUNCTION meshhook_secrets.dek_rotate(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.dek_rotate(uuid) TO meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.dek_rotate(uuid) IS
  'Makes a new data key for a project and returns its version; new values are sealed with it, existing ones by secret_reencrypt. Errors: PT404 the project has no data key, 25006 read-only, PT503 sealed.';

CREATE FUNCTION meshhook_secrets.secret_reencrypt(
  project_id uuid
) RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_secret_reencrypt';
REVOKE ALL ON FUNCTION meshhook_secrets.secret_reencrypt(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_reencrypt(uuid) TO meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.secret_reencrypt(uuid) IS
  'Seals every version of every secret of a project anew with its active data key, removes the former data keys, and returns the number of versions. Errors: PT404 the project has no data key, XX001 a stored value does not authenticate (nothing is changed), 25006 read-only, PT503 sealed.';

CREATE FUNCTION meshhook_secrets.root_key_rotate() RETURNS TABLE (kek_id integer, former_root_key_id text, root_key_id text)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_root_key_rotate';
REVOKE ALL ON FUNCTION meshhook_secrets.root_key_rotate() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.root_key_rotate() TO meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.root_key_rotate() IS
  'Wraps every KEK of this database anew with the current root key (the first line of the source), checks each, and says by NOTICE when the former line can be removed. Returns the KEKs that were changed. Errors: XX001 a KEK does not authenticate, 25006 read-only, PT503 sealed.';

CREATE FUNCTION meshhook_secrets.root_key_verify() RETURNS TABLE (root_key_id text, keks bigint, good bigint, problem text)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_root_key_verify';
REVOKE ALL ON FUNCTION meshhook_secrets.root_key_verify() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.root_key_verify() TO meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.root_key_verify() IS
  'Unwraps every KEK with the root key that it names. problem: not loaded, or which KEK does not authenticate.';
-- The audit log: reading, checking, keeping it small.

CREATE FUNCTION meshhook_secrets.audit_search(
  project_id uuid DEFAULT NULL,
  since timestamptz DEFAULT NULL,
  until timestamptz DEFAULT NULL,
  action text DEFAULT NULL,
  outcome text DEFAULT NULL,
  actor text DEFAULT NULL,
  name text DEFAULT NULL,
  after bigint DEFAULT NULL,
  page_size integer DEFAULT 100
) RETURNS TABLE (id bigint, "time" timestamptz, action text, outcome text, sqlstate text, project_id uuid, secret_id uuid, name text, version integer, kek_id integer, purpose text, detail text, actor text, actor_role text, claimed_sub text, claimed_role text, client_address text, application_name text, request_id text, transaction_id bigint, times integer)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_audit_search';
REVOKE ALL ON FUNCTION meshhook_secrets.audit_search(uuid, timestamptz, timestamptz, text, text, text, text, bigint, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.audit_search(uuid, timestamptz, timestamptz, text, text, text, text, bigint, integer) TO meshhook_secrets_auditor;
COMMENT ON FUNCTION meshhook_secrets.audit_search(uuid, timestamptz, timestamptz, text, text, text, text, bigint, integer) IS
  'Audit records, newest first: of the projects that the caller is a member of; all of them, and those of no project, if row-level security does not apply to the caller (BYPASSRLS). since is inclusive, until exclusive; actor matches the user, the role or the claimed sub; name is of a secret, exact. after: the last id of the page before; page_size: 1 to 1000. The first page begins with records that are not sealed yet (id is null). Errors: 42501 not a member, 22023 bad argument.';

CREATE FUNCTION meshhook_secrets.audit_verify(
  from_seal bigint DEFAULT NULL,
  to_seal bigint DEFAULT NULL
) RETURNS TABLE (ok boolean, seals bigint, records bigint, unsealed bigint, first_seal bigint, last_seal bigint, sealed_until timestamptz, problems text[])
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_audit_verify';
REVOKE ALL ON FUNCTION meshhook_secrets.audit_verify(bigint, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.audit_verify(bigint, bigint) TO meshhook_secrets_auditor;
COMMENT ON FUNCTION meshhook_secrets.audit_verify(bigint, bigint) IS
  'Checks the chain of seals (or the part between two seals, by id, inclusive) and every record under it: ok is false, and problems says where, if a record or a seal was changed, removed, inserted or moved. unsealed: records that wait for a seal. Takes time by the number of records. Needs BYPASSRLS. Errors: 42501, PT404 no such seal, PT503 sealed.';

CREATE FUNCTION meshhook_secrets.audit_prune(
  before timestamptz
) RETURNS TABLE (partition text, records bigint)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_audit_prune';
REVOKE ALL ON FUNCTION meshhook_secrets.audit_prune(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.audit_prune(timestamptz) TO meshhook_secrets_auditor;
COMMENT ON FUNCTION meshhook_secrets.audit_prune(timestamptz) IS
  'Removes the months that lie whole before this time (UTC), at the earliest until the start of the current month; what is left still verifies. Is itself recorded. Run it alone, in a transaction that ends at once: audit records wait for it. Needs BYPASSRLS. Errors: 42501, 22023 the time is in the future, PT409 the log is being read, XX001 seals to be removed do not authenticate, 25006 read-only, PT503 sealed.';

-- For the writer, which runs it as the owner: the partition for a time, with the same protection as
-- every table of ours. Roles that default privileges would let in get nothing.
CREATE FUNCTION meshhook_secrets.audit_make_partition(
  at timestamptz
) RETURNS text
  LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  month timestamp := date_trunc('month', at AT TIME ZONE 'UTC');
  partition text := 'audit_log_' || to_char(month, 'YYYY_MM');
  stranger record;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_class c WHERE c.relname = partition AND c.relnamespace = 'meshhook_secrets'::regnamespace) THEN
    EXECUTE format('CREATE TABLE meshhook_secrets.%I PARTITION OF meshhook_secrets.audit_log FOR VALUES FROM (%L) TO (%L)',
      partition, to_char(month, 'YYYY-MM-DD') || ' 00:00:00+00', to_char(month + interval '1 month', 'YYYY-MM-DD') || ' 00:00:00+00');
    EXECUTE format('ALTER TABLE meshhook_secrets.%I ADD PRIMARY KEY (id, "time")', partition);
    EXECUTE format('CREATE INDEX ON meshhook_secrets.%I (project_id, id)', partition);
    FOR stranger IN
      SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS role_name
      FROM pg_class c, aclexplode(c.relacl) a
      WHERE c.oid = format('meshhook_secrets.%I', partition)::regclass AND a.grantee <> c.relowner
    LOOP
      EXECUTE format('REVOKE ALL ON meshhook_secrets.%I FROM %s', partition, stranger.role_name);
    END LOOP;
    EXECUTE format('ALTER TABLE meshhook_secrets.%I ENABLE ROW LEVEL SECURITY', partition);
    EXECUTE format('ALTER TABLE meshhook_secrets.%I FORCE ROW LEVEL SECURITY', partition);
    EXECUTE format('CREATE TRIGGER refuse_direct_change BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON meshhook_secrets.%I '
      'FOR EACH STATEMENT EXECUTE FUNCTION meshhook_secrets.refuse_direct_change()', partition);
  END IF;
  RETURN partition;
END
$function$;
REVOKE ALL ON FUNCTION meshhook_secrets.audit_make_partition(timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION meshhook_secrets.audit_make_partition(timestamptz) IS
  'For the audit writer, and before data alone is restored (pg_restore --data-only): makes the partition of audit_log for the month (UTC) of a time, if there is none, and returns its name.';

CREATE FUNCTION meshhook_secrets.audit_record_setup(
  action text,
  detail text
) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_audit_record_setup';
REVOKE ALL ON FUNCTION meshhook_secrets.audit_record_setup(text, text) FROM PUBLIC;
COMMENT ON FUNCTION meshhook_secrets.audit_record_setup(text, text) IS
  'For attach_projects and setup_supabase: records that they were called, in their transaction.';
-- How things are: for probes, exporters and people. None of these reads a secret or changes anything.

CREATE FUNCTION meshhook_secrets.health() RETURNS TABLE (state text, cause text, since timestamptz)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_health';
REVOKE ALL ON FUNCTION meshhook_secrets.health() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.health() TO meshhook_secrets_auditor, meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.health() IS
  'One row: state is ok, degraded or sealed, cause the worst reason (NULL if ok), since when it is so (NULL if that is not recorded). Works while sealed and on a standby. Errors: 55000 not preloaded.';

CREATE FUNCTION meshhook_secrets.metrics() RETURNS TABLE (name text, kind text, labels jsonb, value double precision, help text)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_metrics';
REVOKE ALL ON FUNCTION meshhook_secrets.metrics() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.metrics() TO meshhook_secrets_auditor, meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.metrics() IS
  'Counters (of this database, since server start) and gauges, named as Prometheus wants them; value is NULL where there is nothing to measure, for example the time of the last rotation when there was none. Errors: 55000 not preloaded.';

CREATE FUNCTION meshhook_secrets.doctor() RETURNS TABLE (severity text, finding text, detail text, remedy text)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_doctor';
REVOKE ALL ON FUNCTION meshhook_secrets.doctor() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.doctor() TO meshhook_secrets_auditor, meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.doctor() IS
  'Looks for what endangers the secrets: log settings, grants, changed tables and triggers, keys, files, replicas, workers. severity is critical, warning or info, worst first; remedy says what to run, one SQL statement or configuration line a line. info also says what cannot be checked from here, so there is always an answer. Errors: 55000 not preloaded.';
-- Binding to the host application.

CREATE FUNCTION meshhook_secrets.host_project_changed() RETURNS trigger
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_host_project_changed';
REVOKE ALL ON FUNCTION meshhook_secrets.host_project_changed() FROM PUBLIC;
COMMENT ON FUNCTION meshhook_secrets.host_project_changed() IS
  'Trigger on the attached projects table: deleting a project removes its secrets and shreds its data keys; changing the id of a project that has secrets is refused (23503).';

CREATE FUNCTION meshhook_secrets.attach_projects(
  projects regclass,
  id_column name DEFAULT 'id',
  owner_column name DEFAULT 'owner',
  member_function regprocedure DEFAULT NULL,
  reveal_function regprocedure DEFAULT NULL
) RETURNS void
  LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  table_owner oid;
  kind "char";
  column_type oid;
  host_function regprocedure;
BEGIN
  IF projects IS NULL OR id_column IS NULL OR (owner_column IS NULL AND member_function IS NULL) THEN
    RAISE EXCEPTION 'argument must not be null' USING ERRCODE = '22004',
      DETAIL = 'projects, id_column, and one of owner_column and member_function are needed.',
      HINT = 'SELECT meshhook_secrets.attach_projects(''public.projects'');';
  END IF;

  SELECT c.relowner, c.relkind INTO table_owner, kind FROM pg_class c WHERE c.oid = projects;
  IF kind NOT IN ('r', 'p') THEN
    RAISE EXCEPTION 'invalid argument' USING ERRCODE = '22023',
      DETAIL = 'projects must be a table: its rows are locked, and its deletions are noticed by a trigger.',
      HINT = 'Name the table that the view or foreign table shows.';
  END IF;
  IF EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = projects OR (kind = 'r' AND i.inhparent = projects)) THEN
    RAISE EXCEPTION 'invalid argument' USING ERRCODE = '22023',
      DETAIL = 'projects inherits or is inherited from (or is a partition): deletions in the other tables would not be noticed.',
      HINT = 'Use a table of its own, or the partitioned table as a whole.';
  END IF;

  SELECT a.atttypid INTO column_type FROM pg_attribute a
    WHERE a.attrelid = projects AND a.attname = id_column AND a.attnum > 0 AND NOT a.attisdropped;
  IF column_type IS DISTINCT FROM 'uuid'::regtype OR NOT EXISTS (
      SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
      WHERE i.indrelid = projects AND i.indisunique AND i.indisvalid AND i.indisready AND i.indnkeyatts = 1 AND i.indpred IS NULL
        AND i.indexprs IS NULL AND a.attname = id_column) THEN
    RAISE EXCEPTION 'invalid argument' USING ERRCODE = '22023',
      DETAIL = 'id_column must be a column of type uuid with a unique index of its own.',
      HINT = 'Give the table a primary key of type uuid.';
  END IF;

  IF member_function IS NULL THEN
    SELECT a.atttypid INTO column_type FROM pg_attribute a
      WHERE a.attrelid = projects AND a.attname = owner_column AND a.attnum > 0 AND NOT a.attisdropped;
    IF column_type IS NULL OR column_type NOT IN ('uuid'::regtype, 'text'::regtype) THEN
      RAISE EXCEPTION 'invalid argument' USING ERRCODE = '22023',
        DETAIL = 'owner_column must be a column of type uuid or text: it is compared with the claim "sub" of the user''s JWT.',
        HINT = 'Name another column, or give a member_function.';
    END IF;
  END IF;

  -- The functions decide who sees what, so whoever owns them could open everything: only the owner
  -- of the projects, or a superuser. The same is checked again at every use.
  FOREACH host_function IN ARRAY ARRAY[member_function, reveal_function] LOOP
    CONTINUE WHEN host_function IS NULL;
    IF NOT EXISTS (
        SELECT FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner
        WHERE p.oid = host_function AND p.prokind = 'f' AND p.proretset AND p.pronargs = 0
          AND p.prorettype = 'uuid'::regtype AND (p.proowner = table_owner OR r.rolsuper)) THEN
      RAISE EXCEPTION 'invalid argument' USING ERRCODE = '22023',
        DETAIL = 'member_function and reveal_function must have no argument, return SETOF uuid, and belong to the owner of the projects table or a superuser.',
        HINT = 'CREATE FUNCTION user_project_ids() RETURNS SETOF uuid ..., owned by the owner of the table.';
    END IF;
    -- pg_temp is searched first unless it is named: a temporary table of the caller's would decide.
    IF EXISTS (
        SELECT FROM pg_proc p WHERE p.oid = host_function AND p.prosqlbody IS NULL AND NOT EXISTS (
          SELECT FROM unnest(p.proconfig) c WHERE c = 'search_path=""' OR c ~ '^search_path=.*, *"?pg_temp"?$')) THEN
      RAISE WARNING 'search_path of function % is open to temporary objects', host_function
        USING DETAIL = 'Whoever may run SQL as a user and create temporary tables can decide what it returns.',
              HINT = format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp; and qualify the names in it.', host_function);
    END IF;
  END LOOP;

  INSERT INTO meshhook_secrets.settings (key, value)
  SELECT 'attach_projects', jsonb_build_object(
      'schema', n.nspname, 'table', c.relname, 'id_column', id_column,
      'owner_column', CASE WHEN member_function IS NULL THEN owner_column END,
      'member_schema', mn.nspname, 'member_function', m.proname,
      'reveal_schema', rn.nspname, 'reveal_function', r.proname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN (pg_proc m JOIN pg_namespace mn ON mn.oid = m.pronamespace) ON m.oid = member_function
    LEFT JOIN (pg_proc r JOIN pg_namespace rn ON rn.oid = r.pronamespace) ON r.oid = reveal_function
    WHERE c.oid = projects
  ON CONFLICT (key) DO UPDATE SET value = excluded.value;

  -- The triggers are the host's: they are dumped and restored with its table. Those of an earlier
  -- binding to another table go.
  DECLARE
    bound regclass;
  BEGIN
    FOR bound IN SELECT DISTINCT t.tgrelid::regclass FROM pg_trigger t
        WHERE t.tgfoid = 'meshhook_secrets.host_project_changed()'::regprocedure AND NOT t.tgisinternal AND t.tgparentid = 0 LOOP
      EXECUTE format('DROP TRIGGER IF EXISTS meshhook_secrets_deleted ON %s', bound);
      EXECUTE format('DROP TRIGGER IF EXISTS meshhook_secrets_truncated ON %s', bound);
      EXECUTE format('DROP TRIGGER IF EXISTS meshhook_secrets_renaming ON %s', bound);
      EXECUTE format('DROP TRIGGER IF EXISTS meshhook_secrets_renamed ON %s', bound);
    END LOOP;
  END;
  EXECUTE format('CREATE TRIGGER meshhook_secrets_deleted AFTER DELETE ON %s FOR EACH ROW EXECUTE FUNCTION meshhook_secrets.host_project_changed(%L)', projects, id_column);
  -- Before: a row that moves to another partition is no UPDATE afterwards. After: a trigger of the
  -- host may change the id of its own accord.
  EXECUTE format('CREATE TRIGGER meshhook_secrets_renaming BEFORE UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION meshhook_secrets.host_project_changed(%L)', projects, id_column);
  EXECUTE format('CREATE TRIGGER meshhook_secrets_renamed AFTER UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION meshhook_secrets.host_project_changed(%L)', projects, id_column);
  EXECUTE format('CREATE TRIGGER meshhook_secrets_truncated AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION meshhook_secrets.host_project_changed(%L)', projects, id_column);
  PERFORM meshhook_secrets.audit_record_setup('attach_projects', projects::text);
END
$function$;
REVOKE ALL ON FUNCTION meshhook_secrets.attach_projects(regclass, name, name, regprocedure, regprocedure) FROM PUBLIC;
COMMENT ON FUNCTION meshhook_secrets.attach_projects(regclass, name, name, regprocedure, regprocedure) IS
  'Binds secrets to the host''s projects table. Members of a project are what member_function (no argument, SETOF uuid) returns to the caller, or, without one, the user whose JWT claim "sub" is in owner_column; reveal_function narrows who may reveal. Secrets of a project that does not exist are refused; deleting a project removes its secrets and shreds its data keys. For superusers; call again to change. Errors: 22004, 22023.';

CREATE FUNCTION meshhook_secrets.setup_supabase(
  users_may_reveal boolean DEFAULT false,
  users_may_audit boolean DEFAULT false
) RETURNS void
  LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  role_name text;
  grants record;
BEGIN
  IF users_may_reveal IS NULL OR users_may_audit IS NULL THEN
    RAISE EXCEPTION 'argument must not be null' USING ERRCODE = '22004',
      DETAIL = 'The arguments users_may_reveal and users_may_audit cannot be null.', HINT = 'Give true or false.';
  END IF;
  -- The audit writer makes partitions; not while rights are taken from all tables.
  LOCK TABLE ONLY meshhook_secrets.audit_log IN SHARE UPDATE EXCLUSIVE MODE;
  FOREACH role_name IN ARRAY ARRAY['anon', 'authenticated', 'service_role'] LOOP
    IF to_regrole(role_name) IS NULL THEN
      RAISE EXCEPTION 'role does not exist' USING ERRCODE = '42704',
        DETAIL = format('There is no role "%s".', role_name),
        HINT = 'This function is for Supabase; elsewhere grant meshhook_secrets_writer and meshhook_secrets_reader to your own roles.';
    END IF;
    -- From nothing, so that a second call takes away what the first gave.
    EXECUTE format('REVOKE ALL ON SCHEMA meshhook_secrets FROM %I', role_name);
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA meshhook_secrets FROM %I', role_name);
    EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA meshhook_secrets FROM %I', role_name);
    EXECUTE format('REVOKE ALL ON TYPE meshhook_secrets.secret_version_info, meshhook_secrets.secret_info FROM %I', role_name);
    FOR grants IN
      SELECT format('REVOKE %s FROM %I', m.roleid::regrole, role_name)
             || CASE WHEN current_setting('server_version_num')::int >= 160000
                     THEN format(' GRANTED BY %s', m.grantor::regrole) ELSE '' END AS command
        FROM pg_auth_members m
        WHERE m.member = to_regrole(role_name)
          AND m.roleid IN ('meshhook_secrets_writer'::regrole, 'meshhook_secrets_reader'::regrole, 'meshhook_secrets_kek_admin'::regrole, 'meshhook_secrets_auditor'::regrole)
    LOOP
      EXECUTE grants.command;
    END LOOP;
  END LOOP;

  -- Supabase's roles are NOINHERIT, so being a member of our roles would give them nothing: they get
  -- what our roles have, one by one.
  FOR grants IN
    WITH mapping (from_role, to_role) AS (VALUES
      ('meshhook_secrets_writer', 'authenticated'),
      ('meshhook_secrets_writer', 'service_role'),
      ('meshhook_secrets_reader', 'service_role'),
      ('meshhook_secrets_reader', CASE WHEN users_may_reveal THEN 'authenticated' END)
    ), held AS (
      SELECT a.grantee, a.privilege_type, 'SCHEMA ' || quote_ident(n.nspname) AS object, '' AS columns
        FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'meshhook_secrets'
      UNION ALL
      SELECT a.grantee, a.privilege_type, 'FUNCTION ' || p.oid::regprocedure::text, ''
        FROM pg_proc p, aclexplode(p.proacl) a WHERE p.pronamespace = 'meshhook_secrets'::regnamespace
      UNION ALL
      SELECT a.grantee, a.privilege_type, 'TYPE ' || t.oid::regtype::text, ''
        FROM pg_type t, aclexplode(t.typacl) a WHERE t.typnamespace = 'meshhook_secrets'::regnamespace
      UNION ALL
      SELECT a.grantee, a.privilege_type, 'TABLE ' || c.oid::regclass::text, ''
        FROM pg_class c, aclexplode(c.relacl) a WHERE c.relnamespace = 'meshhook_secrets'::regnamespace
      UNION ALL
      SELECT a.grantee, a.privilege_type, 'TABLE ' || c.oid::regclass::text, format('(%I)', t.attname)
        FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid, aclexplode(t.attacl) a
        WHERE c.relnamespace = 'meshhook_secrets'::regnamespace
    )
    SELECT format('GRANT %s %s ON %s TO %I', h.privilege_type, h.columns, h.object, m.to_role) AS command
      FROM mapping m JOIN pg_roles r ON r.rolname = m.from_role JOIN held h ON h.grantee = r.oid
      WHERE m.to_role IS NOT NULL
    UNION ALL
    SELECT 'GRANT EXECUTE ON FUNCTION ' || p.oid::regprocedure::text || ' TO authenticated'
      FROM pg_proc p WHERE users_may_audit AND p.pronamespace = 'meshhook_secrets'::regnamespace AND p.proname = 'audit_search'
  LOOP
    EXECUTE grants.command;
  END LOOP;

  -- What they have by way of other roles is not ours to take away.
  FOR grants IN
    SELECT r.rolname, o.rolname AS ours FROM pg_roles r, pg_roles o
      WHERE r.rolname IN ('anon', 'authenticated', 'service_role') AND NOT r.rolsuper
        AND o.rolname IN ('meshhook_secrets_writer', 'meshhook_secrets_reader', 'meshhook_secrets_kek_admin', 'meshhook_secrets_auditor')
        AND pg_has_role(r.oid, o.oid, 'MEMBER')
    UNION ALL
    SELECT 'anon', 'PUBLIC or another role' WHERE has_schema_privilege('anon', 'meshhook_secrets', 'USAGE')
    LIMIT 1
  LOOP
    RAISE EXCEPTION 'role has rights by way of another role' USING ERRCODE = '42501',
      DETAIL = format('%s is a member of %s.', grants.rolname, grants.ours),
      HINT = 'Take it out of the role in between; nothing has been changed.';
  END LOOP;
  PERFORM meshhook_secrets.audit_record_setup('setup_supabase',
    format('users_may_reveal => %s, users_may_audit => %s', users_may_reveal::text, users_may_audit::text));
END
$function$;
REVOKE ALL ON FUNCTION meshhook_secrets.setup_supabase(boolean, boolean) FROM PUBLIC;
COMMENT ON FUNCTION meshhook_secrets.setup_supabase(boolean, boolean) IS
  'Gives Supabase''s roles their rights: authenticated writes (and reveals if users_may_reveal, and searches the audit records of its own projects if users_may_audit), service_role writes and reveals, anon nothing. Call again to change, and after every upgrade. Nothing is granted on tables with ciphertext. Add meshhook_secrets to the exposed schemas of the API. Errors: 22004, 42704 no such role.';
-- Nothing is allowed by default, not even by ALTER DEFAULT PRIVILEGES of the role that installs: what
-- is granted to others than the owner and our roles goes.
DO $grants$
DECLARE
  granted record;
BEGIN
  FOR granted IN
    WITH objects (object, owner, acl) AS (
      SELECT pg_catalog.format('SCHEMA %I', n.nspname), n.nspowner, n.nspacl
        FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) 'meshhook_secrets'
      UNION ALL
      SELECT pg_catalog.format('TABLE %s', c.oid::pg_catalog.regclass), c.relowner, c.relacl
        FROM pg_catalog.pg_class c
        WHERE c.relnamespace OPERATOR(pg_catalog.=) 'meshhook_secrets'::pg_catalog.regnamespace
          AND c.relkind IN ('r', 'p')
      UNION ALL
      SELECT pg_catalog.format('FUNCTION %s', p.oid::pg_catalog.regprocedure), p.proowner, p.proacl
        FROM pg_catalog.pg_proc p
        WHERE p.pronamespace OPERATOR(pg_catalog.=) 'meshhook_secrets'::pg_catalog.regnamespace
      UNION ALL
      SELECT pg_catalog.format('TYPE %s', t.oid::pg_catalog.regtype), t.typowner, t.typacl
        FROM pg_catalog.pg_type t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.typrelid
        WHERE t.typnamespace OPERATOR(pg_catalog.=) 'meshhook_secrets'::pg_catalog.regnamespace
          AND c.relkind OPERATOR(pg_catalog.=) 'c'
    )
    SELECT DISTINCT o.object,
           CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::pg_catalog.text END AS grantee
      FROM objects o, pg_catalog.aclexplode(o.acl) a
      WHERE a.grantee OPERATOR(pg_catalog.<>) o.owner
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid OPERATOR(pg_catalog.=) a.grantee
          AND r.rolname OPERATOR(pg_catalog.=) ANY (ARRAY['meshhook_secrets_writer', 'meshhook_secrets_reader', 'meshhook_secrets_kek_admin', 'meshhook_secrets_auditor']::pg_catalog.name[]))
  LOOP
    EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s', granted.object, granted.grantee);
  END LOOP;
END
$grants$;
