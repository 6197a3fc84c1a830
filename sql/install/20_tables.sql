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

-- No foreign key between our tables: pg_restore with parallel jobs loads them in any order, and the tables of an
-- extension have their constraints before their rows. A trigger removes the versions of a secret that is removed.
CREATE TABLE meshhook_secrets.secret_versions (
  project_id  uuid NOT NULL,
  secret_id   uuid NOT NULL,
  version     integer NOT NULL,
  dek_version integer NOT NULL,
  value       bytea NOT NULL,
  created_at  timestamptz NOT NULL,
  created_by  text NOT NULL,
  expires_at  timestamptz,
  PRIMARY KEY (project_id, secret_id, version)
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
  kek_id      integer NOT NULL,
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
