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
          HINT = 'See who is idle in transaction in pg_stat_activity, then try again.';
      END IF;
      PERFORM pg_catalog.pg_sleep(0.1);
    END;
  END LOOP;
END
$locks$;

-- pg_restore with several jobs loads tables in the order of their sizes, and these keys are there before the data:
-- versions were refused. The functions see to what they saw to.
ALTER TABLE meshhook_secrets.secret_versions DROP CONSTRAINT secret_versions_project_id_secret_id_fkey;
ALTER TABLE meshhook_secrets.rotation_jobs DROP CONSTRAINT rotation_jobs_kek_id_fkey;

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
