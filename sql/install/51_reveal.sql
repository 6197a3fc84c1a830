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
