-- All that the extension is in a database, a line for each thing: what it is, its name, how it is.
-- Names instead of OIDs, so that two databases can be compared. ACLs are sorted; `initially` is what the
-- extension itself granted (pg_init_privs), which pg_dump leaves out.
WITH extension AS (
  SELECT * FROM pg_extension WHERE extname = 'meshhook_secrets'
), member AS (
  -- What belongs to the extension, by pg_depend; 0 stands for the object as a whole.
  SELECT d.classid, d.objid, i.type, i.identity
    FROM extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e',
    pg_identify_object(d.classid, d.objid, d.objsubid) i
), rights AS (
  SELECT 'pg_namespace'::regclass AS classid, oid AS objid, 0 AS part, nspowner AS owner, nspacl AS acl FROM pg_namespace
  UNION ALL SELECT 'pg_class'::regclass, oid, 0, relowner, relacl FROM pg_class
  UNION ALL SELECT 'pg_class'::regclass, attrelid, attnum, NULL, attacl FROM pg_attribute
  UNION ALL SELECT 'pg_proc'::regclass, oid, 0, proowner, proacl FROM pg_proc
  UNION ALL SELECT 'pg_type'::regclass, oid, 0, typowner, typacl FROM pg_type
), our_table AS (
  SELECT c.* FROM member m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid
), our_type AS (
  SELECT t.*, c.oid AS relation FROM member m
    JOIN pg_type t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid
    LEFT JOIN pg_class c ON c.oid = t.typrelid
)
SELECT 'extension' AS kind, extname::text AS name,
       format('version %s owner %s schema %s relocatable %s', extversion, extowner::regrole, extnamespace::regnamespace, extrelocatable) AS how
  FROM extension
UNION ALL
SELECT 'dumped', c.table_id::regclass::text, format('where %L', e.extcondition[c.position])
  FROM extension e, unnest(e.extconfig) WITH ORDINALITY c (table_id, position)
UNION ALL
SELECT 'member', m.identity, m.type FROM member m
UNION ALL
SELECT 'depends', pg_describe_object(d.classid, d.objid, d.objsubid),
       format('%s on %s', d.deptype, pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid))
  FROM member m JOIN pg_depend d ON d.classid = m.classid AND d.objid = m.objid
UNION ALL
SELECT 'rights', concat_ws(' ', m.type, m.identity, a.attname),
       format('owner %s rights %s initially %s', r.owner::regrole,
         (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(r.acl) x),
         (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(p.initprivs) x))
  FROM member m JOIN rights r USING (classid, objid)
  LEFT JOIN pg_attribute a ON m.classid = 'pg_class'::regclass AND a.attrelid = m.objid AND a.attnum = r.part
  LEFT JOIN pg_init_privs p ON p.classoid = m.classid AND p.objoid = m.objid AND p.objsubid = r.part
  WHERE r.part >= 0
UNION ALL
SELECT 'comment', pg_describe_object(o.classoid, o.objoid, o.objsubid), o.description
  FROM member m JOIN pg_description o ON o.classoid = m.classid AND o.objoid = m.objid
UNION ALL
SELECT 'comment', coalesce(conname, polname, tgname), description FROM pg_description o
  LEFT JOIN pg_constraint n ON n.oid = o.objoid AND n.conrelid IN (SELECT oid FROM our_table)
  LEFT JOIN pg_policy p ON p.oid = o.objoid AND p.polrelid IN (SELECT oid FROM our_table)
  LEFT JOIN pg_trigger t ON t.oid = o.objoid AND t.tgrelid IN (SELECT oid FROM our_table)
  WHERE n.oid IS NOT NULL OR p.oid IS NOT NULL OR t.oid IS NOT NULL
UNION ALL
SELECT 'comment', format('%s %s', classoid::regclass, objoid::regrole), description FROM pg_shdescription
  WHERE classoid = 'pg_authid'::regclass AND objoid::regrole::text LIKE 'meshhook\_secrets%'
UNION ALL
SELECT 'role', rolname, (to_jsonb(r) - 'oid')::text FROM pg_roles r WHERE rolname LIKE 'meshhook\_secrets%'
UNION ALL
SELECT 'function', p.oid::regprocedure::text, concat_ws(' ', pg_get_functiondef(p.oid), p.procost, p.prorows, p.prosupport, p.probin)
  FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
UNION ALL
SELECT 'table', t.oid::regclass::text,
       concat_ws(' ', t.relkind, t.relpersistence, t.relreplident, t.relrowsecurity, t.relforcerowsecurity, t.reloptions,
         pg_get_partkeydef(t.oid), (SELECT x.reloptions FROM pg_class x WHERE x.oid = t.reltoastrelid))
  FROM our_table t
UNION ALL
SELECT 'column', format('%s %s', t.oid::regclass, a.attnum),
       concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attcollation::regcollation, a.attnotnull, a.attstorage,
         a.attcompression, a.attidentity, a.attgenerated, a.attstattarget,
         -- pg_attver is a stamp of newer minor versions of PostgreSQL: where in the WAL the column was made.
         (SELECT array_agg(o) FROM unnest(a.attoptions) o WHERE o NOT LIKE 'pg\_attver=%'), 'default', pg_get_expr(d.adbin, d.adrelid))
  FROM (SELECT oid FROM our_table UNION ALL SELECT relation FROM our_type) t (oid)
  JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
UNION ALL
SELECT 'type', t.oid::regtype::text, concat_ws(' ', t.typtype, t.typcategory, t.typnotnull, t.typdefault, format_type(t.typbasetype, t.typtypmod))
  FROM our_type t
UNION ALL
SELECT 'index', i.indexrelid::regclass::text,
       concat_ws(' ', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisready, i.indisreplident, i.indisclustered, c.reloptions)
  FROM our_table t JOIN pg_index i ON i.indrelid = t.oid JOIN pg_class c ON c.oid = i.indexrelid
UNION ALL
SELECT 'constraint', format('%s %s', t.oid::regclass, c.conname), concat_ws(' ', c.contype, pg_get_constraintdef(c.oid), c.convalidated)
  FROM our_table t JOIN pg_constraint c ON c.conrelid = t.oid
UNION ALL
SELECT 'trigger', format('%s %s', t.oid::regclass, g.tgname), concat_ws(' ', pg_get_triggerdef(g.oid), g.tgenabled)
  FROM our_table t JOIN pg_trigger g ON g.tgrelid = t.oid WHERE NOT g.tgisinternal
UNION ALL
SELECT 'policy', format('%s %s', t.oid::regclass, p.polname),
       concat_ws(' ', p.polpermissive, p.polcmd, p.polroles::regrole[], pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid))
  FROM our_table t JOIN pg_policy p ON p.polrelid = t.oid
UNION ALL
SELECT 'rule', format('%s %s', t.oid::regclass, r.rulename), pg_get_ruledef(r.oid)
  FROM our_table t JOIN pg_rewrite r ON r.ev_class = t.oid
UNION ALL
SELECT 'sequence', s.seqrelid::regclass::text, (to_jsonb(s) - 'seqrelid')::text
  FROM our_table t JOIN pg_sequence s ON s.seqrelid = t.oid
ORDER BY kind, name, how
