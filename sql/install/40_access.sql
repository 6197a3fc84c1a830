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

-- What a foreign key with ON DELETE CASCADE would do, which pg_restore with parallel jobs cannot have.
CREATE FUNCTION meshhook_secrets.remove_versions() RETURNS trigger
  LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  DELETE FROM meshhook_secrets.secret_versions v WHERE v.project_id = OLD.project_id AND v.secret_id = OLD.id;
  RETURN NULL;
END
$function$;
REVOKE ALL ON FUNCTION meshhook_secrets.remove_versions() FROM PUBLIC;
COMMENT ON FUNCTION meshhook_secrets.remove_versions() IS
  'Removes the versions of a secret that is removed, whoever removes it.';
CREATE TRIGGER remove_versions AFTER DELETE ON meshhook_secrets.project_secrets
  FOR EACH ROW EXECUTE FUNCTION meshhook_secrets.remove_versions();

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
