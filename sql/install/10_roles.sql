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
