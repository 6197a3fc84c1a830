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
