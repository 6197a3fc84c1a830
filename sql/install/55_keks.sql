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
