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
