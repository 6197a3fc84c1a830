//! What the extension puts into a database, read from the catalogs: who may execute what, how every
//! function is declared, that nothing is PUBLIC, that every table is guarded and dumped, and that
//! the public interface is exactly the checked-in list `public_api.txt`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use postgres::Client;
use support::{Cluster, Database, Prefix, expect_error, run};

const WRITER: &str = "meshhook_secrets_writer";
const READER: &str = "meshhook_secrets_reader";
const KEK_ADMIN: &str = "meshhook_secrets_kek_admin";
const AUDITOR: &str = "meshhook_secrets_auditor";

/// Every function, and the roles that may execute it beside its owner.
const FUNCTIONS: &[(&str, &[&str])] = &[
    ("secret_put", &[WRITER]),
    ("secret_put_bytes", &[WRITER]),
    ("secret_generate", &[WRITER]),
    ("secret_rollback", &[WRITER]),
    ("secret_list", &[WRITER]),
    ("secret_describe", &[WRITER]),
    ("secret_versions", &[WRITER]),
    ("secret_due", &[WRITER]),
    ("secret_delete", &[WRITER]),
    ("secret_undelete", &[WRITER]),
    ("secret_purge", &[WRITER]),
    ("secret_expire", &[WRITER]),
    ("secret_get", &[READER]),
    ("secret_get_bytes", &[READER]),
    ("secret_get_many", &[READER]),
    ("seal", &[KEK_ADMIN]),
    ("unseal", &[KEK_ADMIN]),
    ("seal_status", &[KEK_ADMIN]),
    ("project_seal_status", &[READER, WRITER]),
    ("root_key_status", &[KEK_ADMIN]),
    ("kek_generate", &[KEK_ADMIN]),
    ("kek_rotate", &[KEK_ADMIN]),
    ("kek_rewrap", &[KEK_ADMIN]),
    ("kek_status", &[KEK_ADMIN]),
    ("kek_verify", &[KEK_ADMIN]),
    ("kek_disable", &[KEK_ADMIN]),
    ("kek_enable", &[KEK_ADMIN]),
    ("kek_mark_compromised", &[KEK_ADMIN]),
    ("kek_destroy", &[KEK_ADMIN]),
    ("kek_cancel_destroy", &[KEK_ADMIN]),
    ("kek_configure", &[KEK_ADMIN]),
    ("dek_rotate", &[KEK_ADMIN]),
    ("secret_reencrypt", &[KEK_ADMIN]),
    ("root_key_rotate", &[KEK_ADMIN]),
    ("root_key_verify", &[KEK_ADMIN]),
    ("audit_search", &[AUDITOR]),
    ("audit_verify", &[AUDITOR]),
    ("audit_prune", &[AUDITOR]),
    ("audit_make_partition", &[]),
    ("audit_record_setup", &[]),
    ("library_version", &[AUDITOR, KEK_ADMIN]),
    ("health", &[AUDITOR, KEK_ADMIN]),
    ("metrics", &[AUDITOR, KEK_ADMIN]),
    ("doctor", &[AUDITOR, KEK_ADMIN]),
    ("member_projects", &[READER, WRITER]),
    ("refuse_direct_change", &[]),
    ("remove_versions", &[]),
    ("host_project_changed", &[]),
    ("attach_projects", &[]),
    ("setup_supabase", &[]),
];

/// The functions written in PL/pgSQL, whose names PostgreSQL looks up when they run.
const PLPGSQL: &[&str] =
    &["attach_projects", "setup_supabase", "audit_make_partition", "remove_versions"];

// --- functions -------------------------------------------------------------------------------

#[test]
fn each_function_may_be_executed_by_the_intended_roles_and_nobody_else() {
    let db = installed();
    let sql = "SELECT proname::text, proacl IS NULL,
            array_agg(CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE grantee::regrole::text END ORDER BY 1)
                FILTER (WHERE grantee <> proowner),
            bool_or(is_grantable AND grantee <> proowner), bool_and(privilege_type = 'EXECUTE'),
            bool_and(grantor = proowner)
        FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner)))
        WHERE pronamespace = 'meshhook_secrets'::regnamespace GROUP BY pg_proc.oid, 1, 2";
    let mut found = BTreeMap::new();
    for row in db.superuser().query(sql, &[]).unwrap() {
        let name: String = row.get(0);
        assert!(!row.get::<_, bool>(1), "{name} has its default privileges");
        assert!(!row.get::<_, bool>(3), "{name} may be granted on");
        assert!(row.get::<_, bool>(4) && row.get::<_, bool>(5), "{name}");
        let mut roles = row.get::<_, Option<Vec<String>>>(2).unwrap_or_default();
        roles.sort();
        assert!(found.insert(name.clone(), roles).is_none(), "{name} is overloaded");
    }
    let owned = |roles: &[&str]| roles.iter().map(ToString::to_string).collect::<Vec<_>>();
    let intended: BTreeMap<_, _> =
        FUNCTIONS.iter().map(|(name, roles)| (name.to_string(), owned(roles))).collect();
    assert_eq!(found, intended);
}

#[test]
fn every_function_is_declared_as_it_must_be() {
    let db = installed();
    let sql = "SELECT proname::text AS name, l.lanname::text AS language, provolatile::text, proparallel::text,
            proisstrict, prosecdef, proleakproof, proconfig, prokind::text, proretset, probin,
            prosupport::oid = 0 AS plain,
            prorettype = 'record'::regtype AND proargmodes IS NULL AS nameless_record, pronargs, pronargdefaults,
            proargnames, provariadic = 0 AS fixed, obj_description(p.oid, 'pg_proc') AS comment,
            proowner = e.extowner AS ours
        FROM pg_proc p JOIN pg_language l ON l.oid = prolang, pg_extension e
        WHERE pronamespace = 'meshhook_secrets'::regnamespace AND extname = 'meshhook_secrets'";
    let rows = db.superuser().query(sql, &[]).unwrap();
    assert_eq!(rows.len(), FUNCTIONS.len());
    for row in rows {
        let name: String = row.get("name");
        let flag = |column: &str| row.get::<_, bool>(column);
        let text = |column: &str| row.get::<_, Option<String>>(column).unwrap_or_default();

        // No crypto is ever folded into a plan, an index or a parallel worker.
        let volatility = if name == "member_projects" { "s" } else { "v" };
        assert_eq!(text("provolatile"), volatility, "{name}: volatility");
        assert_eq!(text("proparallel"), "u", "{name}: parallel safety");
        // NULL is an error to be raised, not an answer.
        assert!(!flag("proisstrict"), "{name} is strict");
        assert!(!flag("prosecdef"), "{name} is SECURITY DEFINER");
        assert!(!flag("proleakproof"), "{name} is LEAKPROOF");
        assert!(flag("plain") && flag("fixed") && flag("ours"), "{name}");
        assert_eq!(text("prokind"), "f", "{name}");
        assert!(!flag("nameless_record"), "{name} returns records without column names");

        let path: Option<Vec<String>> = row.get("proconfig");
        if PLPGSQL.contains(&&*name) {
            assert_eq!(text("language"), "plpgsql");
            assert_eq!(path.unwrap(), ["search_path=pg_catalog, pg_temp"], "{name}");
        } else {
            assert_eq!((text("language"), path), ("c".into(), None), "{name}");
            assert_eq!(text("probin"), "$libdir/meshhook_secrets", "{name}");
        }

        // The names of the arguments are the keys of the RPC.
        let arguments = row.get::<_, i16>("pronargs") as usize;
        let names = row.get::<_, Option<Vec<String>>>("proargnames").unwrap_or_default();
        assert!(
            names.len() >= arguments && names.iter().all(|name| !name.is_empty()),
            "{name}: {names:?}"
        );
        assert!(row.get::<_, i16>("pronargdefaults") as usize <= arguments);
        assert!(text("comment").len() > 10, "{name} has no comment");
        if name.starts_with("secret_") && name != "secret_reencrypt" {
            assert!(
                ["42501", "As secret_", "Errors as secret_"]
                    .iter()
                    .any(|says| text("comment").contains(says)),
                "{name}: {}",
                text("comment")
            );
        }
    }
}

#[test]
fn no_function_can_be_in_an_index_or_a_generated_column() {
    let db = installed();
    let mut superuser = db.superuser();
    superuser.batch_execute("CREATE TABLE public.t (p uuid, n text)").unwrap();
    for sql in [
        "CREATE INDEX ON public.t (meshhook_secrets.secret_get(p, n))",
        "CREATE INDEX ON public.t (n) WHERE meshhook_secrets.secret_get(p, n) = 'x'",
        "ALTER TABLE public.t ADD v text GENERATED ALWAYS AS (meshhook_secrets.secret_get(p, n)) STORED",
    ] {
        expect_error(superuser.batch_execute(sql), "42P17");
    }
}

// --- rights ------------------------------------------------------------------------------------

#[test]
fn nothing_at_all_is_public() {
    let db = installed();
    assert!(public_rights(&mut db.superuser()).is_empty());
    // Nor is it once the host has its rights.
    let host = Cluster::shared().database();
    assert!(public_rights(&mut host.superuser()).is_empty());
    // The question is a good one.
    db.superuser()
        .batch_execute(
            "GRANT SELECT (mac) ON meshhook_secrets.project_secrets TO PUBLIC;
        GRANT USAGE ON TYPE meshhook_secrets.secret_info TO PUBLIC;
        GRANT EXECUTE ON FUNCTION meshhook_secrets.seal_status() TO PUBLIC",
        )
        .unwrap();
    assert_eq!(public_rights(&mut db.superuser()).len(), 3);
}

#[test]
fn the_roles_are_plain_and_members_of_nothing() {
    let db = installed();
    let sql = "SELECT rolname::text, rolcanlogin OR rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb
                OR rolreplication OR rolpassword IS NOT NULL OR rolconfig IS NOT NULL,
            EXISTS (SELECT FROM pg_auth_members m WHERE m.member = a.oid),
            shobj_description(a.oid, 'pg_authid')
        FROM (SELECT a.*, r.rolconfig FROM pg_authid a JOIN pg_roles r USING (oid)) a
        WHERE rolname LIKE 'meshhook\\_secrets%' ORDER BY 1";
    let mut names = Vec::new();
    for row in db.superuser().query(sql, &[]).unwrap() {
        let name: String = row.get(0);
        assert!(!row.get::<_, bool>(1) && !row.get::<_, bool>(2), "{name}");
        assert!(row.get::<_, Option<String>>(3).is_some(), "{name} has no comment");
        names.push(name);
    }
    assert_eq!(names, [AUDITOR, KEK_ADMIN, READER, WRITER]);
}

#[test]
fn our_roles_hold_nothing_on_tables_with_ciphertext() {
    let host = Cluster::shared().database();
    let sql = "SELECT relname || ' to ' || grantee::regrole || ': ' || privilege_type FROM (
            SELECT relname, relowner, (aclexplode(relacl)).* FROM pg_class WHERE relnamespace = 'meshhook_secrets'::regnamespace
            UNION ALL
            SELECT relname, relowner, (aclexplode(attacl)).* FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
                WHERE relnamespace = 'meshhook_secrets'::regnamespace
        ) held WHERE grantee <> relowner AND relname <> 'project_secrets'";
    assert_eq!(texts(&mut host.superuser(), sql), [""; 0]);
    // And of the one that they see, ids, names and creation are not theirs to change.
    let sql = "SELECT attname || ' to ' || grantee::regrole FROM pg_attribute, aclexplode(attacl)
        WHERE attrelid = 'meshhook_secrets.project_secrets'::regclass AND privilege_type = 'UPDATE'
        AND attname IN ('project_id', 'id', 'name', 'created_at', 'created_by')";
    assert_eq!(texts(&mut host.superuser(), sql), [""; 0]);
}

// --- tables ------------------------------------------------------------------------------------

#[test]
fn every_table_is_guarded() {
    let db = installed();
    let sql = "SELECT relname::text, relrowsecurity, relforcerowsecurity, obj_description(c.oid, 'pg_class') IS NOT NULL,
            (SELECT array_agg(tgname || ' ' || tgtype || tgenabled::text || ' ' || tgfoid::regproc ORDER BY tgname)
                FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal),
            (SELECT array_agg(polname || ' ' || polcmd::text || polpermissive || ' ' || (polroles = '{0}')
                || (pg_get_expr(polqual, polrelid) = pg_get_expr(polwithcheck, polrelid))
                || (pg_get_expr(polqual, polrelid) LIKE '%member_projects()%'))
                FROM pg_policy WHERE polrelid = c.oid)
        FROM pg_class c WHERE relnamespace = 'meshhook_secrets'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1";
    let mut tables = Vec::new();
    for row in db.superuser().query(sql, &[]).unwrap() {
        let name: String = row.get(0);
        assert!(row.get::<_, bool>(1) && row.get::<_, bool>(2), "{name}: row-level security");
        assert!(row.get::<_, bool>(3), "{name} has no comment");
        // 62: BEFORE, each statement, INSERT, UPDATE, DELETE and TRUNCATE; 9: AFTER, each row, DELETE.
        let triggers: Vec<String> = row.get(4);
        let mut expected = vec!["refuse_direct_change 62O meshhook_secrets.refuse_direct_change"];
        if name == "project_secrets" {
            expected.push("remove_versions 9O meshhook_secrets.remove_versions");
        }
        assert_eq!(triggers, expected, "{name}");
        // Without a policy nobody sees a row.
        let policies: Option<Vec<String>> = row.get(5);
        match &*name {
            "project_secrets" => assert_eq!(policies.unwrap(), ["members *true truetruetrue"]),
            _ => assert_eq!(policies, None, "{name}"),
        }
        tables.push(name);
    }
    assert_eq!(
        tables,
        [
            "audit_head",
            "audit_keys",
            "audit_log",
            "audit_pending",
            "audit_seals",
            "data_keys",
            "kek_storage",
            "project_secrets",
            "rotation_jobs",
            "secret_versions",
            "settings"
        ]
    );
}

#[test]
fn every_table_and_sequence_is_dumped_whole() {
    let db = installed();
    let mut superuser = db.superuser();
    // A partitioned table has no rows of its own; its partitions are dumped like any table.
    let kept =
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'meshhook_secrets'::regnamespace
        AND relkind IN ('r', 'S') ORDER BY 1";
    let dumped = "SELECT c.relname::text FROM pg_extension, unnest(extconfig, extcondition) AS d (id, condition)
        JOIN pg_class c ON c.oid = d.id WHERE extname = 'meshhook_secrets' AND d.condition = '' ORDER BY 1";
    assert_eq!(texts(&mut superuser, dumped), texts(&mut superuser, kept));
}

#[test]
fn keys_of_tables_start_with_the_project() {
    let db = installed();
    let sql = "SELECT i.indexrelid::regclass::text FROM pg_index i
        JOIN pg_attribute p ON p.attrelid = i.indrelid AND p.attname = 'project_id'
        JOIN pg_class c ON c.oid = i.indrelid
        WHERE relnamespace = 'meshhook_secrets'::regnamespace AND i.indisunique AND i.indkey[0] <> p.attnum";
    assert_eq!(texts(&mut db.superuser(), sql), [""; 0]);
}

// --- the extension as a whole -----------------------------------------------------------------

#[test]
fn everything_in_the_schema_belongs_to_the_extension_and_nothing_is_outside() {
    let db = installed();
    let mut superuser = db.superuser();
    let strangers = "SELECT what FROM (
            SELECT 'pg_proc'::regclass AS class, oid, oid::regprocedure::text AS what FROM pg_proc
                WHERE pronamespace = 'meshhook_secrets'::regnamespace
            UNION ALL SELECT 'pg_class'::regclass, oid, relname FROM pg_class
                WHERE relnamespace = 'meshhook_secrets'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
            UNION ALL SELECT 'pg_type'::regclass, t.oid, typname FROM pg_type t LEFT JOIN pg_class c ON c.oid = typrelid
                WHERE typnamespace = 'meshhook_secrets'::regnamespace AND typcategory <> 'A'
                AND coalesce(c.relkind = 'c', true)
        ) object WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = object.class AND d.objid = object.oid
            AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')";
    assert_eq!(texts(&mut superuser, strangers), [""; 0]);
    let outside = "SELECT identity FROM pg_depend d, pg_extension e, pg_identify_object(d.classid, d.objid, d.objsubid)
        WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
        AND extname = 'meshhook_secrets' AND schema IS DISTINCT FROM 'meshhook_secrets'
        AND identity <> 'meshhook_secrets'";
    assert_eq!(texts(&mut superuser, outside), [""; 0]);
    let extension = "SELECT extrelocatable::text || ' ' || extnamespace::regnamespace || ' '
            || (obj_description(oid, 'pg_extension') IS NOT NULL) || ' '
            || (obj_description('meshhook_secrets'::regnamespace, 'pg_namespace') IS NOT NULL)
        FROM pg_extension WHERE extname = 'meshhook_secrets'";
    assert_eq!(texts(&mut superuser, extension), ["false meshhook_secrets true true"]);
    // Creating it is for superusers.
    let control = "SELECT superuser::text || ' ' || trusted FROM pg_available_extension_versions
        WHERE name = 'meshhook_secrets'";
    for row in texts(&mut superuser, control) {
        assert_eq!(row, "true false");
    }
}

#[test]
fn the_library_exports_only_what_postgresql_calls() {
    let db = installed();
    let sql = "SELECT prosrc FROM pg_proc JOIN pg_language l ON l.oid = prolang
        WHERE pronamespace = 'meshhook_secrets'::regnamespace AND lanname = 'c'";
    // What PostgreSQL looks up by fixed names, and what it starts as background workers.
    let fixed = [
        "Pg_magic_func",
        "_PG_init",
        "meshhook_secrets_root_key_worker",
        "meshhook_secrets_launcher",
        "meshhook_secrets_maintenance",
        "meshhook_secrets_audit_writer",
    ];
    let mut intended: BTreeSet<String> = fixed.map(str::to_owned).into();
    for symbol in texts(&mut db.superuser(), sql) {
        intended.insert(format!("pg_finfo_{symbol}"));
        intended.insert(symbol);
    }
    let mut nm = Command::new("nm");
    nm.args(["--dynamic", "--defined-only", "--format=posix"]).arg(Prefix::get().library());
    let exported: BTreeSet<String> =
        run(&mut nm).lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert_eq!(exported, intended);
}

#[test]
fn the_public_interface_is_the_checked_in_list() {
    let db = installed();
    let file = Prefix::repository().join("tests/public_api.txt");
    let now = public_api(&db);
    if std::env::var_os("UPDATE_API").is_some() {
        fs::write(&file, &now).unwrap();
    }
    let checked_in = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        now == checked_in,
        "the public interface is not that of tests/public_api.txt:\n\n{}\n\
         If that is intended, review it, then write it down with\n    \
         UPDATE_API=1 cargo test -p meshhook_secrets_tests --test catalog public_interface\n",
        difference(&checked_in, &now),
    );
}

#[test]
fn no_setting_is_missing_from_the_list() {
    let db = installed();
    let mut superuser = db.superuser();
    // A setting can hide from pg_settings, but its name is in the library.
    let library = fs::read(Prefix::get().library()).unwrap();
    let is_name = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'_' || *byte == b'.';
    let names: Vec<String> = library
        .split(|byte| !is_name(byte))
        .filter(|text| text.starts_with(b"meshhook_secrets."))
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect();
    let sql = "SELECT DISTINCT name FROM unnest($1::text[]) AS n (name) WHERE pg_settings_get_flags(name) IS NOT NULL";
    let rows = superuser.query(sql, &[&names]).unwrap();
    let known: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let sql = "SELECT name FROM pg_settings WHERE name LIKE 'meshhook\\_secrets.%'";
    let shown: BTreeSet<String> = texts(&mut superuser, sql).into_iter().collect();
    assert_eq!(known, shown);

    // Where the root key is, is shown to superusers only.
    let ordinary: BTreeSet<String> =
        texts(&mut db.connect("authenticator"), sql).into_iter().collect();
    let hidden: Vec<&str> = shown.difference(&ordinary).map(String::as_str).collect();
    assert_eq!(hidden, ["meshhook_secrets.root_key_command", "meshhook_secrets.root_key_file"]);
}

#[test]
fn a_difference_shows_the_lines_that_came_and_went() {
    let shown = difference("a\nb\nc\nd\n", "a\nc\nd\ne\n");
    assert_eq!(shown, "-b\n+e\n");
}

// --- the listing ---------------------------------------------------------------------------------

/// The public interface as text, the same on every version of PostgreSQL.
fn public_api(db: &Database<'_>) -> String {
    let mut client = db.superuser();
    let mut listing = String::from(
        "# The public interface of meshhook_secrets, as `cargo test -p meshhook_secrets_tests --test catalog`\n\
         # finds it in a new database. To change it: UPDATE_API=1, and review what changed.\n",
    );
    for (title, sql) in [
        ("roles", ROLES),
        ("settings: name, default, unit, type, range, who may set it", SETTINGS),
        ("types", TYPES),
        ("functions", FUNCTION_LIST),
        ("tables", TABLES),
        ("column privileges", COLUMN_PRIVILEGES),
        ("policies", POLICIES),
        ("triggers", TRIGGERS),
    ] {
        listing += &format!("\n## {title}\n");
        let mut lines = texts(&mut client, sql);
        lines.sort();
        for line in lines {
            listing += &format!("{line}\n");
        }
    }
    listing
}

const ROLES: &str = "SELECT rolname || CASE WHEN rolinherit THEN '' ELSE ' NOINHERIT' END
        || CASE WHEN rolcanlogin THEN ' LOGIN' ELSE ' NOLOGIN' END
        || CASE WHEN has_schema_privilege(oid, 'meshhook_secrets', 'USAGE') THEN ', uses the schema' ELSE '' END
        || CASE WHEN has_schema_privilege(oid, 'meshhook_secrets', 'CREATE') THEN ', creates in the schema' ELSE '' END
    FROM pg_roles WHERE rolname LIKE 'meshhook\\_secrets%'";

const SETTINGS: &str =
    "SELECT concat_ws(', ', name || '  ' || coalesce(boot_val, 'none') || coalesce(' ' || unit, ''), vartype,
        min_val || ' to ' || max_val, context)
    FROM pg_settings WHERE name LIKE 'meshhook\\_secrets.%'";

const TYPES: &str = "SELECT t.typname || ' (' || string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
        || ')  to ' || coalesce((SELECT string_agg(grantee::regrole::text, ', ' ORDER BY grantee::regrole::text COLLATE \"C\")
            FROM aclexplode(typacl) WHERE grantee <> typowner), 'nobody')
    FROM pg_type t JOIN pg_class c ON c.oid = typrelid AND relkind = 'c' JOIN pg_attribute ON attrelid = c.oid
    WHERE typnamespace = 'meshhook_secrets'::regnamespace GROUP BY t.oid, t.typname, t.typacl, t.typowner";

const FUNCTION_LIST: &str = "SELECT proname || '(' || replace(pg_get_function_arguments(p.oid), ', ', E',\\n    ')
        || ')' || E'\\n    RETURNS ' || pg_get_function_result(p.oid)
        || E'\\n    ' || upper(lanname) || CASE provolatile WHEN 'v' THEN ' VOLATILE' WHEN 's' THEN ' STABLE' ELSE ' IMMUTABLE' END
        || CASE proparallel WHEN 'u' THEN ' PARALLEL UNSAFE' WHEN 'r' THEN ' PARALLEL RESTRICTED' ELSE ' PARALLEL SAFE' END
        || CASE WHEN proisstrict THEN ' STRICT' ELSE '' END
        || CASE WHEN prosecdef THEN ' SECURITY DEFINER' ELSE '' END
        || coalesce(' SET ' || array_to_string(proconfig, '; '), '')
        || E'\\n    to ' || coalesce((SELECT string_agg(grantee::regrole::text, ', ' ORDER BY grantee::regrole::text COLLATE \"C\")
            FROM aclexplode(proacl) WHERE grantee <> proowner), 'nobody')
    FROM pg_proc p JOIN pg_language l ON l.oid = prolang
    WHERE pronamespace = 'meshhook_secrets'::regnamespace";

const TABLES: &str = "SELECT relname
        || (SELECT string_agg(E'\\n    ' || attname || ' ' || format_type(atttypid, atttypmod)
                || CASE WHEN attcollation <> 0 AND collname <> 'default' THEN ' COLLATE ' || quote_ident(collname) ELSE '' END
                || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END
                || coalesce(' DEFAULT ' || pg_get_expr(adbin, adrelid), ''), '' ORDER BY attnum)
            FROM pg_attribute LEFT JOIN pg_collation n ON n.oid = attcollation
                LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
            WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
        || coalesce((SELECT string_agg(E'\\n    ' || CASE contype WHEN 'p' THEN 'PRIMARY KEY' WHEN 'u' THEN 'UNIQUE'
                WHEN 'f' THEN 'FOREIGN KEY' ELSE 'CHECK' END || ' (' || (SELECT string_agg(attname, ', ' ORDER BY k.position)
                    FROM unnest(conkey) WITH ORDINALITY AS k (number, position)
                    JOIN pg_attribute ON attrelid = c.oid AND attnum = k.number) || ')'
                || CASE WHEN confrelid <> 0 THEN ' to ' || confrelid::regclass || CASE confdeltype WHEN 'c' THEN ' ON DELETE CASCADE' ELSE '' END
                    ELSE '' END, '' ORDER BY contype = 'c', conname COLLATE \"C\")
            FROM pg_constraint WHERE conrelid = c.oid AND contype IN ('p', 'u', 'f', 'c')), '')
    FROM pg_class c WHERE relnamespace = 'meshhook_secrets'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')";

const COLUMN_PRIVILEGES: &str = "SELECT line FROM (
        SELECT relname || ': ' || privilege_type || ' to ' || grantee::regrole AS line
            FROM pg_class, aclexplode(relacl) WHERE relnamespace = 'meshhook_secrets'::regnamespace AND grantee <> relowner
        UNION ALL
        SELECT relname || ': ' || privilege_type || ' to ' || grantee::regrole || ' ('
                || string_agg(attname, ', ' ORDER BY attnum) || ')'
            FROM pg_class c JOIN pg_attribute ON attrelid = c.oid, aclexplode(attacl)
            WHERE relnamespace = 'meshhook_secrets'::regnamespace GROUP BY relname, privilege_type, grantee
    ) privilege";

const POLICIES: &str =
    "SELECT tablename || '.' || policyname || '  ' || permissive || ' FOR ' || cmd || ' TO '
        || array_to_string(roles, ', ')
    FROM pg_policies WHERE schemaname = 'meshhook_secrets'";

const TRIGGERS: &str =
    "SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
    WHERE relnamespace = 'meshhook_secrets'::regnamespace AND NOT tgisinternal";

// --- helpers ---------------------------------------------------------------------------------------

/// A database with the extension and nothing else.
fn installed() -> Database<'static> {
    let db = Cluster::shared().empty_database();
    db.superuser().batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();
    db
}

/// The first column of all rows.
fn texts(client: &mut Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// What PUBLIC may do with anything in the schema. Row types of tables are left out: they come
/// with the table.
fn public_rights(client: &mut Client) -> Vec<String> {
    texts(
        client,
        "SELECT what || ': ' || privilege_type FROM (
            SELECT nspname AS what, (aclexplode(coalesce(nspacl, acldefault('n', nspowner)))).* FROM pg_namespace
                WHERE nspname = 'meshhook_secrets'
            UNION ALL SELECT proname, (aclexplode(coalesce(proacl, acldefault('f', proowner)))).* FROM pg_proc
                WHERE pronamespace = 'meshhook_secrets'::regnamespace
            UNION ALL SELECT relname, (aclexplode(coalesce(relacl, acldefault(
                    CASE relkind WHEN 'S' THEN 's'::\"char\" ELSE 'r' END, relowner)))).* FROM pg_class
                WHERE relnamespace = 'meshhook_secrets'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
            UNION ALL SELECT relname || '.' || attname, (aclexplode(attacl)).* FROM pg_attribute
                JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'meshhook_secrets'::regnamespace
            UNION ALL SELECT typname, (aclexplode(coalesce(typacl, acldefault('T', typowner)))).* FROM pg_type
                LEFT JOIN pg_class c ON c.oid = typrelid WHERE typnamespace = 'meshhook_secrets'::regnamespace
                AND typcategory <> 'A' AND coalesce(c.relkind = 'c', true)
        ) held WHERE grantee = 0",
    )
}

/// The lines that are in one text only, in order.
fn difference(before: &str, after: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    // common[i][j]: the longest common part of what is left from line i and from line j on.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut shown) = (0, 0, String::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            shown += &format!("-{}\n", old[i]);
            i += 1;
        } else {
            shown += &format!("+{}\n", new[j]);
            j += 1;
        }
    }
    shown
}
