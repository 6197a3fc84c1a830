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
