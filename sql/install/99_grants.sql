-- Nothing is allowed by default, not even by ALTER DEFAULT PRIVILEGES of the role that installs: what
-- is granted to others than the owner and our roles goes.
DO $grants$
DECLARE
  granted record;
BEGIN
  FOR granted IN
    WITH objects (object, owner, acl) AS (
      SELECT pg_catalog.format('SCHEMA %I', n.nspname), n.nspowner, n.nspacl
        FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) 'meshhook_secrets'
      UNION ALL
      SELECT pg_catalog.format('TABLE %s', c.oid::pg_catalog.regclass), c.relowner, c.relacl
        FROM pg_catalog.pg_class c
        WHERE c.relnamespace OPERATOR(pg_catalog.=) 'meshhook_secrets'::pg_catalog.regnamespace
          AND c.relkind OPERATOR(pg_catalog.=) 'r'
      UNION ALL
      SELECT pg_catalog.format('FUNCTION %s', p.oid::pg_catalog.regprocedure), p.proowner, p.proacl
        FROM pg_catalog.pg_proc p
        WHERE p.pronamespace OPERATOR(pg_catalog.=) 'meshhook_secrets'::pg_catalog.regnamespace
      UNION ALL
      SELECT pg_catalog.format('TYPE %s', t.oid::pg_catalog.regtype), t.typowner, t.typacl
        FROM pg_catalog.pg_type t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.typrelid
        WHERE t.typnamespace OPERATOR(pg_catalog.=) 'meshhook_secrets'::pg_catalog.regnamespace
          AND c.relkind OPERATOR(pg_catalog.=) 'c'
    )
    SELECT DISTINCT o.object,
           CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::pg_catalog.text END AS grantee
      FROM objects o, pg_catalog.aclexplode(o.acl) a
      WHERE a.grantee OPERATOR(pg_catalog.<>) o.owner
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid OPERATOR(pg_catalog.=) a.grantee
          AND r.rolname OPERATOR(pg_catalog.=) ANY (ARRAY['meshhook_secrets_writer', 'meshhook_secrets_reader', 'meshhook_secrets_kek_admin', 'meshhook_secrets_auditor']::pg_catalog.name[]))
  LOOP
    EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s', granted.object, granted.grantee);
  END LOOP;
END
$grants$;
