-- Binding to the host application.

CREATE FUNCTION meshhook_secrets.host_project_changed() RETURNS trigger
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_host_project_changed';
REVOKE ALL ON FUNCTION meshhook_secrets.host_project_changed() FROM PUBLIC;
COMMENT ON FUNCTION meshhook_secrets.host_project_changed() IS
  'Trigger on the attached projects table: deleting a project removes its secrets and shreds its data keys; changing the id of a project that has secrets is refused (23503).';

CREATE FUNCTION meshhook_secrets.attach_projects(
  projects regclass,
  id_column name DEFAULT 'id',
  owner_column name DEFAULT 'owner',
  member_function regprocedure DEFAULT NULL,
  reveal_function regprocedure DEFAULT NULL
) RETURNS void
  LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  table_owner oid;
  kind "char";
  column_type oid;
  host_function regprocedure;
BEGIN
  IF projects IS NULL OR id_column IS NULL OR (owner_column IS NULL AND member_function IS NULL) THEN
    RAISE EXCEPTION 'argument must not be null' USING ERRCODE = '22004',
      DETAIL = 'projects, id_column, and one of owner_column and member_function are needed.',
      HINT = 'SELECT meshhook_secrets.attach_projects(''public.projects'');';
  END IF;

  SELECT c.relowner, c.relkind INTO table_owner, kind FROM pg_class c WHERE c.oid = projects;
  IF kind NOT IN ('r', 'p') THEN
    RAISE EXCEPTION 'invalid argument' USING ERRCODE = '22023',
      DETAIL = 'projects must be a table: its rows are locked, and its deletions are noticed by a trigger.',
      HINT = 'Name the table that the view or foreign table shows.';
  END IF;
  IF EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = projects OR (kind = 'r' AND i.inhparent = projects)) THEN
    RAISE EXCEPTION 'invalid argument' USING ERRCODE = '22023',
      DETAIL = 'projects inherits or is inherited from (or is a partition): deletions in the other tables would not be noticed.',
      HINT = 'Use a table of its own, or the partitioned table as a whole.';
  END IF;

  SELECT a.atttypid INTO column_type FROM pg_attribute a
    WHERE a.attrelid = projects AND a.attname = id_column AND a.attnum > 0 AND NOT a.attisdropped;
  IF column_type IS DISTINCT FROM 'uuid'::regtype OR NOT EXISTS (
      SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
      WHERE i.indrelid = projects AND i.indisunique AND i.indisvalid AND i.indisready AND i.indnkeyatts = 1 AND i.indpred IS NULL
        AND i.indexprs IS NULL AND a.attname = id_column) THEN
    RAISE EXCEPTION 'invalid argument' USING ERRCODE = '22023',
      DETAIL = 'id_column must be a column of type uuid with a unique index of its own.',
      HINT = 'Give the table a primary key of type uuid.';
  END IF;

  IF member_function IS NULL THEN
    SELECT a.atttypid INTO column_type FROM pg_attribute a
      WHERE a.attrelid = projects AND a.attname = owner_column AND a.attnum > 0 AND NOT a.attisdropped;
    IF column_type IS NULL OR column_type NOT IN ('uuid'::regtype, 'text'::regtype) THEN
      RAISE EXCEPTION 'invalid argument' USING ERRCODE = '22023',
        DETAIL = 'owner_column must be a column of type uuid or text: it is compared with the claim "sub" of the user''s JWT.',
        HINT = 'Name another column, or give a member_function.';
    END IF;
  END IF;

  -- The functions decide who sees what, so whoever owns them could open everything: only the owner
  -- of the projects, or a superuser. The same is checked again at every use.
  FOREACH host_function IN ARRAY ARRAY[member_function, reveal_function] LOOP
    CONTINUE WHEN host_function IS NULL;
    IF NOT EXISTS (
        SELECT FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner
        WHERE p.oid = host_function AND p.prokind = 'f' AND p.proretset AND p.pronargs = 0
          AND p.prorettype = 'uuid'::regtype AND (p.proowner = table_owner OR r.rolsuper)) THEN
      RAISE EXCEPTION 'invalid argument' USING ERRCODE = '22023',
        DETAIL = 'member_function and reveal_function must have no argument, return SETOF uuid, and belong to the owner of the projects table or a superuser.',
        HINT = 'CREATE FUNCTION user_project_ids() RETURNS SETOF uuid ..., owned by the owner of the table.';
    END IF;
    -- pg_temp is searched first unless it is named: a temporary table of the caller's would decide.
    IF EXISTS (
        SELECT FROM pg_proc p WHERE p.oid = host_function AND p.prosqlbody IS NULL AND NOT EXISTS (
          SELECT FROM unnest(p.proconfig) c WHERE c = 'search_path=""' OR c ~ '^search_path=.*, *"?pg_temp"?$')) THEN
      RAISE WARNING 'search_path of function % is open to temporary objects', host_function
        USING DETAIL = 'Whoever may run SQL as a user and create temporary tables can decide what it returns.',
              HINT = format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp; and qualify the names in it.', host_function);
    END IF;
  END LOOP;

  -- Refuses where nothing can be written.
  PERFORM meshhook_secrets.audit_record_setup('attach_projects', projects::text);
  INSERT INTO meshhook_secrets.settings (key, value)
  SELECT 'attach_projects', jsonb_build_object(
      'schema', n.nspname, 'table', c.relname, 'id_column', id_column,
      'owner_column', CASE WHEN member_function IS NULL THEN owner_column END,
      'member_schema', mn.nspname, 'member_function', m.proname,
      'reveal_schema', rn.nspname, 'reveal_function', r.proname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN (pg_proc m JOIN pg_namespace mn ON mn.oid = m.pronamespace) ON m.oid = member_function
    LEFT JOIN (pg_proc r JOIN pg_namespace rn ON rn.oid = r.pronamespace) ON r.oid = reveal_function
    WHERE c.oid = projects
  ON CONFLICT (key) DO UPDATE SET value = excluded.value;

  -- The triggers are the host's: they are dumped and restored with its table. Those of an earlier
  -- binding to another table go.
  DECLARE
    bound regclass;
  BEGIN
    FOR bound IN SELECT DISTINCT t.tgrelid::regclass FROM pg_trigger t
        WHERE t.tgfoid = 'meshhook_secrets.host_project_changed()'::regprocedure AND NOT t.tgisinternal AND t.tgparentid = 0 LOOP
      EXECUTE format('DROP TRIGGER IF EXISTS meshhook_secrets_deleted ON %s', bound);
      EXECUTE format('DROP TRIGGER IF EXISTS meshhook_secrets_truncated ON %s', bound);
      EXECUTE format('DROP TRIGGER IF EXISTS meshhook_secrets_renaming ON %s', bound);
      EXECUTE format('DROP TRIGGER IF EXISTS meshhook_secrets_renamed ON %s', bound);
    END LOOP;
  END;
  EXECUTE format('CREATE TRIGGER meshhook_secrets_deleted AFTER DELETE ON %s FOR EACH ROW EXECUTE FUNCTION meshhook_secrets.host_project_changed(%L)', projects, id_column);
  -- Before: a row that moves to another partition is no UPDATE afterwards. After: a trigger of the
  -- host may change the id of its own accord.
  EXECUTE format('CREATE TRIGGER meshhook_secrets_renaming BEFORE UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION meshhook_secrets.host_project_changed(%L)', projects, id_column);
  EXECUTE format('CREATE TRIGGER meshhook_secrets_renamed AFTER UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION meshhook_secrets.host_project_changed(%L)', projects, id_column);
  EXECUTE format('CREATE TRIGGER meshhook_secrets_truncated AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION meshhook_secrets.host_project_changed(%L)', projects, id_column);
END
$function$;
REVOKE ALL ON FUNCTION meshhook_secrets.attach_projects(regclass, name, name, regprocedure, regprocedure) FROM PUBLIC;
COMMENT ON FUNCTION meshhook_secrets.attach_projects(regclass, name, name, regprocedure, regprocedure) IS
  'Binds secrets to the host''s projects table. Members of a project are what member_function (no argument, SETOF uuid) returns to the caller, or, without one, the user whose JWT claim "sub" is in owner_column; reveal_function narrows who may reveal. Secrets of a project that does not exist are refused; deleting a project removes its secrets and shreds its data keys. For superusers; call again to change. Errors: 22004, 22023.';

CREATE FUNCTION meshhook_secrets.setup_supabase(
  users_may_reveal boolean DEFAULT false,
  users_may_audit boolean DEFAULT false
) RETURNS void
  LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  role_name text;
  grants record;
BEGIN
  IF users_may_reveal IS NULL OR users_may_audit IS NULL THEN
    RAISE EXCEPTION 'argument must not be null' USING ERRCODE = '22004',
      DETAIL = 'The arguments users_may_reveal and users_may_audit cannot be null.', HINT = 'Give true or false.';
  END IF;
  -- Refuses where nothing can be written.
  PERFORM meshhook_secrets.audit_record_setup('setup_supabase',
    format('users_may_reveal => %s, users_may_audit => %s', users_may_reveal::text, users_may_audit::text));
  -- The audit writer makes partitions; not while rights are taken from all tables.
  LOCK TABLE ONLY meshhook_secrets.audit_log IN SHARE UPDATE EXCLUSIVE MODE;
  FOREACH role_name IN ARRAY ARRAY['anon', 'authenticated', 'service_role'] LOOP
    IF to_regrole(role_name) IS NULL THEN
      RAISE EXCEPTION 'role does not exist' USING ERRCODE = '42704',
        DETAIL = format('There is no role "%s".', role_name),
        HINT = 'This function is for Supabase; elsewhere grant meshhook_secrets_writer and meshhook_secrets_reader to your own roles.';
    END IF;
    -- From nothing, so that a second call takes away what the first gave.
    EXECUTE format('REVOKE ALL ON SCHEMA meshhook_secrets FROM %I', role_name);
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA meshhook_secrets FROM %I', role_name);
    EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA meshhook_secrets FROM %I', role_name);
    EXECUTE format('REVOKE ALL ON TYPE meshhook_secrets.secret_version_info, meshhook_secrets.secret_info FROM %I', role_name);
    FOR grants IN
      SELECT format('REVOKE %s FROM %I', m.roleid::regrole, role_name)
             || CASE WHEN current_setting('server_version_num')::int >= 160000
                     THEN format(' GRANTED BY %s', m.grantor::regrole) ELSE '' END AS command
        FROM pg_auth_members m
        WHERE m.member = to_regrole(role_name)
          AND m.roleid IN ('meshhook_secrets_writer'::regrole, 'meshhook_secrets_reader'::regrole, 'meshhook_secrets_kek_admin'::regrole, 'meshhook_secrets_auditor'::regrole)
    LOOP
      EXECUTE grants.command;
    END LOOP;
  END LOOP;

  -- Supabase's roles are NOINHERIT, so being a member of our roles would give them nothing: they get
  -- what our roles have, one by one.
  FOR grants IN
    WITH mapping (from_role, to_role) AS (VALUES
      ('meshhook_secrets_writer', 'authenticated'),
      ('meshhook_secrets_writer', 'service_role'),
      ('meshhook_secrets_reader', 'service_role'),
      ('meshhook_secrets_reader', CASE WHEN users_may_reveal THEN 'authenticated' END)
    ), held AS (
      SELECT a.grantee, a.privilege_type, 'SCHEMA ' || quote_ident(n.nspname) AS object, '' AS columns
        FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'meshhook_secrets'
      UNION ALL
      SELECT a.grantee, a.privilege_type, 'FUNCTION ' || p.oid::regprocedure::text, ''
        FROM pg_proc p, aclexplode(p.proacl) a WHERE p.pronamespace = 'meshhook_secrets'::regnamespace
      UNION ALL
      SELECT a.grantee, a.privilege_type, 'TYPE ' || t.oid::regtype::text, ''
        FROM pg_type t, aclexplode(t.typacl) a WHERE t.typnamespace = 'meshhook_secrets'::regnamespace
      UNION ALL
      SELECT a.grantee, a.privilege_type, 'TABLE ' || c.oid::regclass::text, ''
        FROM pg_class c, aclexplode(c.relacl) a WHERE c.relnamespace = 'meshhook_secrets'::regnamespace
      UNION ALL
      SELECT a.grantee, a.privilege_type, 'TABLE ' || c.oid::regclass::text, format('(%I)', t.attname)
        FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid, aclexplode(t.attacl) a
        WHERE c.relnamespace = 'meshhook_secrets'::regnamespace
    )
    SELECT format('GRANT %s %s ON %s TO %I', h.privilege_type, h.columns, h.object, m.to_role) AS command
      FROM mapping m JOIN pg_roles r ON r.rolname = m.from_role JOIN held h ON h.grantee = r.oid
      WHERE m.to_role IS NOT NULL
    UNION ALL
    SELECT 'GRANT EXECUTE ON FUNCTION ' || p.oid::regprocedure::text || ' TO authenticated'
      FROM pg_proc p WHERE users_may_audit AND p.pronamespace = 'meshhook_secrets'::regnamespace AND p.proname = 'audit_search'
  LOOP
    EXECUTE grants.command;
  END LOOP;

  -- What they have by way of other roles is not ours to take away.
  FOR grants IN
    SELECT r.rolname, o.rolname AS ours FROM pg_roles r, pg_roles o
      WHERE r.rolname IN ('anon', 'authenticated', 'service_role') AND NOT r.rolsuper
        AND o.rolname IN ('meshhook_secrets_writer', 'meshhook_secrets_reader', 'meshhook_secrets_kek_admin', 'meshhook_secrets_auditor')
        AND pg_has_role(r.oid, o.oid, 'MEMBER')
    UNION ALL
    SELECT 'anon', 'PUBLIC or another role' WHERE has_schema_privilege('anon', 'meshhook_secrets', 'USAGE')
    LIMIT 1
  LOOP
    RAISE EXCEPTION 'role has rights by way of another role' USING ERRCODE = '42501',
      DETAIL = format('%s is a member of %s.', grants.rolname, grants.ours),
      HINT = 'Take it out of the role in between; nothing has been changed.';
  END LOOP;
END
$function$;
REVOKE ALL ON FUNCTION meshhook_secrets.setup_supabase(boolean, boolean) FROM PUBLIC;
COMMENT ON FUNCTION meshhook_secrets.setup_supabase(boolean, boolean) IS
  'Gives Supabase''s roles their rights: authenticated writes (and reveals if users_may_reveal, and searches the audit records of its own projects if users_may_audit), service_role writes and reveals, anon nothing. Call again to change, and after every upgrade. Nothing is granted on tables with ciphertext. Add meshhook_secrets to the exposed schemas of the API. Errors: 22004, 42704 no such role.';
