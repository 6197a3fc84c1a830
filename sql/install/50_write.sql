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
