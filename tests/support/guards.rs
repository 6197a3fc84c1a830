//! What of the catalog decides who may do what with the secrets.

/// What it is, and a query that shows it in lines of text. No entry means PostgreSQL's default: the same.
pub const GUARDS: &[(&str, &str)] = &[
    (
        "privileges on functions",
        "SELECT format('%s %s %s', p.oid::regprocedure, a.grantee::regrole, a.privilege_type)
         FROM pg_proc p, aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a
         WHERE p.pronamespace = 'meshhook_secrets'::regnamespace",
    ),
    (
        "privileges on tables",
        "SELECT format('%s %s %s', c.oid::regclass, a.grantee::regrole, a.privilege_type)
         FROM pg_class c, aclexplode(COALESCE(c.relacl, acldefault('r', c.relowner))) a
         WHERE c.relnamespace = 'meshhook_secrets'::regnamespace AND c.relkind IN ('r', 'p')",
    ),
    (
        "privileges on columns",
        "SELECT format('%s.%s %s %s', c.oid::regclass, t.attname, a.grantee::regrole, a.privilege_type)
         FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid, aclexplode(t.attacl) a
         WHERE c.relnamespace = 'meshhook_secrets'::regnamespace",
    ),
    (
        "privileges on the schema",
        "SELECT format('%s %s', a.grantee::regrole, a.privilege_type)
         FROM pg_namespace n, aclexplode(COALESCE(n.nspacl, acldefault('n', n.nspowner))) a WHERE n.nspname = 'meshhook_secrets'",
    ),
    (
        "privileges on types",
        "SELECT format('%s %s %s', t.oid::regtype, a.grantee::regrole, a.privilege_type)
         FROM pg_type t, aclexplode(COALESCE(t.typacl, acldefault('T', t.typowner))) a
         WHERE t.typnamespace = 'meshhook_secrets'::regnamespace",
    ),
    (
        "row-level security",
        "SELECT format('%s %s %s', oid::regclass, relrowsecurity, relforcerowsecurity)
         FROM pg_class WHERE relnamespace = 'meshhook_secrets'::regnamespace AND relkind = 'r'",
    ),
    (
        "policies",
        "SELECT p::text FROM pg_policies p WHERE schemaname = 'meshhook_secrets'",
    ),
    (
        "triggers",
        "SELECT format('%s %s %s', tgenabled, tgrelid::regclass, pg_get_triggerdef(oid))
         FROM pg_trigger WHERE NOT tgisinternal",
    ),
    (
        "functions",
        "SELECT format('%s %s %s %s %s %s', oid::regprocedure, prosecdef, proconfig, provolatile,
                       proparallel, proisstrict)
         FROM pg_proc WHERE pronamespace = 'meshhook_secrets'::regnamespace",
    ),
    (
        "members of the extension",
        "SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend
         WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
           AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'meshhook_secrets')",
    ),
];
