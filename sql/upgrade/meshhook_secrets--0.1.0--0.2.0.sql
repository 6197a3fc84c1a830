\echo Use "ALTER EXTENSION meshhook_secrets UPDATE TO '0.2.0'" to load this file. \quit

-- From 0.1.0 to 0.2.0. Between the first block and the last stands what sql/install has and 0.1.0 had not.

DO $before$
BEGIN
  -- What is there already; the last block looks at what came.
  PERFORM pg_catalog.set_config('meshhook_secrets_update.known', (
    SELECT pg_catalog.string_agg(pg_catalog.format('%s.%s', d.classid::pg_catalog.oid, d.objid), ',')
      FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
      WHERE e.extname OPERATOR(pg_catalog.=) 'meshhook_secrets' AND d.deptype OPERATOR(pg_catalog.=) 'e'
        AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass), true);
  -- What default privileges give to our own roles could not be told from what we grant.
  IF EXISTS (
      SELECT FROM pg_catalog.pg_default_acl d, pg_catalog.aclexplode(d.defaclacl) a, pg_catalog.pg_roles r
      WHERE r.oid OPERATOR(pg_catalog.=) a.grantee
        AND d.defaclrole OPERATOR(pg_catalog.=) (SELECT u.oid FROM pg_catalog.pg_roles u WHERE u.rolname OPERATOR(pg_catalog.=) CURRENT_USER)
        AND r.rolname OPERATOR(pg_catalog.=) ANY (ARRAY['meshhook_secrets_writer', 'meshhook_secrets_reader', 'meshhook_secrets_kek_admin', 'meshhook_secrets_auditor']::pg_catalog.name[])) THEN
    RAISE EXCEPTION 'default privileges grant to roles of meshhook_secrets'
      USING ERRCODE = '42501', HINT = 'ALTER DEFAULT PRIVILEGES ... REVOKE ... FROM these roles, then try again.';
  END IF;
END
$before$;

-- The library that the server runs must know all of these functions. After the package was upgraded, the server
-- runs the old library until it is restarted, and one of 0.1.0 lacks even this function.
DO $library$
DECLARE
  needed text;
BEGIN
  SELECT e.extversion INTO needed FROM pg_catalog.pg_extension e WHERE e.extname OPERATOR(pg_catalog.=) 'meshhook_secrets';
  BEGIN
    CREATE FUNCTION meshhook_secrets.library_version() RETURNS text
      LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_library_version';
    IF pg_catalog.string_to_array(meshhook_secrets.library_version(), '.')::integer[]
        OPERATOR(pg_catalog.>=) pg_catalog.string_to_array(needed, '.')::integer[] THEN
      RETURN;
    END IF;
  EXCEPTION WHEN undefined_function THEN
    NULL; -- no such symbol in the library
  END;
  RAISE EXCEPTION 'the server runs an older library of meshhook_secrets' USING ERRCODE = '55000',
    DETAIL = pg_catalog.format('Version %s of the library or later is needed. Nothing has been changed.', needed),
    HINT = 'Restart the server: it then loads the library that is installed. If that does not help, install the package again.';
END
$library$;
REVOKE ALL ON FUNCTION meshhook_secrets.library_version() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.library_version() TO meshhook_secrets_auditor, meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.library_version() IS
  'The version of the library that the server runs. doctor() compares it with those of the database''s functions and of the installed package. Works without preloading.';

-- The tables that change below, all at once or none: a client that holds one of them may want another, and must not
-- become the victim of a deadlock. So each wait is short, and what was got is given back before the next attempt.
DO $locks$
DECLARE
  patience constant text := pg_catalog.current_setting('lock_timeout');
  give_up constant timestamptz := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) '1 minute'::interval;
BEGIN
  LOOP
    BEGIN
      PERFORM pg_catalog.set_config('lock_timeout', '100ms', true);
      LOCK TABLE meshhook_secrets.project_secrets, meshhook_secrets.secret_versions, meshhook_secrets.kek_storage,
        meshhook_secrets.rotation_jobs IN ACCESS EXCLUSIVE MODE;
      PERFORM pg_catalog.set_config('lock_timeout', patience, true);
      RETURN;
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
      IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>) give_up THEN
        RAISE EXCEPTION 'a transaction that uses secrets does not end' USING ERRCODE = '55P03',
          DETAIL = 'The update waits for it for a minute. Nothing has been changed.',
          HINT = 'See who is idle in transaction in pg_stat_activity, and what is prepared in pg_prepared_xacts, then try again.';
      END IF;
      PERFORM pg_catalog.pg_sleep(0.1);
    END;
  END LOOP;
END
$locks$;

-- pg_restore with several jobs loads tables in the order of their sizes, and these keys are there before the data:
-- versions were refused. A trigger does what the first one did.
ALTER TABLE meshhook_secrets.secret_versions DROP CONSTRAINT secret_versions_project_id_secret_id_fkey;
ALTER TABLE meshhook_secrets.rotation_jobs DROP CONSTRAINT rotation_jobs_kek_id_fkey;
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

-- Both say at once where nothing can be written.
CREATE OR REPLACE FUNCTION meshhook_secrets.attach_projects(
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

CREATE OR REPLACE FUNCTION meshhook_secrets.setup_supabase(
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

-- What came belongs to the owner of the extension, whoever updates, and nobody has rights on it by default
-- privileges. The rights of objects that were there before stay as the host has them.
DO $after$
DECLARE
  came record;
  others text;
BEGIN
  FOR came IN
    SELECT CASE i.type WHEN 'view' THEN 'table' ELSE i.type END AS kind, i.identity, o.acl, o.owner, e.extowner
      FROM pg_catalog.pg_extension e
      JOIN pg_catalog.pg_depend d ON d.refobjid OPERATOR(pg_catalog.=) e.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'
        AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
      JOIN (
        SELECT p.tableoid, p.oid, p.proowner, p.proacl FROM pg_catalog.pg_proc p
        UNION ALL SELECT c.tableoid, c.oid, c.relowner, c.relacl FROM pg_catalog.pg_class c
        UNION ALL SELECT t.tableoid, t.oid, t.typowner, t.typacl FROM pg_catalog.pg_type t
      ) o (class, oid, owner, acl) ON o.class OPERATOR(pg_catalog.=) d.classid AND o.oid OPERATOR(pg_catalog.=) d.objid,
      pg_catalog.pg_identify_object(d.classid, d.objid, 0) i
      WHERE e.extname OPERATOR(pg_catalog.=) 'meshhook_secrets'
        AND pg_catalog.format('%s.%s', d.classid::pg_catalog.oid, d.objid) OPERATOR(pg_catalog.<>) ALL (
          pg_catalog.string_to_array(pg_catalog.current_setting('meshhook_secrets_update.known'), ','))
  LOOP
    IF came.owner OPERATOR(pg_catalog.<>) came.extowner THEN
      EXECUTE pg_catalog.format('ALTER %s %s OWNER TO %s', came.kind, came.identity, came.extowner::pg_catalog.regrole);
    END IF;
    SELECT pg_catalog.string_agg(DISTINCT a.grantee::pg_catalog.regrole::pg_catalog.text, ', ') INTO others
      FROM pg_catalog.aclexplode(came.acl) a JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) a.grantee
      WHERE a.grantee OPERATOR(pg_catalog.<>) came.owner AND a.grantee OPERATOR(pg_catalog.<>) came.extowner
        AND r.rolname OPERATOR(pg_catalog.<>) ALL (ARRAY['meshhook_secrets_writer', 'meshhook_secrets_reader', 'meshhook_secrets_kek_admin', 'meshhook_secrets_auditor']::pg_catalog.name[]);
    -- Even where there is nothing to revoke: this writes the rights down as those that the extension gave.
    EXECUTE pg_catalog.concat_ws(', ', pg_catalog.format('REVOKE ALL ON %s %s FROM PUBLIC', came.kind, came.identity), others);
  END LOOP;
END
$after$;
