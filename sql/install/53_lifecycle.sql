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
