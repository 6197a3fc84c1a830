//! The experiments of a security review, as attacks that fail. Each test is named after what must
//! not happen; where an attack needs a trap, the test first shows that the trap is armed.

use std::sync::{Arc, Mutex};

use meshhook_secrets_core::dek_status::DekStatus;
use meshhook_secrets_core::identity::{DekIdentity, KekIdentity, MetadataIdentity, ValueIdentity};
use meshhook_secrets_core::kek_status::KekStatus;
use meshhook_secrets_core::key::{Dek, Kek};
use meshhook_secrets_core::root_key;
use postgres::error::DbError;
use postgres::{Client, Config, IsolationLevel, NoTls, Row, Transaction};
use serde_json::json;
use support::{Cluster, Database, Failure, KEY_A, expect_error};
use uuid::Uuid;

const TABLES: &[&str] = &[
    "kek_storage",
    "data_keys",
    "project_secrets",
    "rotation_jobs",
    "secret_versions",
    "settings",
];

const AUDIT_TABLES: &[&str] =
    &["audit_log", "audit_pending", "audit_seals", "audit_head", "audit_keys"];

/// A call of each kind, with a project as `$1`.
const CALLS: &[&str] = &[
    "secret_put($1, 'TOKEN', 'new')",
    "secret_put($1, 'NEW', 'new')",
    "secret_generate($1, 'TOKEN')",
    "secret_rollback($1, 'TOKEN', 1)",
    "secret_get($1, 'TOKEN')",
    "secret_get_many($1)",
    "secret_list($1)",
    "secret_describe($1, 'TOKEN')",
    "project_seal_status($1)",
    "secret_versions($1, 'TOKEN')",
    "secret_delete($1, 'TOKEN')",
    "secret_purge($1, 'TOKEN', 'TOKEN')",
    "secret_expire($1, 'TOKEN', NULL)",
];

const FIXED: [IsolationLevel; 2] = [IsolationLevel::RepeatableRead, IsolationLevel::Serializable];

// --- V1: a host whose owner is under row-level security too --------------------------------------

#[test]
fn temporary_objects_of_the_caller_never_run_as_the_owner_of_the_projects() {
    let World { db, alice, project } = forced_host();
    let mut user = db.user(alice);
    spring_loaded(&mut user);
    // The trap is armed: whatever else reads the table as its owner runs it.
    user.query("SELECT app.count_projects()", &[]).unwrap();
    let armed = marks(&mut user);
    assert!(armed > 0);

    let other = db.user(Uuid::new_v4());
    for (mut client, member) in [(user, true), (other, false)] {
        if !member {
            spring_loaded(&mut client);
        }
        client.query("SELECT meshhook_secrets.member_projects()", &[]).unwrap();
        client.query("SELECT id FROM meshhook_secrets.project_secrets", &[]).unwrap();
        for any in CALLS.iter().filter(|call| !call.contains("purge")) {
            let answer = call(&mut client, any, project);
            match member {
                true if any.contains("_delete") => {
                    answer.unwrap();
                    call(&mut client, "secret_undelete($1, 'TOKEN')", project).unwrap();
                }
                true => assert!(answer.is_ok(), "{any}: {answer:?}"),
                false => drop(expect_error(answer, "42501")),
            }
            assert_eq!(marks(&mut client), if member { armed } else { 0 }, "{any}");
        }
    }
    let mut service = db.service();
    spring_loaded(&mut service);
    put(&mut service, project, "SERVICE", "x").unwrap();
    expect_error(put(&mut service, Uuid::new_v4(), "SERVICE", "x"), "23503");
    assert_eq!(marks(&mut service), 0);
}

#[test]
fn row_level_security_of_the_projects_owner_locks_nobody_out() {
    let World { db, alice, project } = forced_host();
    let mut user = db.user(alice);
    assert_eq!(put(&mut user, project, "TOKEN", "new").unwrap(), 2);
    assert_eq!(get(&mut user, project, "TOKEN").unwrap(), "new");
    assert_eq!(call(&mut user, "secret_list($1)", project).unwrap().len(), 1);
    assert_eq!(get(&mut db.service(), project, "TOKEN").unwrap(), "new");
    let mut stranger = db.user(Uuid::new_v4());
    for any in CALLS {
        expect_error(call(&mut stranger, any, project), "42501");
    }
    // Deletions are noticed, and only those.
    let sql = "INSERT INTO app.projects (owner) VALUES ($1) RETURNING id";
    let other: Uuid = db.superuser().query_one(sql, &[&alice]).unwrap().get(0);
    put(&mut user, other, "OTHER", "x").unwrap();
    let delete = "DELETE FROM app.projects WHERE id = $1";
    db.superuser().execute(delete, &[&project]).unwrap();
    assert_eq!(rows_of(&db, project), [0, 0, 0]);
    assert_eq!(get(&mut user, other, "OTHER").unwrap(), "x");
    db.superuser().batch_execute("TRUNCATE app.projects").unwrap();
    assert_eq!(rows_of(&db, other), [0, 0, 0]);
}

// --- V2: the owner of our tables is no superuser any more -------------------------------------------

#[test]
fn a_project_is_not_left_behind_when_our_owner_is_no_superuser() {
    let World { db, alice, project } = demoted_owner();
    let other = db.project(alice);
    put(&mut db.user(alice), other, "OTHER", "x").unwrap();
    db.delete_project(project);
    assert_eq!(rows_of(&db, project), [0, 0, 0]);
    expect_error(get(&mut db.service(), project, "TOKEN"), "42501");
    assert_eq!(get(&mut db.service(), other, "OTHER").unwrap(), "x");
    db.superuser().batch_execute("TRUNCATE public.projects CASCADE").unwrap();
    assert_eq!(rows_of(&db, other), [0, 0, 0]);
}

#[test]
fn seal_does_not_lie_when_our_owner_is_no_superuser() {
    let World { db, alice, project } = demoted_owner();
    call(&mut db.superuser(), "seal($1)", project).unwrap();
    assert_eq!(sealed_projects(&db), 1);
    for mut client in [db.user(alice), db.service()] {
        expect_error(get(&mut client, project, "TOKEN"), "PT503");
        expect_error(put(&mut client, project, "TOKEN", "x"), "PT503");
    }
    call(&mut db.superuser(), "unseal($1)", project).unwrap();
    assert_eq!(sealed_projects(&db), 0);
    assert_eq!(get(&mut db.user(alice), project, "TOKEN").unwrap(), "hush");
}

#[test]
fn no_change_is_lost_when_our_owner_is_no_superuser() {
    let World { db, alice, project } = demoted_owner();
    let mut user = db.user(alice);
    user.batch_execute("SET meshhook_secrets.max_versions = 2").ok();
    call(&mut user, "secret_put($1, 'TOKEN', 'v2', previous_valid_for => '0')", project).unwrap();
    expect_error(call(&mut user, "secret_get($1, 'TOKEN', 1)", project), "PT410");
    for version in 3..=12 {
        assert_eq!(put(&mut user, project, "TOKEN", "v").unwrap(), version);
    }
    assert!(rows_of(&db, project)[2] <= 10, "old versions were not destroyed");
    call(&mut user, "secret_expire($1, 'TOKEN', now())", project).unwrap();
    expect_error(get(&mut user, project, "TOKEN"), "PT410");
    call(&mut user, "secret_purge($1, 'TOKEN', 'TOKEN')", project).unwrap();
    assert_eq!(rows_of(&db, project), [1, 0, 0]);
}

// --- V3: a snapshot that is older than the keys -------------------------------------------------------

#[test]
fn seal_does_not_lie_about_a_data_key_that_is_younger_than_its_snapshot() {
    for level in FIXED {
        let db = Cluster::shared().database();
        let alice = Uuid::new_v4();
        let project = db.project(alice);
        let mut admin = db.superuser();
        let mut transaction = at(&mut admin, level);
        put(&mut db.user(alice), project, "TOKEN", "hush").unwrap();
        let sealed = transaction.query("SELECT meshhook_secrets.seal($1)", &[&project]);
        match ended(transaction, sealed) {
            Ok(()) => {
                expect_error(get(&mut db.service(), project, "TOKEN"), "PT503");
                assert_eq!(sealed_projects(&db), 1);
            }
            Err(error) => {
                expect_error(Err::<(), _>(error), "40001");
                assert_eq!(get(&mut db.service(), project, "TOKEN").unwrap(), "hush");
                assert_eq!(sealed_projects(&db), 0);
            }
        }
    }
}

#[test]
fn seal_and_unseal_do_not_lie_about_a_data_key_that_others_changed_meanwhile() {
    for (meanwhile, then) in
        [("seal", "unseal"), ("unseal", "seal"), ("seal", "seal"), ("unseal", "unseal")]
    {
        let World { db, project, .. } = world();
        let before = if meanwhile == "seal" { "unseal" } else { "seal" };
        call(&mut db.superuser(), &format!("{before}($1)"), project).unwrap();
        let mut admin = db.superuser();
        let mut transaction = at(&mut admin, IsolationLevel::RepeatableRead);
        call(&mut db.superuser(), &format!("{meanwhile}($1)"), project).unwrap();
        let sql = format!("SELECT meshhook_secrets.{then}($1)");
        let answer = transaction.query(&sql, &[&project]);
        let last = match ended(transaction, answer) {
            Ok(()) => then,
            Err(error) => {
                expect_error(Err::<(), _>(error), "40001");
                meanwhile
            }
        };
        let value = get(&mut db.service(), project, "TOKEN");
        match last {
            "seal" => drop(expect_error(value, "PT503")),
            _ => assert_eq!(value.unwrap(), "hush"),
        }
    }
}

#[test]
fn no_value_outlives_an_expiry_that_a_fixed_snapshot_reported() {
    // What happens between the snapshot and the expiry.
    for (meanwhile, exists) in
        [("rewrapped", true), ("new version", true), ("expiry", true), ("first put", false)]
    {
        for (change, old_version) in [
            ("secret_expire($1, 'TOKEN', now())", false),
            ("secret_put($1, 'TOKEN', 'next', previous_valid_for => '0')", true),
        ] {
            let World { db, alice, mut project } = world();
            if !exists {
                project = db.project(alice);
            }
            let mut user = db.user(alice);
            let mut transaction = at(&mut user, IsolationLevel::RepeatableRead);
            match meanwhile {
                "rewrapped" => {
                    call(&mut db.superuser(), "seal($1)", project).unwrap();
                    call(&mut db.superuser(), "unseal($1)", project).unwrap();
                }
                "expiry" => {
                    let later = "secret_expire($1, 'TOKEN', now() + '1 day')";
                    call(&mut db.service(), later, project).unwrap();
                }
                _ => drop(put(&mut db.service(), project, "TOKEN", "young").unwrap()),
            }
            let sql = format!("SELECT meshhook_secrets.{change}");
            let answer = transaction.query(&sql, &[&project]);
            let what = format!("{meanwhile}, {change}");
            match ended(transaction, answer) {
                Ok(()) => {
                    let version = if old_version { 1 } else { current(&db, project) };
                    let read = format!("secret_get($1, 'TOKEN', {version})");
                    let value = call(&mut db.service(), &read, project);
                    assert!(value.is_err(), "{what}: still readable");
                    expect_error(value, "PT410");
                }
                Err(error) => {
                    let code = error.code().unwrap().code().to_owned();
                    // A secret that the snapshot does not have is not found: no success either.
                    let unseen = !exists && code == "PT404";
                    assert!(code == "40001" || unseen, "{what}: {error:?}");
                    assert!(get(&mut db.service(), project, "TOKEN").is_ok(), "{what}");
                }
            }
        }
    }
}

// --- V4: default privileges of the role that installs ---------------------------------------------------

#[test]
fn default_privileges_give_nobody_anything() {
    let plain = Cluster::shared().empty_database();
    plain.superuser().batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();
    for grantee in ["bi", "PUBLIC", "authenticated", "pg_monitor"] {
        let db = Cluster::shared().empty_database();
        let name = if grantee == "bi" { format!("{}_bi", db.name()) } else { grantee.to_owned() };
        let mut superuser = db.superuser();
        if grantee == "bi" {
            superuser.batch_execute(&format!("CREATE ROLE {name}")).unwrap();
        }
        grant_by_default(&mut superuser, &name);
        superuser.batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();
        assert_eq!(beyond(&db, &plain), "", "{grantee}");
        let mut anybody = db.anon();
        for sql in [
            "SELECT meshhook_secrets.seal()",
            "SELECT * FROM meshhook_secrets.kek_storage",
            "SELECT * FROM meshhook_secrets.seal_status()",
        ] {
            expect_error(anybody.query(sql, &[]), "42501");
            if grantee == "bi" {
                let mut bi = db.superuser();
                bi.batch_execute(&format!("SET ROLE {name}")).unwrap();
                expect_error(bi.query(sql, &[]), "42501");
            }
        }
    }
}

#[test]
fn default_privileges_give_our_own_roles_nothing_more_either() {
    // The roles are there as soon as any database of the server has the extension.
    let plain = Cluster::shared().empty_database();
    plain.superuser().batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();
    for ours in ["meshhook_secrets_reader", "meshhook_secrets_writer", "meshhook_secrets_kek_admin"]
    {
        let db = Cluster::shared().empty_database();
        let mut superuser = db.superuser();
        grant_by_default(&mut superuser, ours);
        let create = "CREATE EXTENSION meshhook_secrets";
        // Refused, since what is granted by default cannot be told from what we grant.
        expect_error(superuser.batch_execute(create), "42501").hint("ALTER DEFAULT PRIVILEGES");
        assert_eq!(count(&db, "SELECT count(*) FROM pg_extension WHERE extname <> 'plpgsql'"), 0);
        superuser.batch_execute(&format!("DROP OWNED BY {ours}")).unwrap();
        superuser.batch_execute(create).unwrap();
        assert_eq!(beyond(&db, &plain), "", "{ours}");
    }
}

#[test]
fn rights_on_a_schema_that_was_there_before_do_not_stay() {
    let plain = Cluster::shared().empty_database();
    plain.superuser().batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();
    let db = Cluster::shared().empty_database();
    let bi = format!("{}_bi", db.name());
    let mut superuser = db.superuser();
    superuser
        .batch_execute(&format!(
            "CREATE ROLE {bi}; CREATE SCHEMA meshhook_secrets;
             GRANT ALL ON SCHEMA meshhook_secrets TO {bi}, PUBLIC"
        ))
        .unwrap();
    superuser.batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();
    assert_eq!(beyond(&db, &plain), "");
    superuser.batch_execute(&format!("SET ROLE {bi}")).unwrap();
    let create = "CREATE TABLE meshhook_secrets.planted ()";
    expect_error(superuser.batch_execute(create), "42501");
}

#[test]
fn rights_on_a_schema_that_were_passed_on_do_not_stay() {
    let db = Cluster::shared().empty_database();
    let (bi, friend) = (format!("{}_bi", db.name()), format!("{}_a_friend", db.name()));
    let mut superuser = db.superuser();
    superuser
        .batch_execute(&format!(
            "CREATE ROLE {bi}; CREATE ROLE {friend}; CREATE SCHEMA meshhook_secrets;
             GRANT ALL ON SCHEMA meshhook_secrets TO {bi} WITH GRANT OPTION;
             SET ROLE {bi}; GRANT ALL ON SCHEMA meshhook_secrets TO {friend}; RESET ROLE"
        ))
        .unwrap();
    // Refused, or taken back.
    let created = superuser.batch_execute("CREATE EXTENSION meshhook_secrets");
    if created.is_ok() {
        for role in [bi, friend] {
            let sql = "SELECT has_schema_privilege($1, 'meshhook_secrets', 'USAGE, CREATE')";
            let held: bool = superuser.query_one(sql, &[&role]).unwrap().get(0);
            assert!(!held, "{role}");
        }
    }
}

// --- V5: locks ------------------------------------------------------------------------------------------

#[test]
fn no_role_of_the_application_can_lock_a_table_of_ours() {
    let World { db, alice, project } = world();
    let writer = login(&db, "writer", "IN ROLE meshhook_secrets_writer", alice);
    let reader = login(&db, "reader", "IN ROLE meshhook_secrets_reader", alice);
    let admin = login(&db, "admin", "IN ROLE meshhook_secrets_kek_admin", alice);
    for mut client in [db.user(alice), db.service(), db.anon(), writer, reader, admin] {
        for table in TABLES.iter().chain(AUDIT_TABLES) {
            for mode in ["ACCESS EXCLUSIVE", "EXCLUSIVE", "SHARE", "ROW EXCLUSIVE", "ACCESS SHARE"]
            {
                let mut transaction = client.transaction().unwrap();
                let lock = format!("LOCK TABLE meshhook_secrets.{table} IN {mode} MODE");
                expect_error(transaction.batch_execute(&lock), "42501");
            }
        }
    }
    // They delete all the same.
    call(&mut db.user(alice), "secret_purge($1, 'TOKEN', 'TOKEN')", project).unwrap();
    assert_eq!(rows_of(&db, project), [1, 0, 0]);
}

// --- V6: host functions that look into pg_temp -----------------------------------------------------------

#[test]
fn a_host_function_open_to_temporary_objects_is_not_attached_silently() {
    let db = Cluster::shared().database();
    let body = "LANGUAGE sql STABLE SECURITY DEFINER";
    let text = "AS 'SELECT id FROM public.projects'";
    for open in [
        format!("{body} {text}"),
        format!("{body} SET search_path = public {text}"),
        format!("{body} SET search_path = public, auth {text}"),
        format!("{body} SET search_path = pg_temp, public {text}"),
        format!("{body} SET search_path = pg_temp {text}"),
        format!("{body} SET work_mem = '1MB' {text}"),
        format!("{body} SET search_path = public, not_pg_temp {text}"),
        format!("LANGUAGE sql STABLE {text}"),
    ] {
        for place in ["member_function", "reveal_function"] {
            let warnings = attach(&db, place, &open);
            assert_eq!(warnings.len(), 1, "{place}: {open}: {warnings:?}");
            let warning = &warnings[0];
            assert_eq!(warning.severity(), "WARNING");
            assert!(warning.message().contains("open to temporary objects"), "{warning:?}");
            assert!(warning.message().contains("under_test"), "{warning:?}");
            assert!(warning.detail().is_some_and(|text| !text.is_empty()), "{warning:?}");
            assert!(warning.hint().is_some_and(|hint| hint.contains("search_path")), "{warning:?}");
        }
    }
    for closed in [
        format!("{body} SET search_path = '' {text}"),
        format!("{body} SET search_path = public, pg_temp {text}"),
        format!("{body} SET search_path = pg_catalog, public, \"pg_temp\" {text}"),
        format!("{body} BEGIN ATOMIC SELECT id FROM public.projects; END"),
    ] {
        for place in ["member_function", "reveal_function"] {
            assert_eq!(attach(&db, place, &closed).len(), 0, "{place}: {closed}");
        }
    }
}

#[test]
fn what_the_warning_advises_keeps_temporary_objects_out() {
    let World { db, alice, project } = world();
    let mallory = Uuid::new_v4();
    // The pattern that is found everywhere.
    db.superuser()
        .batch_execute(
            "CREATE OR REPLACE FUNCTION public.user_project_ids() RETURNS SETOF uuid
             LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
             AS 'SELECT id FROM public.projects WHERE owner::text =
                 current_setting(''request.jwt.claims'')::jsonb ->> ''sub'''",
        )
        .unwrap();
    let hint = attach_existing(&db).pop().expect("a warning").hint().unwrap().to_owned();
    let advice = hint.split(';').next().unwrap();
    assert!(advice.starts_with("ALTER FUNCTION "), "{hint}");
    db.superuser().batch_execute(advice).unwrap();
    assert_eq!(attach_existing(&db).len(), 0);

    let mut user = db.user(mallory);
    user.batch_execute(&format!(
        "{EVIL}
         CREATE TEMP TABLE projects AS SELECT '{project}'::uuid AS id, '{mallory}'::uuid AS owner;
         GRANT ALL ON pg_temp.projects TO PUBLIC;
         CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (pg_temp.evil() IS NULL);
         CREATE DOMAIN pg_temp.jsonb AS pg_catalog.jsonb CHECK (pg_temp.evil() IS NULL)"
    ))
    .unwrap();
    assert!(get(&mut user, project, "TOKEN").is_err());
    assert_eq!(marks(&mut user), 0, "code of the caller ran as the owner of the host's function");
    assert_eq!(get(&mut db.user(alice), project, "TOKEN").unwrap(), "hush");
}

// --- V7: host code in the middle of our statements ------------------------------------------------------

#[test]
fn host_code_inside_our_statements_does_not_write_to_our_tables() {
    let World { db, alice, project } = world();
    db.superuser()
        .batch_execute(
            "CREATE OR REPLACE FUNCTION public.user_project_ids() RETURNS SETOF uuid
             LANGUAGE plpgsql SECURITY INVOKER SET search_path FROM CURRENT
             AS 'BEGIN RETURN QUERY SELECT id FROM projects WHERE owner = auth.uid(); END'",
        )
        .unwrap();
    let mut user = db.user(alice);
    for forgery in [
        "UPDATE meshhook_secrets.project_secrets SET description = 'forged'",
        "INSERT INTO meshhook_secrets.project_secrets (project_id, id, name, current_version,
            oldest_version, dek_version, created_at, updated_at, created_by, mac)
            SELECT id, gen_random_uuid(), 'FORGED', 1, 1, 1, now(), now(), 'x', '' FROM public.projects",
        "DELETE FROM meshhook_secrets.project_secrets",
    ] {
        user.batch_execute(&format!(
            "DROP VIEW IF EXISTS pg_temp.projects;
             CREATE OR REPLACE FUNCTION pg_temp.evil() RETURNS uuid LANGUAGE plpgsql AS $evil$
             BEGIN
               IF current_setting('attack.inside', true) = 'yes' THEN RETURN NULL; END IF;
               PERFORM set_config('attack.inside', 'yes', false);
               BEGIN
                 {forgery};
                 PERFORM set_config('attack.ran', current_setting('attack.ran', true) || ' done', false);
               EXCEPTION WHEN OTHERS THEN
                 PERFORM set_config('attack.ran', current_setting('attack.ran', true) || ' ' || sqlstate, false);
               END;
               PERFORM set_config('attack.inside', 'no', false);
               RETURN NULL;
             END $evil$;
             CREATE TEMP VIEW projects AS SELECT id, owner FROM public.projects
               WHERE (SELECT pg_temp.evil()) IS NULL;
             SET search_path = public"
        ))
        .unwrap();
        for any in [
            "secret_put($1, 'TOKEN', 'hush')",
            "secret_put($1, 'FRESH', 'x')",
            "secret_expire($1, 'TOKEN', NULL)",
            "secret_purge($1, 'FRESH', 'FRESH')",
            "secret_list($1)",
        ] {
            user.batch_execute("SET attack.ran = ''").unwrap();
            call(&mut user, any, project).unwrap();
            let outcomes: String =
                user.query_one("SELECT current_setting('attack.ran')", &[]).unwrap().get(0);
            assert!(!outcomes.is_empty(), "the trap is not armed in {any}");
            for outcome in outcomes.split_whitespace() {
                assert_eq!(outcome, "42501", "{any}: {forgery}");
            }
        }
    }
    let sql = "SELECT name, description FROM meshhook_secrets.project_secrets";
    let rows: Vec<(String, Option<String>)> =
        db.superuser().query(sql, &[]).unwrap().iter().map(|r| (r.get(0), r.get(1))).collect();
    assert_eq!(rows, [("TOKEN".to_owned(), None)]);
    assert_eq!(get(&mut user, project, "TOKEN").unwrap(), "hush");
}

// --- V8: inheritance ---------------------------------------------------------------------------------------

#[test]
fn a_table_with_children_or_parents_is_not_attached() {
    let World { db, alice, project } = world();
    db.superuser()
        .batch_execute(
            "CREATE TABLE public.parent (id uuid PRIMARY KEY, owner uuid);
             CREATE TABLE public.child (PRIMARY KEY (id)) INHERITS (public.parent);
             CREATE TABLE public.whole (id uuid PRIMARY KEY, owner uuid) PARTITION BY HASH (id);
             CREATE TABLE public.part PARTITION OF public.whole FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        )
        .unwrap();
    let before = stored(&db);
    for table in ["public.parent", "public.child", "public.part"] {
        let sql = format!("SELECT meshhook_secrets.attach_projects('{table}')");
        let refused = expect_error(db.superuser().batch_execute(&sql), "22023").detail("inherit");
        assert!(!refused.hint.is_empty(), "{refused:?}");
        assert_eq!(stored(&db), before);
    }
    assert_eq!(get(&mut db.user(alice), project, "TOKEN").unwrap(), "hush");
    let whole = "SELECT meshhook_secrets.attach_projects('public.whole')";
    db.superuser().batch_execute(whole).unwrap();
}

#[test]
fn projects_in_a_child_table_of_later_get_no_secrets() {
    let World { db, alice, project } = world();
    let child: Uuid = db.superuser().query_one("SELECT gen_random_uuid()", &[]).unwrap().get(0);
    let mut warm = db.user(alice);
    assert_eq!(get(&mut warm, project, "TOKEN").unwrap(), "hush");
    db.superuser()
        .batch_execute(&format!(
            "CREATE TABLE public.old_projects () INHERITS (public.projects);
             INSERT INTO public.old_projects (id, owner) VALUES ('{child}', '{alice}')"
        ))
        .unwrap();
    for owner_column in [false, true] {
        if owner_column {
            // As it was before the child came: a binding by owner.
            db.superuser()
                .batch_execute(
                    "ALTER TABLE public.old_projects NO INHERIT public.projects;
                     SELECT meshhook_secrets.attach_projects('public.projects');
                     ALTER TABLE public.old_projects INHERIT public.projects",
                )
                .unwrap();
        }
        for client in [&mut db.user(alice), &mut db.service(), &mut warm] {
            let refused = put(client, child, "TOKEN", "x");
            let code = refused.as_ref().err().and_then(|error| error.code()).map(|c| c.code());
            assert!(matches!(code, Some("23503" | "42501")), "{refused:?}");
            let none = get(client, child, "TOKEN");
            assert!(none.is_err(), "{none:?}");
            assert_eq!(get(client, project, "TOKEN").unwrap(), "hush");
        }
        assert_eq!(rows_of(&db, child), [0, 0, 0]);
    }
}

// --- V9: renamed tables and columns ---------------------------------------------------------------------

#[test]
fn renaming_what_was_attached_is_no_internal_error() {
    for (change, table, id) in [
        ("ALTER TABLE public.projects RENAME COLUMN id TO pid", "public.projects", "pid"),
        ("ALTER TABLE public.projects RENAME TO undertakings", "public.undertakings", "id"),
        ("ALTER TABLE public.projects SET SCHEMA auth", "auth.projects", "id"),
    ] {
        for statement in [
            format!("UPDATE {table} SET name = 'renamed'"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table} CASCADE"),
        ] {
            let World { db, alice, project } = world();
            let mut warm = db.superuser();
            get(&mut warm, project, "TOKEN").unwrap();
            let mut service = db.service();
            get(&mut service, project, "TOKEN").unwrap();
            db.superuser().batch_execute(change).unwrap();
            host_statement(&db, &mut warm, &statement, project);
            host_statement(&db, &mut db.superuser(), &statement, project);
            // Attached again, all is well.
            db.superuser()
                .batch_execute(&format!(
                    "CREATE OR REPLACE FUNCTION public.user_project_ids() RETURNS SETOF uuid
                       LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
                       AS 'SELECT {id} FROM {table} WHERE owner = auth.uid()';
                     SELECT meshhook_secrets.attach_projects('{table}', id_column => '{id}',
                       member_function => 'public.user_project_ids()')"
                ))
                .unwrap();
            let insert = format!("INSERT INTO {table} (owner) VALUES ($1) RETURNING {id}");
            let other: Uuid = db.superuser().query_one(&insert, &[&alice]).unwrap().get(0);
            put(&mut db.user(alice), other, "TOKEN", "x").unwrap();
            db.superuser().batch_execute(&statement).unwrap();
            if statement.starts_with("UPDATE") {
                assert_eq!(get(&mut db.user(alice), other, "TOKEN").unwrap(), "x");
            } else {
                assert_eq!(rows_of(&db, other), [0, 0, 0], "{change}; {statement}");
            }
        }
    }
}

#[test]
fn renaming_a_partitioned_table_that_was_attached_is_no_internal_error() {
    for change in [
        "ALTER TABLE public.whole RENAME TO renamed",
        "ALTER TABLE public.whole RENAME COLUMN id TO pid; ALTER TABLE public.whole RENAME TO renamed",
    ] {
        for statement in [
            "UPDATE public.renamed SET name = 'x'",
            "DELETE FROM public.renamed",
            "TRUNCATE public.renamed",
        ] {
            let World { db, alice, .. } = world();
            let project = Uuid::new_v4();
            db.superuser()
                .batch_execute(&format!(
                    "CREATE TABLE public.whole (id uuid PRIMARY KEY, owner uuid, name text) PARTITION BY HASH (id);
                     CREATE TABLE public.part PARTITION OF public.whole FOR VALUES WITH (MODULUS 1, REMAINDER 0);
                     INSERT INTO public.whole VALUES ('{project}', '{alice}');
                     SELECT meshhook_secrets.attach_projects('public.whole')"
                ))
                .unwrap();
            put(&mut db.user(alice), project, "TOKEN", "hush").unwrap();
            db.superuser().batch_execute(change).unwrap();
            host_statement(&db, &mut db.superuser(), statement, project);
        }
    }
}

// --- V10: triggers that do not fire ----------------------------------------------------------------------

#[test]
fn the_binding_does_not_hold_without_the_trigger_that_notices_deletions() {
    for change in [
        "DROP TRIGGER meshhook_secrets_deleted ON public.projects",
        "ALTER TABLE public.projects DISABLE TRIGGER meshhook_secrets_deleted",
        "ALTER TABLE public.projects ENABLE REPLICA TRIGGER meshhook_secrets_deleted",
        "ALTER TABLE public.projects DISABLE TRIGGER ALL",
        "ALTER TABLE public.projects DISABLE TRIGGER USER",
    ] {
        let World { db, alice, project } = world();
        let empty = db.project(alice);
        let mut warm = db.user(alice);
        get(&mut warm, project, "TOKEN").unwrap();
        db.superuser().batch_execute(change).unwrap();
        locked_out(&db, &mut warm, project);
        locked_out(&db, &mut db.user(alice), project);
        for client in [&mut warm, &mut db.service()] {
            expect_error(put(client, empty, "TOKEN", "x"), "42501");
        }
        assert_eq!(rows_of(&db, empty), [0, 0, 0]);
        // Attached again, it holds.
        attach_existing(&db);
        assert_eq!(get(&mut warm, project, "TOKEN").unwrap(), "hush");
        db.delete_project(project);
        assert_eq!(rows_of(&db, project), [0, 0, 0]);
    }
    let World { db, alice, project } = world();
    let always = "ALTER TABLE public.projects ENABLE ALWAYS TRIGGER meshhook_secrets_deleted";
    db.superuser().batch_execute(always).unwrap();
    assert_eq!(get(&mut db.user(alice), project, "TOKEN").unwrap(), "hush");
}

// --- V11: cursors ------------------------------------------------------------------------------------------

#[test]
fn an_open_cursor_does_not_reveal_what_was_sealed_since() {
    for level in [
        IsolationLevel::ReadCommitted,
        IsolationLevel::RepeatableRead,
        IsolationLevel::Serializable,
    ] {
        for reveal in ["secret_get('$p', 'TOKEN')", "(secret_get_many('$p')).value"] {
            let World { db, alice, project } = world();
            let reveal = reveal.replace("$p", &project.to_string());
            let mut user = db.user(alice);
            let mut transaction = user.build_transaction().isolation_level(level).start().unwrap();
            transaction
                .batch_execute(&format!(
                    "SET LOCAL search_path = meshhook_secrets, pg_temp;
                     DECLARE c CURSOR FOR SELECT {reveal} FROM generate_series(1, 3)"
                ))
                .unwrap();
            let first: String = transaction.query_one("FETCH 1 FROM c", &[]).unwrap().get(0);
            assert_eq!(first, "hush");
            call(&mut db.superuser(), "seal($1)", project).unwrap();
            expect_error(transaction.query("FETCH 1 FROM c", &[]), "PT503");
        }
    }
}

// --- V12: locks of projects that begin alike -----------------------------------------------------------------

#[test]
fn projects_whose_ids_begin_alike_do_not_block_one_another() {
    let World { db, alice, .. } = world();
    let first = Uuid::new_v4();
    let mut bytes = *Uuid::new_v4().as_bytes();
    bytes[..8].copy_from_slice(&first.as_bytes()[..8]);
    let second = Uuid::from_bytes(bytes);
    let insert = "INSERT INTO public.projects (id, owner) VALUES ($1, $3), ($2, $3)";
    db.superuser().execute(insert, &[&first, &second, &alice]).unwrap();

    let (mut one, mut other) = (db.user(alice), db.user(alice));
    other.batch_execute("SET lock_timeout = '3s'").unwrap();
    let mut transaction = one.transaction().unwrap();
    let sql = "SELECT meshhook_secrets.secret_put($1, 'TOKEN', 'v')";
    transaction.query(sql, &[&first]).unwrap();
    // Of the same project one has to wait, so there is a lock.
    expect_error(put(&mut other, first, "OTHER", "v"), "55P03");
    put(&mut other, second, "TOKEN", "v").unwrap();
    transaction.commit().unwrap();
    assert_eq!(get(&mut other, first, "TOKEN").unwrap(), "v");
}

// --- V13: claims -----------------------------------------------------------------------------------------------

#[test]
fn control_characters_of_a_claim_reach_no_table() {
    let World { db, project, .. } = world();
    let mut service = db.service();
    let long = "x".repeat(201);
    for odd in ["ali\0ce", "\0", "ali\nce", "\u{1b}[2Jroot", "\u{7f}", "a\u{85}b", "\t", &long] {
        claim(&mut service, odd);
        put(&mut service, project, "TOKEN", "v").unwrap();
        put(&mut service, project, &format!("K{}", Uuid::new_v4().simple()), "v").unwrap();
    }
    let sql = "SELECT DISTINCT created_by FROM meshhook_secrets.secret_versions
        WHERE version > 1 OR secret_id NOT IN
        (SELECT id FROM meshhook_secrets.project_secrets WHERE name = 'TOKEN')";
    let authors = |db: &Database<'_>| -> Vec<String> {
        db.superuser().query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    };
    assert_eq!(authors(&db), ["service_role"]);
    claim(&mut service, "ali\u{e7}e");
    put(&mut service, project, "TOKEN", "v").unwrap();
    let mut all = authors(&db);
    all.sort();
    assert_eq!(all, ["ali\u{e7}e", "service_role"]);
    // All text is as long as it looks.
    let sql = "SELECT count(*) FROM meshhook_secrets.project_secrets
        WHERE octet_length(created_by) <> octet_length(textin(textout(created_by)))";
    assert_eq!(count(&db, sql), 0);
}

#[test]
fn a_claim_with_a_nul_is_nobody_elses() {
    let db = Cluster::shared().database();
    let project = Uuid::new_v4();
    db.superuser()
        .batch_execute(&format!(
            "CREATE TABLE public.named (id uuid PRIMARY KEY, owner text);
             INSERT INTO public.named VALUES ('{project}', 'alice');
             SELECT meshhook_secrets.attach_projects('public.named')"
        ))
        .unwrap();
    let mut user = db.user(Uuid::new_v4());
    claim(&mut user, "alice");
    put(&mut user, project, "TOKEN", "hush").unwrap();
    for odd in ["alice\0", "alice\0x", "\0alice", "alice\n"] {
        claim(&mut user, odd);
        expect_error(get(&mut user, project, "TOKEN"), "42501");
        expect_error(put(&mut user, project, "TOKEN", "x"), "42501");
    }
    claim(&mut user, "alice");
    assert_eq!(get(&mut user, project, "TOKEN").unwrap(), "hush");
}

// --- V15: what setup_supabase takes back ---------------------------------------------------------------------------

#[test]
fn memberships_of_supabases_roles_do_not_survive_setup() {
    // Memberships belong to the whole server.
    let cluster = Cluster::builder().start();
    let db = cluster.database();
    let before = privileges(&db);
    db.superuser()
        .batch_execute(
            "CREATE ROLE grantor CREATEROLE;
             GRANT meshhook_secrets_writer, meshhook_secrets_reader TO grantor WITH ADMIN OPTION;
             GRANT meshhook_secrets_kek_admin TO anon, authenticated, service_role WITH ADMIN OPTION;
             SET ROLE grantor;
             GRANT meshhook_secrets_writer, meshhook_secrets_reader TO anon, authenticated, service_role;
             RESET ROLE;
             GRANT USAGE ON SCHEMA meshhook_secrets TO anon;
             GRANT SELECT ON meshhook_secrets.secret_versions TO anon, authenticated, service_role;
             GRANT EXECUTE ON FUNCTION meshhook_secrets.seal(uuid) TO anon, authenticated, service_role",
        )
        .unwrap();
    assert_ne!(privileges(&db), before);
    let setup = "SELECT meshhook_secrets.setup_supabase(users_may_reveal => true)";
    db.superuser().batch_execute(setup).unwrap();
    assert_eq!(privileges(&db), before);
    expect_error(db.anon().batch_execute("SELECT meshhook_secrets.secret_due()"), "42501");
    let mut anon = db.anon();
    expect_error(anon.batch_execute("SET ROLE meshhook_secrets_reader"), "42501");
}

#[test]
fn setup_does_not_succeed_while_a_role_has_rights_by_another_one() {
    let cluster = Cluster::builder().start();
    let db = cluster.database();
    for (who, give, take) in [
        (
            "anon",
            // From PostgreSQL 16 on, whether it inherits is decided when it becomes a member.
            "CREATE ROLE between; GRANT USAGE ON SCHEMA meshhook_secrets TO between;
             ALTER ROLE anon INHERIT; GRANT between TO anon",
            "REVOKE USAGE ON SCHEMA meshhook_secrets FROM between; REVOKE between FROM anon;
             ALTER ROLE anon NOINHERIT",
        ),
        (
            "anon",
            "GRANT meshhook_secrets_writer TO between; ALTER ROLE anon INHERIT; GRANT between TO anon",
            "REVOKE meshhook_secrets_writer FROM between; REVOKE between FROM anon;
             ALTER ROLE anon NOINHERIT",
        ),
        (
            "anon",
            "GRANT USAGE ON SCHEMA meshhook_secrets TO PUBLIC",
            "REVOKE USAGE ON SCHEMA meshhook_secrets FROM PUBLIC",
        ),
        // Supabase's own anon does not inherit, but may become what it is a member of.
        (
            "anon",
            "GRANT meshhook_secrets_reader TO between; GRANT between TO anon",
            "REVOKE meshhook_secrets_reader FROM between; REVOKE between FROM anon",
        ),
        // Users who may not reveal.
        (
            "authenticated",
            "GRANT meshhook_secrets_reader TO between; GRANT between TO authenticated",
            "REVOKE meshhook_secrets_reader FROM between; REVOKE between FROM authenticated",
        ),
    ] {
        db.superuser().batch_execute(give).unwrap();
        let before = privileges(&db);
        let setup = "SELECT meshhook_secrets.setup_supabase(false)";
        let answer = db.superuser().batch_execute(setup);
        assert!(answer.is_err(), "setup succeeds although: {give}");
        let refused = expect_error(answer, "42501").detail(who);
        assert!(!refused.detail.is_empty() && !refused.hint.is_empty(), "{refused:?}");
        assert_eq!(privileges(&db), before, "{give}");
        db.superuser().batch_execute(take).unwrap();
        db.superuser().batch_execute("SELECT meshhook_secrets.setup_supabase(true)").unwrap();
    }
}

// --- V16: what is listed with a secret ---------------------------------------------------------------------------------

#[test]
fn nothing_large_is_stored_beside_a_value() {
    let World { db, alice, project } = world();
    let mut user = db.user(alice);
    let before = stored(&db);
    let calls = [
        "secret_put($1, 'TOKEN', 'v', description => $2, metadata => $3)",
        "secret_put($1, 'NEW', 'v', description => $2, metadata => $3)",
        "secret_put_bytes($1, 'TOKEN', '\\x00', description => $2, metadata => $3)",
        "secret_generate($1, 'TOKEN', description => $2, metadata => $3)",
    ];
    // Long ones also from a table, where they are compressed.
    user.batch_execute("CREATE TEMP TABLE long (description text, metadata jsonb)").unwrap();
    let none = (None::<String>, None::<serde_json::Value>);
    let too_large = [
        (Some("x".repeat(1025)), None),
        (Some("\u{e9}".repeat(513)), None),
        (Some("x".repeat(20 << 20)), None),
        (None, Some(json!({"k": "x".repeat(16 * 1024)}))),
        (None, Some(json!("x".repeat(1 << 20)))),
        (None, Some(json!((0..5000).collect::<Vec<i32>>()))),
        (Some(String::new()), Some(json!(vec![""; 5000]))),
    ];
    for (description, metadata) in &too_large {
        let which = if metadata.is_none() { "description" } else { "metadata" };
        for any in calls {
            let sql = format!("SELECT meshhook_secrets.{any}");
            let refused = user.query(&sql, &[&project, description, metadata]);
            let refused = expect_error(refused, "PT413").detail(which);
            assert!(!refused.hint.is_empty(), "{refused:?}");
        }
        user.execute("DELETE FROM long", &[]).unwrap();
        user.execute("INSERT INTO long VALUES ($1, $2)", &[description, metadata]).unwrap();
        let sql = "SELECT meshhook_secrets.secret_put($1, 'TOKEN', 'v', description => description,
            metadata => metadata) FROM long";
        expect_error(user.query(sql, &[&project]), "PT413").detail(which);
    }
    assert_eq!(stored(&db), before);
    let longest = (Some("\u{e9}".repeat(512)), Some(json!({"k": "x".repeat(16 * 1024 - 64)})));
    for (description, metadata) in [none, longest] {
        for any in calls {
            let sql = format!("SELECT meshhook_secrets.{any}");
            user.query(&sql, &[&project, &description, &metadata]).unwrap();
        }
    }
}

// --- V17: an index that does not count ------------------------------------------------------------------------------------

#[test]
fn an_invalid_unique_index_is_not_taken_for_a_key() {
    let World { db, .. } = world();
    let mut superuser = db.superuser();
    superuser
        .batch_execute(
            "CREATE TABLE public.twins (id uuid, owner uuid);
             INSERT INTO public.twins SELECT '00000000-0000-0000-0000-000000000001' FROM generate_series(1, 2)",
        )
        .unwrap();
    let index = "CREATE UNIQUE INDEX CONCURRENTLY twins_id ON public.twins (id)";
    expect_error(superuser.batch_execute(index), "23505");
    let before = stored(&db);
    let attach = "SELECT meshhook_secrets.attach_projects('public.twins')";
    let refused = expect_error(superuser.batch_execute(attach), "22023").detail("unique index");
    assert!(!refused.hint.is_empty(), "{refused:?}");
    assert_eq!(stored(&db), before);
    superuser.batch_execute("TRUNCATE public.twins; REINDEX INDEX public.twins_id").unwrap();
    superuser.batch_execute(attach).unwrap();
}

// --- V19: one key that does not work ---------------------------------------------------------------------------------------

#[test]
fn one_disabled_kek_does_not_seal_the_secrets_under_others() {
    let World { db, alice, project } = world();
    put(&mut db.user(alice), project, "LATER", "v").unwrap();
    under_a_disabled_kek(&db, project, "DISABLED");
    let names = ["TOKEN", "DISABLED", "NONE", "LATER"];
    for mut client in [db.user(alice), db.service()] {
        let sql = "SELECT name, value, status FROM meshhook_secrets.secret_get_many($1, $2)";
        let rows = client.query(sql, &[&project, &names.as_slice()]).unwrap();
        let rows: Vec<(&str, Option<&str>, &str)> =
            rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        let expected = [
            ("TOKEN", Some("hush"), "ok"),
            ("DISABLED", None, "sealed"),
            ("NONE", None, "not_found"),
            ("LATER", Some("v"), "ok"),
        ];
        assert_eq!(rows, expected);
        let all = call(&mut client, "secret_get_many($1)", project).unwrap();
        let all: Vec<(&str, &str)> =
            all.iter().map(|row| (row.get("name"), row.get("status"))).collect();
        assert_eq!(all, [("DISABLED", "sealed"), ("LATER", "ok"), ("TOKEN", "ok")]);
        let alone = call(&mut client, "secret_get($1, 'DISABLED')", project);
        expect_error(alone, "PT503").detail("disabled");
        // Where nothing opens, the call says so.
        let sql = "SELECT * FROM meshhook_secrets.secret_get_many($1, ARRAY['DISABLED'])";
        expect_error(client.query(sql, &[&project]), "PT503").detail("disabled");
    }
}

// --- V21: a lost binding -------------------------------------------------------------------------------------------------------

#[test]
fn a_lost_binding_opens_nothing_to_anybody() {
    let World { db, alice, project } = world();
    let (mut user, mut service) = (db.user(alice), db.service());
    get(&mut user, project, "TOKEN").unwrap();
    get(&mut service, project, "TOKEN").unwrap();
    db.superuser().batch_execute("DELETE FROM meshhook_secrets.settings").unwrap();
    let nowhere = Uuid::new_v4();
    let before = stored(&db);
    let locked_out = |client: &mut Client, project: Uuid, calls: &[&str]| {
        for any in calls {
            let answer = call(client, any, project);
            assert!(answer.is_err(), "{any} is not locked out");
            let failure = expect_error(answer, "42501");
            assert!(!failure.detail.is_empty() && !failure.hint.is_empty(), "{failure:?}");
        }
    };
    for client in [&mut user, &mut db.user(alice)] {
        locked_out(client, project, CALLS);
        locked_out(client, nowhere, CALLS);
    }
    // Row-level security never decided for service_role: what is stored stays in its reach, but no
    // secret of a project is made that nobody vouches for.
    for client in [&mut service, &mut db.service()] {
        let unbound = ["secret_put($1, 'NEW', 'new')", "secret_get_many($1)", "secret_list($1)"];
        locked_out(client, project, &unbound);
        locked_out(client, nowhere, CALLS);
        assert_eq!(get(client, project, "TOKEN").unwrap(), "hush");
    }
    assert_eq!(stored(&db), before);
    attach_existing(&db);
    for client in [&mut user, &mut service] {
        assert_eq!(get(client, project, "TOKEN").unwrap(), "hush");
    }
}

#[test]
fn a_lost_binding_does_not_stop_the_host_from_deleting() {
    let World { db, alice, project } = world();
    let other = db.project(alice);
    put(&mut db.user(alice), other, "TOKEN", "x").unwrap();
    db.superuser().batch_execute("DELETE FROM meshhook_secrets.settings").unwrap();
    db.delete_project(project);
    assert_eq!(rows_of(&db, project), [0, 0, 0]);
    host_statement(&db, &mut db.superuser(), "TRUNCATE public.projects CASCADE", other);
}

// --- V14: errors of the host's code ----------------------------------------------------------------------------------------------

#[test]
fn an_error_of_the_hosts_function_confuses_no_later_call() {
    let World { db, alice, project } = world();
    db.superuser()
        .batch_execute(
            "CREATE OR REPLACE FUNCTION public.user_project_ids() RETURNS SETOF uuid
             LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = '' AS $$ BEGIN
               IF current_setting('attack.fail', true) = 'yes' THEN RAISE 'host says no' USING ERRCODE = 'HX001'; END IF;
               RETURN QUERY SELECT id FROM public.projects WHERE owner = auth.uid(); END $$",
        )
        .unwrap();
    let mut user = db.user(alice);
    let mut calls = CALLS.to_vec();
    calls.push("secret_describe($1, 'NONE')");
    calls.push("secret_versions($1, 'NONE')");
    for any in calls.iter().filter(|call| !call.contains("purge") && !call.contains("delete")) {
        for _ in 0..3 {
            user.batch_execute("SET attack.fail = 'yes'").unwrap();
            expect_error(call(&mut user, any, project), "HX001").message("host says no");
            // Also where the error is caught and the transaction goes on.
            user.batch_execute(&format!(
                "DO $do$ BEGIN
                   FOR turn IN 1..20 LOOP
                     BEGIN PERFORM * FROM meshhook_secrets.{};
                       RAISE 'no error'; EXCEPTION WHEN SQLSTATE 'HX001' THEN NULL; END;
                   END LOOP;
                   PERFORM set_config('attack.fail', 'no', false);
                   IF meshhook_secrets.secret_get('{project}', 'TOKEN') IS NULL THEN RAISE 'no value'; END IF;
                 END $do$",
                any.replace("$1", &format!("'{project}'"))
            ))
            .unwrap();
            let name: String = user.query_one("SELECT current_user::text", &[]).unwrap().get(0);
            assert_eq!(name, "authenticated");
        }
    }
    assert_eq!(get(&mut user, project, "TOKEN").unwrap(), "hush");
}

// --- helpers ---------------------------------------------------------------------------------------------------------------------

/// A database where alice has a project with the secret TOKEN, worth `hush`.
struct World {
    db: Database<'static>,
    alice: Uuid,
    project: Uuid,
}

fn world() -> World {
    let db = Cluster::shared().database();
    let alice = Uuid::new_v4();
    let project = db.project(alice);
    put(&mut db.user(alice), project, "TOKEN", "hush").unwrap();
    World { db, alice, project }
}

/// A host whose projects belong to a role that is no superuser and under its own policies, with a
/// helper function that names a table without its schema.
fn forced_host() -> World {
    let db = Cluster::shared().database();
    let (alice, project) = (Uuid::new_v4(), Uuid::new_v4());
    let app = format!("{}_app", db.name());
    db.superuser()
        .batch_execute(&format!(
            "CREATE ROLE {app}; CREATE SCHEMA app AUTHORIZATION {app};
             GRANT USAGE ON SCHEMA app TO authenticated, service_role;
             ALTER DATABASE {} SET search_path = app, public;
             SET search_path = app, public;
             SET ROLE {app};
             CREATE TABLE app.projects (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), owner uuid);
             CREATE TABLE app.members (project_id uuid);
             CREATE FUNCTION app.is_member(project uuid) RETURNS boolean LANGUAGE plpgsql AS
               'BEGIN RETURN EXISTS (SELECT FROM members WHERE project_id = project); END';
             CREATE FUNCTION app.count_projects() RETURNS bigint LANGUAGE sql SECURITY DEFINER
               AS 'SELECT count(*) FROM app.projects';
             CREATE POLICY members ON app.projects USING (app.is_member(id));
             ALTER TABLE app.projects ENABLE ROW LEVEL SECURITY;
             ALTER TABLE app.projects FORCE ROW LEVEL SECURITY;
             RESET ROLE;
             INSERT INTO app.projects VALUES ('{project}', '{alice}');
             SELECT meshhook_secrets.attach_projects('app.projects')",
            db.name()
        ))
        .unwrap();
    put(&mut db.user(alice), project, "TOKEN", "hush").unwrap();
    World { db, alice, project }
}

/// A function `pg_temp.evil` that counts its runs, however the transaction ends.
const EVIL: &str = "CREATE TEMP SEQUENCE marks; GRANT ALL ON SEQUENCE pg_temp.marks TO PUBLIC;
    CREATE FUNCTION pg_temp.evil() RETURNS uuid LANGUAGE plpgsql AS
      'BEGIN PERFORM nextval(''pg_temp.marks''); RETURN NULL; END';";

/// A temporary view `members` that runs it as whoever reads the view.
fn spring_loaded(client: &mut Client) {
    let view = "CREATE TEMP VIEW members AS SELECT pg_temp.evil() AS project_id;
        GRANT ALL ON pg_temp.members TO PUBLIC";
    client.batch_execute(&format!("{EVIL} {view}")).unwrap();
}

/// How often it ran in this session.
fn marks(client: &mut Client) -> i64 {
    let sql = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM pg_temp.marks";
    client.query_one(sql, &[]).unwrap().get(0)
}

/// The usual world, with an extension whose owner has lost SUPERUSER since.
fn demoted_owner() -> World {
    let db = Cluster::shared().database();
    let boss = format!("{}_boss", db.name());
    db.superuser()
        .batch_execute(&format!(
            "DROP EXTENSION meshhook_secrets CASCADE; DROP SCHEMA meshhook_secrets; CREATE ROLE {boss} LOGIN SUPERUSER"
        ))
        .unwrap();
    db.connect(&boss).batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();
    db.superuser()
        .batch_execute(&format!(
            "{}; ALTER ROLE {boss} NOSUPERUSER",
            include_str!("support/world/attach.sql")
        ))
        .unwrap();
    let sql = "SELECT count(*) FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
        WHERE relnamespace = 'meshhook_secrets'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND NOT rolsuper";
    assert_eq!(count(&db, sql), (TABLES.len() + AUDIT_TABLES.len()) as i64);
    let alice = Uuid::new_v4();
    let project = db.project(alice);
    put(&mut db.user(alice), project, "TOKEN", "hush").unwrap();
    World { db, alice, project }
}

/// Grants everything by default to a role, on whatever this superuser makes from now on.
fn grant_by_default(superuser: &mut Client, role: &str) {
    for kind in ["TABLES", "SEQUENCES", "FUNCTIONS", "TYPES", "SCHEMAS"] {
        let sql = format!("ALTER DEFAULT PRIVILEGES GRANT ALL ON {kind} TO {role}");
        superuser.batch_execute(&sql).unwrap();
    }
}

/// The warnings of attaching with a new function, made by this text, as one of its two functions.
fn attach(db: &Database<'_>, place: &str, function: &str) -> Vec<DbError> {
    warnings(
        db,
        &format!(
            "DROP FUNCTION IF EXISTS public.under_test();
             CREATE FUNCTION public.under_test() RETURNS SETOF uuid {function};
             SELECT meshhook_secrets.attach_projects('public.projects', {place} => 'public.under_test()')"
        ),
    )
}

/// The warnings of attaching the host's projects with its own function once more.
fn attach_existing(db: &Database<'_>) -> Vec<DbError> {
    let sql = "SELECT meshhook_secrets.attach_projects('public.projects',
        member_function => 'public.user_project_ids()')";
    warnings(db, sql)
}

/// The warnings that a superuser gets from a script.
fn warnings(db: &Database<'_>, sql: &str) -> Vec<DbError> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&heard);
    let mut client = Config::new()
        .host_path(db.cluster().dir())
        .dbname(db.name())
        .user("postgres")
        .notice_callback(move |notice| listener.lock().unwrap().push(notice))
        .connect(NoTls)
        .unwrap();
    client.batch_execute(sql).unwrap();
    drop(client);
    let heard = heard.lock().unwrap();
    heard.iter().filter(|notice| notice.severity() == "WARNING").cloned().collect()
}

/// A statement of the host on a table that has changed since it was attached: it works, and what it
/// deletes is gone, or it says clearly what is wrong.
fn host_statement(db: &Database<'_>, client: &mut Client, statement: &str, project: Uuid) {
    match client.batch_execute(statement) {
        Ok(()) if statement.starts_with("UPDATE") => {}
        Ok(()) => assert_eq!(rows_of(db, project), [0, 0, 0], "{statement}"),
        Err(error) => {
            let code = error.code().unwrap().code();
            assert_eq!(code, "55000", "{statement}: {error:?}");
            expect_error(Err::<(), _>(error), "55000").hint("attach_projects");
        }
    }
}

/// A secret under a data key of its own, wrapped by a KEK that is disabled.
fn under_a_disabled_kek(db: &Database<'_>, project: Uuid, name: &str) {
    let root = root_key::parse(KEY_A.as_bytes()).expect("a root key");
    let root = root.first().expect("one");
    let (kek, dek) = (Kek::generate().unwrap(), Dek::generate().unwrap());
    let root_key_id = root.fingerprint();
    let identity =
        KekIdentity { kek_id: 2, root_key_id: &root_key_id, status: KekStatus::Disabled };
    let wrapped_kek = root.wrap(&kek, &identity).unwrap();
    let identity = DekIdentity {
        project_id: *project.as_bytes(),
        dek_version: 2,
        kek_id: 2,
        status: DekStatus::Retiring,
    };
    let wrapped_dek = kek.wrap(&dek, &identity).unwrap();
    let (project_id, secret_id) = (*project.as_bytes(), *Uuid::new_v4().as_bytes());
    let value =
        ValueIdentity { project_id, secret_id, name, version: 1, dek_version: 2, expires_at: None };
    let metadata = MetadataIdentity {
        project_id,
        secret_id,
        name,
        current_version: 1,
        oldest_version: 1,
        dek_version: 2,
        expires_at: None,
        deleted_at: None,
        purge_after: None,
    };
    let value = dek.seal(b"unreachable", &value).unwrap();
    let mac = dek.authenticate(&metadata).to_vec();
    let id = Uuid::from_bytes(secret_id);
    let mut superuser = db.superuser();
    superuser.batch_execute("SET search_path = meshhook_secrets").unwrap();
    let insert = "INSERT INTO kek_storage (kek_id, kek_encrypted, root_key_id, status)
        VALUES (2, $1, $2, 'disabled')";
    superuser.execute(insert, &[&wrapped_kek, &root_key_id]).unwrap();
    let insert = "INSERT INTO data_keys (project_id, dek_version, kek_id, dek_encrypted, status)
        VALUES ($1, 2, 2, $2, 'retiring')";
    superuser.execute(insert, &[&project, &wrapped_dek]).unwrap();
    let insert = "INSERT INTO project_secrets (project_id, id, name, current_version,
        oldest_version, dek_version, created_at, updated_at, created_by, mac)
        VALUES ($1, $2, $3, 1, 1, 2, now(), now(), 'test', $4)";
    superuser.execute(insert, &[&project, &id, &name, &mac]).unwrap();
    let insert = "INSERT INTO secret_versions (project_id, secret_id, version, dek_version, value,
        created_at, created_by) VALUES ($1, $2, 1, 2, $3, now(), 'test')";
    superuser.execute(insert, &[&project, &id, &value]).unwrap();
    // Were the KEK in use, the secret could be read: it is the KEK's status that closes it.
    let identity = |status| KekIdentity { kek_id: 2, root_key_id: &root_key_id, status };
    let mut set = |status: KekStatus| {
        let wrapped = root.wrap(&kek, &identity(status)).unwrap();
        let update = "UPDATE kek_storage SET status = $1, kek_encrypted = $2 WHERE kek_id = 2";
        superuser.execute(update, &[&status.as_str(), &wrapped]).unwrap();
    };
    // (Not retiring: the background worker would rewrap the data key.)
    set(KekStatus::Compromised);
    assert_eq!(get(&mut db.service(), project, name).unwrap(), "unreachable");
    set(KekStatus::Disabled);
}

/// A transaction whose snapshot is taken.
fn at(client: &mut Client, level: IsolationLevel) -> Transaction<'_> {
    let mut transaction = client.build_transaction().isolation_level(level).start().unwrap();
    transaction.query("SELECT FROM public.projects", &[]).unwrap();
    transaction
}

/// How a transaction ends after this answer.
fn ended<T>(
    transaction: Transaction<'_>,
    answer: Result<T, postgres::Error>,
) -> Result<(), postgres::Error> {
    match answer {
        Ok(_) => transaction.commit(),
        Err(error) => Err(error),
    }
}

/// Nothing works for a user, and nothing changes.
fn locked_out(db: &Database<'_>, user: &mut Client, project: Uuid) {
    let before = stored(db);
    for any in CALLS {
        let answer = call(user, any, project);
        assert!(answer.is_err(), "{any} is not locked out");
        let failure: Failure = expect_error(answer, "42501");
        assert!(!failure.detail.is_empty() && !failure.hint.is_empty(), "{any}: {failure:?}");
    }
    assert_eq!(stored(db), before);
}

/// Calls a function with a project as `$1`.
fn call(client: &mut Client, call: &str, project: Uuid) -> Result<Vec<Row>, postgres::Error> {
    client.query(&format!("SELECT * FROM meshhook_secrets.{call}"), &[&project])
}

fn put(
    client: &mut Client,
    project: Uuid,
    name: &str,
    value: &str,
) -> Result<i32, postgres::Error> {
    let sql = "SELECT version FROM meshhook_secrets.secret_put($1, $2, $3)";
    Ok(client.query_one(sql, &[&project, &name, &value])?.get(0))
}

fn get(client: &mut Client, project: Uuid, name: &str) -> Result<String, postgres::Error> {
    let sql = "SELECT meshhook_secrets.secret_get($1, $2)";
    Ok(client.query_one(sql, &[&project, &name])?.get(0))
}

/// Has a session claim to be this user, whatever that is.
fn claim(client: &mut Client, subject: &str) {
    let sql = "SELECT set_config('request.jwt.claims', $1, false)";
    client.execute(sql, &[&json!({"sub": subject}).to_string()]).unwrap();
}

/// A role of its own that logs in, outside of Supabase's, with the claims of a user.
fn login(db: &Database<'_>, label: &str, options: &str, user: Uuid) -> Client {
    let role = format!("{}_{label}", db.name());
    db.superuser().batch_execute(&format!("CREATE ROLE {role} LOGIN {options}")).unwrap();
    let mut client = db.connect(&role);
    claim(&mut client, &user.to_string());
    client
}

/// The current version of TOKEN.
fn current(db: &Database<'_>, project: Uuid) -> i32 {
    let sql = "SELECT current_version FROM meshhook_secrets.project_secrets
        WHERE project_id = $1 AND name = 'TOKEN'";
    db.superuser().query_one(sql, &[&project]).unwrap().get(0)
}

fn sealed_projects(db: &Database<'_>) -> i64 {
    count(db, "SELECT sealed_projects FROM meshhook_secrets.seal_status()")
}

fn count(db: &Database<'_>, sql: &str) -> i64 {
    db.superuser().query_one(sql, &[]).unwrap().get(0)
}

/// How many data keys, secrets and versions a project has.
fn rows_of(db: &Database<'_>, project: Uuid) -> [i64; 3] {
    ["data_keys", "project_secrets", "secret_versions"].map(|table| {
        let sql = format!("SELECT count(*) FROM meshhook_secrets.{table} WHERE project_id = $1");
        db.superuser().query_one(&sql, &[&project]).unwrap().get(0)
    })
}

/// All that our tables hold.
fn stored(db: &Database<'_>) -> String {
    let tables: Vec<_> = TABLES
        .iter()
        .map(|table| {
            format!("(SELECT json_agg(t ORDER BY t::text)::text FROM meshhook_secrets.{table} t)")
        })
        .collect();
    let sql = format!("SELECT concat_ws(chr(10), {})", tables.join(", "));
    db.superuser().query_one(&sql, &[]).unwrap().get(0)
}

/// The privileges that there are in one database and not in the other.
fn beyond(db: &Database<'_>, plain: &Database<'_>) -> String {
    let (all, usual) = (privileges(db), privileges(plain));
    let usual: Vec<_> = usual.lines().collect();
    assert!(usual.iter().all(|line| all.lines().any(|other| other == *line)), "one is missing");
    all.lines().filter(|line| !usual.contains(line)).collect::<Vec<_>>().join("\n")
}

/// Every privilege on anything of the extension that is not the owner's own, and who is in its roles
/// among those of Supabase.
fn privileges(db: &Database<'_>) -> String {
    let sql = "WITH objects (object, owner, acl) AS (
        SELECT 'schema', nspowner, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace
            WHERE nspname = 'meshhook_secrets'
        UNION ALL SELECT oid::regprocedure::text, proowner, coalesce(proacl, acldefault('f', proowner))
            FROM pg_proc WHERE pronamespace = 'meshhook_secrets'::regnamespace
        UNION ALL SELECT oid::regtype::text, typowner, coalesce(typacl, acldefault('T', typowner))
            FROM pg_type WHERE typnamespace = 'meshhook_secrets'::regnamespace AND typrelid IN
            (SELECT oid FROM pg_class WHERE relkind = 'c')
        UNION ALL SELECT relname, relowner, relacl FROM pg_class
            WHERE relnamespace = 'meshhook_secrets'::regnamespace
        UNION ALL SELECT relname || '.' || attname, relowner, attacl
            FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
            WHERE relnamespace = 'meshhook_secrets'::regnamespace),
      lines (line) AS (
        SELECT format('%s: %s to %s%s', object, privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC'
            ELSE grantee::regrole::text END, CASE WHEN is_grantable THEN ' with grant option' END)
            FROM objects, aclexplode(acl) a WHERE a.grantee <> owner
        UNION ALL SELECT format('%s is in %s', m.member::regrole, m.roleid::regrole)
            FROM pg_auth_members m WHERE m.member::regrole::text IN ('anon', 'authenticated', 'service_role'))
      SELECT coalesce(string_agg(line, chr(10) ORDER BY line), '') FROM lines";
    db.superuser().query_one(sql, &[]).unwrap().get(0)
}
