-- Our tables, their guards, the binding to the host, and the host's functions around ours.
WITH extension AS (
  SELECT e.oid, e.extowner, quote_ident(pg_get_userbyid(e.extowner)) AS owner FROM pg_extension e WHERE e.extname = 'meshhook_secrets'
), our_table (oid, name, owner, secured, forced) AS (
  SELECT c.oid, c.oid::regclass::text, c.relowner, c.relrowsecurity, c.relforcerowsecurity
    FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
    JOIN extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
    WHERE c.relkind IN ('r', 'p')
), policy_intended (name, relation, expression, command) AS (VALUES
  ('members', 'project_secrets', 'project_id=ANYSELECTmeshhook_secrets.member_projectsASmember_projects::uuid[]',
   'CREATE POLICY members ON meshhook_secrets.project_secrets
  USING (project_id OPERATOR(pg_catalog.=) ANY ((SELECT meshhook_secrets.member_projects())::pg_catalog.uuid[]))
  WITH CHECK (project_id OPERATOR(pg_catalog.=) ANY ((SELECT meshhook_secrets.member_projects())::pg_catalog.uuid[]));')
), policy_found AS (
  SELECT p.polname AS name, t.oid AS table_id, t.name AS table_name,
         EXISTS (SELECT FROM policy_intended i WHERE i.name = p.polname AND to_regclass('meshhook_secrets.' || i.relation) = t.oid) AS known,
         EXISTS (
           SELECT FROM policy_intended i
           WHERE i.name = p.polname AND to_regclass('meshhook_secrets.' || i.relation) = t.oid
             AND p.polpermissive AND p.polcmd = '*' AND p.polroles = '{0}'
             AND regexp_replace(pg_get_expr(p.polqual, p.polrelid), '[\s()]', '', 'g') = i.expression
             AND regexp_replace(pg_get_expr(p.polwithcheck, p.polrelid), '[\s()]', '', 'g') = i.expression) AS intended
    FROM pg_policy p JOIN our_table t ON t.oid = p.polrelid
), binding AS (
  SELECT s.value, to_regclass(format('%I.%I', s.value ->> 'schema', s.value ->> 'table')) AS projects
    FROM meshhook_secrets.settings s WHERE s.key = 'attach_projects'
), attach (projects, command) AS (
  SELECT b.projects, format('SELECT meshhook_secrets.attach_projects(%L, %L, %s, %s, %s);',
      format('%I.%I', b.value ->> 'schema', b.value ->> 'table'), b.value ->> 'id_column',
      coalesce(quote_literal(b.value ->> 'owner_column'), 'NULL'),
      CASE WHEN b.value ->> 'member_function' IS NULL THEN 'NULL'
           ELSE quote_literal(format('%I.%I()', b.value ->> 'member_schema', b.value ->> 'member_function')) END,
      CASE WHEN b.value ->> 'reveal_function' IS NULL THEN 'NULL'
           ELSE quote_literal(format('%I.%I()', b.value ->> 'reveal_schema', b.value ->> 'reveal_function')) END)
    FROM binding b
), listed (name, bare) AS (
  -- As the library reads it: with or without arguments and quotes, in upper or lower case.
  SELECT trim(n), lower(replace(trim(n), '"', ''))
    FROM regexp_split_to_table(
      (SELECT regexp_replace(s.setting, '\([^()]*\)', '', 'g') FROM pg_settings s WHERE s.name = 'meshhook_secrets.value_functions'), ',') n
    WHERE trim(n) <> ''
), wrapper AS (
  SELECT p.oid, p.oid::regprocedure::text AS signature, quote_ident(n.nspname) || '.' || quote_ident(p.proname) AS name,
         p.prosecdef, p.proconfig, p.prokind,
         n.nspname || '.' || p.proname ~ '[[:cntrl:]]' AS hidden,
         -- Anybody may choose the name of a function: what is proposed must not have half the log masked.
         n.nspname ~ '^[A-Za-z_][A-Za-z0-9_]*$' AND p.proname ~ '^[A-Za-z_][A-Za-z0-9_]*$'
           AND NOT EXISTS (SELECT FROM pg_get_keywords() k WHERE k.word = lower(p.proname)) AS plain,
         EXISTS (SELECT FROM listed l WHERE l.bare IN (lower(p.proname), lower(n.nspname || '.' || p.proname)))
           -- These the library does not take.
           AND NOT EXISTS (SELECT FROM pg_get_keywords() k WHERE k.word = lower(p.proname) AND k.catcode = 'R')
           AND lower(p.proname) NOT IN ('delete', 'insert', 'set', 'text', 'update', 'values') AS listed
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname NOT IN ('meshhook_secrets', 'pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(temp|toast)'
      AND p.prokind IN ('f', 'p')
      AND (p.prosrc ~* '\msecret_(put|put_bytes|get|get_bytes|get_many)\M'
           OR EXISTS (SELECT FROM pg_depend d JOIN pg_proc f ON f.oid = d.refobjid
                WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_proc'::regclass
                  AND f.pronamespace = 'meshhook_secrets'::regnamespace
                  AND f.proname IN ('secret_put', 'secret_put_bytes', 'secret_get', 'secret_get_bytes', 'secret_get_many')))
)
SELECT 'critical' AS severity, 'row_security' AS finding, format('Row-level security of %s is switched off or not forced.', t.name) AS detail,
       format(E'ALTER TABLE %s ENABLE ROW LEVEL SECURITY;\nALTER TABLE %s FORCE ROW LEVEL SECURITY;', t.name, t.name) AS remedy, t.oid AS object
  FROM our_table t WHERE NOT (t.secured AND t.forced)
UNION ALL
SELECT 'critical', 'policy_added', format('Policy %I on %s is not ours.', p.name, p.table_name),
       format('DROP POLICY %I ON %s;', p.name, p.table_name), p.table_id
  FROM policy_found p WHERE NOT p.known
UNION ALL
SELECT 'critical', 'policy_changed', format('Policy %I on meshhook_secrets.%I is missing or changed.', i.name, i.relation),
       format(E'DROP POLICY IF EXISTS %I ON meshhook_secrets.%I;\n', i.name, i.relation) || i.command, NULL
  FROM policy_intended i
  WHERE NOT EXISTS (SELECT FROM policy_found p WHERE p.intended AND p.name = i.name)
UNION ALL
SELECT 'critical', 'guard_missing', format('%s can be changed past the functions: its trigger is missing or disabled.', t.name),
       format(E'DROP TRIGGER IF EXISTS refuse_direct_change ON %s;\nCREATE TRIGGER refuse_direct_change BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION meshhook_secrets.refuse_direct_change();', t.name, t.name), t.oid
  FROM our_table t
  WHERE NOT EXISTS (
    SELECT FROM pg_trigger g WHERE g.tgrelid = t.oid AND g.tgname = 'refuse_direct_change' AND g.tgenabled IN ('O', 'A')
      AND g.tgtype = 62 AND g.tgfoid = 'meshhook_secrets.refuse_direct_change()'::regprocedure AND g.tgqual IS NULL)
UNION ALL
SELECT 'critical', 'trigger_added', format('Trigger %I on %s is not ours; it runs inside our statements.', g.tgname, t.name),
       format('DROP TRIGGER %I ON %s;', g.tgname, t.name), g.oid
  FROM pg_trigger g JOIN our_table t ON t.oid = g.tgrelid JOIN pg_proc p ON p.oid = g.tgfoid
  WHERE NOT g.tgisinternal AND p.pronamespace <> 'meshhook_secrets'::regnamespace
UNION ALL
SELECT 'critical', 'rule_added', format('Rule %I on %s is not ours; it runs in the place of our statements.', r.rulename, t.name),
       format('DROP RULE %I ON %s;', r.rulename, t.name), r.oid
  FROM pg_rewrite r JOIN our_table t ON t.oid = r.ev_class
UNION ALL
SELECT 'critical', 'owner', format('%s belongs to %s, not to the owner of the extension.', o.name, pg_get_userbyid(o.owner)),
       format('ALTER %s %s OWNER TO %s;', o.kind, o.name, e.owner), o.oid
  FROM (SELECT 'TABLE' AS kind, t.name, t.owner, t.oid FROM our_table t
        UNION ALL
        SELECT 'FUNCTION', p.oid::regprocedure::text, p.proowner, p.oid FROM pg_proc p WHERE p.pronamespace = 'meshhook_secrets'::regnamespace
        UNION ALL
        SELECT 'SCHEMA', quote_ident(n.nspname), n.nspowner, n.oid FROM pg_namespace n WHERE n.nspname = 'meshhook_secrets') o, extension e
  WHERE o.owner <> e.extowner
UNION ALL
SELECT 'info', 'not_attached', 'No projects table is attached: only superusers and roles with BYPASSRLS get anywhere.',
       'SELECT meshhook_secrets.attach_projects(''public.projects'');', NULL
  WHERE NOT EXISTS (SELECT FROM binding)
UNION ALL
SELECT 'critical', 'attached_table', format('The attached projects table %I.%I is gone: everybody is locked out.', b.value ->> 'schema', b.value ->> 'table'),
       'SELECT meshhook_secrets.attach_projects(''public.projects'');', NULL
  FROM binding b WHERE b.projects IS NULL
UNION ALL
SELECT 'critical', 'attached_triggers', format('Triggers on %s are missing or disabled: secrets of deleted projects would stay.', a.projects), a.command, a.projects::oid
  FROM attach a
  WHERE a.projects IS NOT NULL AND 4 > (
    SELECT count(*) FROM pg_trigger g
    WHERE g.tgrelid = a.projects AND g.tgfoid = 'meshhook_secrets.host_project_changed()'::regprocedure
      AND g.tgenabled IN ('O', 'A') AND g.tgqual IS NULL
      AND (g.tgname, g.tgtype) IN (('meshhook_secrets_deleted', 9), ('meshhook_secrets_renaming', 19), ('meshhook_secrets_renamed', 17), ('meshhook_secrets_truncated', 32)))
UNION ALL
SELECT 'warning', 'wrapper_not_listed',
       format('Functions around ours are not in meshhook_secrets.value_functions, so their literals are logged: %s.', string_agg(w.name, ', ' ORDER BY w.name)),
       concat_ws(E'\n',
         CASE WHEN bool_or(w.plain) THEN
           format(E'ALTER SYSTEM SET meshhook_secrets.value_functions = %L;\nSELECT pg_reload_conf();',
                  concat_ws(', ', (SELECT string_agg(l.name, ', ') FROM listed l), string_agg(DISTINCT w.name, ', ') FILTER (WHERE w.plain))) END,
         string_agg(DISTINCT CASE WHEN w.hidden THEN format('-- The name has control characters: look at OID %s', w.oid)
                                  ELSE format('-- Rename it, or list it by hand if it is yours: %s', w.name) END, E'\n') FILTER (WHERE NOT w.plain)), NULL
  FROM wrapper w WHERE NOT w.listed HAVING count(*) > 0
UNION ALL
SELECT 'warning', 'wrapper_search_path',
       format('%s calls us with its owner''s rights, and its caller''s search_path decides what it calls.', w.signature),
       format('ALTER %s %s SET search_path = pg_catalog, pg_temp;', CASE w.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, w.signature), w.oid
  FROM wrapper w
  WHERE w.prosecdef AND NOT EXISTS (
    SELECT FROM unnest(w.proconfig) c WHERE c = 'search_path=""' OR c ~ '^search_path=.*, *"?pg_temp"?$')
