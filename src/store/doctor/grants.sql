-- Who may do what, beyond what the install script granted (which PostgreSQL keeps in pg_init_privs).
WITH ours (oid, rolname) AS (
  SELECT r.oid, r.rolname FROM pg_roles r
    WHERE r.rolname IN ('meshhook_secrets_writer', 'meshhook_secrets_reader', 'meshhook_secrets_kek_admin', 'meshhook_secrets_auditor')
), object (class, oid, part, kind, name, columns, owner, acl) AS (
  SELECT 'pg_namespace'::regclass, n.oid, 0, 'SCHEMA', quote_ident(n.nspname), '', n.nspowner, n.nspacl
    FROM pg_namespace n WHERE n.nspname = 'meshhook_secrets'
  UNION ALL
  SELECT 'pg_class'::regclass, c.oid, 0, 'TABLE', c.oid::regclass::text, '', c.relowner, c.relacl
    FROM pg_class c WHERE c.relnamespace = 'meshhook_secrets'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
  UNION ALL
  SELECT 'pg_class'::regclass, c.oid, t.attnum, 'TABLE', c.oid::regclass::text, format(' (%I)', t.attname), c.relowner, t.attacl
    FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid
    WHERE c.relnamespace = 'meshhook_secrets'::regnamespace AND t.attacl IS NOT NULL
  UNION ALL
  SELECT 'pg_proc'::regclass, p.oid, 0, 'FUNCTION', p.oid::regprocedure::text, '', p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
    FROM pg_proc p WHERE p.pronamespace = 'meshhook_secrets'::regnamespace
  UNION ALL
  SELECT 'pg_type'::regclass, t.oid, 0, 'TYPE', t.oid::regtype::text, '', t.typowner, coalesce(t.typacl, acldefault('T', t.typowner))
    FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid
    WHERE t.typnamespace = 'meshhook_secrets'::regnamespace AND c.relkind = 'c'
), held AS (
  SELECT o.*, a.grantee, a.privilege_type AS privilege, a.is_grantable AS grantable,
         coalesce(quote_ident(r.rolname), 'PUBLIC') AS role
    FROM object o, aclexplode(o.acl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
    WHERE a.grantee <> o.owner
), initial AS (
  SELECT o.class, o.oid, o.part, a.grantee, a.privilege_type AS privilege
    FROM object o JOIN pg_init_privs i ON i.classoid = o.class AND i.objoid = o.oid AND i.objsubid = o.part,
    aclexplode(i.initprivs) a
), extra AS (
  SELECT h.*, format('REVOKE %s%s ON %s %s FROM %s;', h.privilege, h.columns, h.kind, h.name, h.role) AS revoke,
         -- What one of our roles was given may be given on; the rest is the owner's.
         EXISTS (SELECT FROM initial i JOIN ours u ON u.oid = i.grantee
                 WHERE i.class = h.class AND i.oid = h.oid AND i.part = h.part AND i.privilege = h.privilege) AS usual
    FROM held h
    WHERE h.grantable OR NOT EXISTS (
      SELECT FROM initial i
      WHERE i.class = h.class AND i.oid = h.oid AND i.part = h.part AND i.grantee = h.grantee AND i.privilege = h.privilege)
)
SELECT 'critical' AS severity, 'public_grant' AS finding,
       format('%s on %s %s%s is granted to PUBLIC.', e.privilege, lower(e.kind), e.name, e.columns) AS detail, e.revoke AS remedy, e.oid AS object
  FROM extra e WHERE e.grantee = 0
UNION ALL
SELECT 'critical', 'table_grant',
       format('%s on %s %s%s is granted to %s, past the functions.', e.privilege, lower(e.kind), e.name, e.columns, e.role), e.revoke, e.grantee
  FROM extra e
  WHERE e.grantee <> 0 AND ((e.kind = 'TABLE' AND NOT e.usual) OR (e.kind = 'SCHEMA' AND e.privilege = 'CREATE'))
UNION ALL
SELECT 'warning', 'owner_function',
       format('%s may execute %s, which is meant for the owner alone.', e.role, e.name), e.revoke, e.grantee
  FROM extra e WHERE e.grantee <> 0 AND e.kind = 'FUNCTION' AND NOT e.usual
UNION ALL
SELECT 'warning', 'grant_option',
       format('%s may grant %s on %s %s%s to others.', e.role, e.privilege, lower(e.kind), e.name, e.columns),
       format('REVOKE GRANT OPTION FOR %s%s ON %s %s FROM %s CASCADE;', e.privilege, e.columns, e.kind, e.name, e.role), e.grantee
  FROM extra e WHERE e.grantee <> 0 AND e.grantable
UNION ALL
-- Information: who else is in; but whoever has not signed in has no business here.
SELECT CASE WHEN e.role IN ('anon', 'web_anon') THEN 'critical' ELSE 'info' END,
       CASE WHEN e.role IN ('anon', 'web_anon') THEN 'anonymous_grant' ELSE 'function_grant' END,
       format('%s may execute %s. If that is not meant to be, take it back.', e.role,
              string_agg(regexp_replace(e.name, '\(.*', ''), ', ' ORDER BY e.name)),
       string_agg(e.revoke, E'\n' ORDER BY e.name), e.grantee
  FROM extra e WHERE e.grantee <> 0 AND e.kind = 'FUNCTION' AND e.usual GROUP BY e.role, e.grantee
UNION ALL
SELECT 'info', 'role_member',
       format('%s is a member of %s. If that is not meant to be, take it out.', quote_ident(m.rolname), quote_ident(u.rolname)),
       format('REVOKE %I FROM %I%s;', u.rolname, m.rolname,
              CASE WHEN current_setting('server_version_num')::int >= 160000 THEN ' GRANTED BY ' || quote_ident(pg_get_userbyid(g.grantor)) ELSE '' END), g.member
  FROM pg_auth_members g JOIN ours u ON u.oid = g.roleid JOIN pg_roles m ON m.oid = g.member
  WHERE NOT EXISTS (SELECT FROM pg_roles a WHERE a.rolname IN ('anon', 'web_anon', 'authenticator') AND NOT a.rolsuper AND pg_has_role(a.oid, g.member, 'MEMBER')
                    AND (a.rolname <> 'authenticator' OR a.oid = g.member))
UNION ALL
SELECT 'critical', 'anonymous_member',
       format('Whoever connects to the API comes in as %s, a member of %s by way of %s.', quote_ident(a.rolname), quote_ident(u.rolname), quote_ident(m.rolname)),
       format('REVOKE %I FROM %I%s;', u.rolname, m.rolname,
              CASE WHEN current_setting('server_version_num')::int >= 160000 THEN ' GRANTED BY ' || quote_ident(pg_get_userbyid(g.grantor)) ELSE '' END), g.member
  FROM pg_auth_members g JOIN ours u ON u.oid = g.roleid JOIN pg_roles m ON m.oid = g.member
  JOIN pg_roles a ON a.rolname IN ('anon', 'web_anon', 'authenticator') AND NOT a.rolsuper AND pg_has_role(a.oid, g.member, 'MEMBER')
  -- The authenticator is a member of the roles that it switches to; that is how the API works.
  WHERE a.rolname <> 'authenticator' OR a.oid = g.member
UNION ALL
SELECT 'info', 'bypasses_rls',
       format('%s is not bound by row-level security and may reveal the secrets of every project.', quote_ident(r.rolname)),
       format('ALTER ROLE %I NOBYPASSRLS;', r.rolname), r.oid
  FROM pg_roles r
  WHERE r.rolbypassrls AND NOT r.rolsuper
    AND EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'meshhook_secrets'::regnamespace
                AND p.proname IN ('secret_get', 'secret_get_bytes', 'secret_get_many') AND has_function_privilege(r.oid, p.oid, 'EXECUTE'))
UNION ALL
SELECT 'info', 'superuser', format('%s is a superuser and may reveal the secrets of every project.', quote_ident(r.rolname)),
       format('ALTER ROLE %I NOSUPERUSER;', r.rolname), r.oid
  FROM pg_roles r
  WHERE r.rolsuper AND r.oid <> 10
    AND r.oid <> (SELECT e.extowner FROM pg_extension e WHERE e.extname = 'meshhook_secrets')
