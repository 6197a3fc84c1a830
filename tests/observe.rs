//! How things are, as a role sees it that may read no secret: every state of `health()`, what
//! `metrics()` measures, and every finding of `doctor()`, made true once and gone again by the remedy
//! that it names, to the letter. And the files of `monitoring/` against what they are for: the real
//! exporter, the real promtool.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use postgres::Client;
use serde_json::Value;
use support::{
    Account, Cluster, ClusterBuilder, Database, KEY_A, KEY_B, Prefix, RootKey, eventually,
    expect_error, run,
};
use uuid::Uuid;

// --- rights ----------------------------------------------------------------------------------

#[test]
fn auditors_and_kek_admins_may_ask_and_nobody_else() {
    let w = World::new(Cluster::shared());
    for role in ["auditor", "kek_admin", "writer", "reader"] {
        let mut client = w.member(role);
        for function in ["health", "metrics", "doctor"] {
            let result = client.query(&format!("SELECT * FROM meshhook_secrets.{function}()"), &[]);
            match role {
                "auditor" | "kek_admin" => assert!(!result.unwrap().is_empty()),
                _ => drop(expect_error(result, "42501")),
            }
        }
    }
}

#[test]
fn without_preload_all_three_say_so() {
    let cluster = Cluster::builder().preload(false).start();
    let db = cluster.empty_database();
    let mut superuser = db.superuser();
    superuser.batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();
    for function in ["health", "metrics", "doctor"] {
        let result = superuser.query(&format!("SELECT * FROM meshhook_secrets.{function}()"), &[]);
        expect_error(result, "55000").hint("shared_preload_libraries");
    }
}

#[test]
fn a_search_path_of_the_callers_changes_nothing() {
    // A server of its own: roles that other tests make are found too.
    let cluster = Cluster::builder().start();
    let w = World::new(&cluster);
    let mut client = w.member("auditor");
    let honest = doctor(&mut client);
    w.db.superuser()
        .batch_execute(
            "CREATE SCHEMA trap; GRANT USAGE ON SCHEMA trap TO PUBLIC;
             CREATE TABLE trap.hits (n int);
             CREATE FUNCTION trap.eq(text, text) RETURNS bool LANGUAGE plpgsql
                 AS $$ BEGIN INSERT INTO trap.hits VALUES (1); RETURN false; END $$;
             CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.eq);
             CREATE FUNCTION trap.current_setting(text) RETURNS text LANGUAGE sql AS 'SELECT ''off''';
             CREATE VIEW trap.pg_settings AS SELECT 'fsync' AS name, 'on' AS setting, 'x' AS source",
        )
        .unwrap();
    client.batch_execute("SET search_path = trap, pg_catalog").unwrap();
    assert_eq!(doctor(&mut client), honest);
    let path: String = client.query_one("SHOW search_path", &[]).unwrap().get(0);
    assert_eq!(path, "trap, pg_catalog", "the caller has its own again");
    let hits = w.db.superuser().query("SELECT FROM trap.hits", &[]).unwrap();
    assert!(hits.is_empty());
}

// --- health --------------------------------------------------------------------------------------

#[test]
fn health_knows_every_state_and_its_cause() {
    let cluster = by_hand().start();
    let mut w = World::new(&cluster);
    let started = SystemTime::now();
    // Nothing stored yet: nothing amiss.
    w.is("ok", None);
    let project = w.project();
    let (.., since) = w.is("ok", None);
    assert!(since.unwrap() <= started, "open since the server started");

    // A project.
    w.su(&format!("SELECT meshhook_secrets.seal('{project}')"));
    w.is("degraded", Some("One project is sealed."));
    w.su(&format!("SELECT meshhook_secrets.unseal('{project}')"));
    w.is("ok", None);

    // The rotation.
    w.su("SELECT meshhook_secrets.kek_configure('1 hour')");
    w.is("ok", None);
    w.su("UPDATE meshhook_secrets.kek_storage SET created_at = now() - interval '61 minutes'");
    w.is("ok", None);
    w.su("UPDATE meshhook_secrets.kek_storage SET created_at = now() - interval '2 hours'");
    w.is("degraded", Some("overdue"));
    w.su("SELECT meshhook_secrets.kek_rotate()");
    w.is("ok", None);
    w.su("UPDATE meshhook_secrets.rotation_jobs SET last_error = 'disk is full'");
    let (.., since) = w.is("degraded", Some("The rotation is stuck: disk is full."));
    assert!(since.unwrap() >= started);
    // KEK 1 is retiring, and still wraps the data key.
    w.su("UPDATE meshhook_secrets.rotation_jobs SET last_error = NULL");
    w.su("SELECT meshhook_secrets.kek_disable(1)");
    w.is("degraded", Some("KEK 1 is disabled and wraps 1 data keys."));
    w.su("SELECT meshhook_secrets.kek_enable(1)");
    w.is("ok", None);

    // Root keys: of a former KEK, of the active one.
    w.su(
        "UPDATE meshhook_secrets.kek_storage SET root_key_id = 'feedfeedfeedfeed' WHERE kek_id = 1",
    );
    w.is("degraded", Some("KEK 1 needs root key feedfeedfeedfeed."));
    let restore = "UPDATE meshhook_secrets.kek_storage k SET root_key_id = a.root_key_id
        FROM meshhook_secrets.kek_storage a WHERE k.kek_id = 1 AND a.kek_id = 2";
    w.su(restore);
    w.is("ok", None);
    cluster.write_root_key(KEY_B);
    w.su("SELECT meshhook_secrets.unseal()");
    let (_, cause, since) = w.is("sealed", Some("The active KEK needs root key"));
    assert!(cause.unwrap().contains("971a090d2b412973"), "the fingerprint of the right key");
    assert!(since.unwrap() > started);
    cluster.write_root_key(KEY_A);
    w.su("SELECT meshhook_secrets.unseal()");
    w.is("ok", None);

    // The server.
    w.su("SELECT meshhook_secrets.seal()");
    w.is("sealed", Some("An operator called meshhook_secrets.seal()."));
    w.su("SELECT meshhook_secrets.unseal()");
    fs::remove_file(cluster.root_key_path()).unwrap();
    assert!(w.superuser.batch_execute("SELECT meshhook_secrets.unseal()").is_err());
    w.is("sealed", Some("cannot be opened"));
    cluster.write_root_key(KEY_A);
    w.su("SELECT meshhook_secrets.unseal()");
    w.is("ok", None);

    // No KEK to write with.
    w.su("SELECT meshhook_secrets.kek_disable(2)");
    let (.., since) = w.is("degraded", Some("No KEK is active."));
    assert!(since.unwrap() > started);
}

#[test]
fn health_metrics_and_doctor_work_on_a_standby() {
    let cluster = by_hand().start();
    let mut w = World::new(&cluster);
    w.project();
    let standby = Cluster::builder().standby_of(&cluster).start();
    let mut client = standby.connect(w.db.name(), &w.watcher);
    let state = |client: &mut Client| health(client).0;
    eventually("the standby has its root key", || state(&mut client) == "ok");
    assert!(metrics(&mut client)["meshhook_secrets_kek_age_seconds"].is_some());
    let findings = doctor(&mut client);
    assert!(findings.iter().any(|it| it.finding == "standby"), "{findings:?}");
    // What happens on the primary is seen; what happens to the keys is each server's own.
    w.su("SELECT meshhook_secrets.kek_disable(1)");
    eventually("the standby sees it", || state(&mut client) == "degraded");
    w.su("SELECT meshhook_secrets.kek_rotate()");
    let cause = "KEK 1 is disabled and wraps 1 data keys.";
    eventually("the standby sees why", || health(&mut client).1.as_deref() == Some(cause));
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").unwrap();
    assert_eq!(health(&mut client).1.as_deref(), Some(cause));
    assert_eq!(metrics(&mut client)["meshhook_secrets_keks{\"status\": \"disabled\"}"], Some(1.0));
    assert_eq!(doctor(&mut client).iter().filter(|it| it.finding == "degraded").count(), 1);
    client.batch_execute("COMMIT").unwrap();
    let mut superuser = standby.connect(w.db.name(), "postgres");
    superuser.batch_execute("SELECT meshhook_secrets.seal()").unwrap();
    assert_eq!(state(&mut client), "sealed");
    w.is("degraded", Some(cause));
}

#[test]
fn the_audit_log_switched_off_is_told() {
    let cluster = Cluster::builder().start();
    let mut w = World::new(&cluster);
    assert_eq!(metrics(&mut w.client)["meshhook_secrets_audit_enabled"], Some(1.0));
    w.su("ALTER SYSTEM SET meshhook_secrets.audit = off");
    w.su("SELECT pg_reload_conf()");
    eventually("the audit log is off", || health(&mut w.client).0 == "degraded");
    assert_eq!(health(&mut w.client).1.unwrap(), "The audit log is switched off.");
    assert_eq!(metrics(&mut w.client)["meshhook_secrets_audit_enabled"], Some(0.0));
    w.su("ALTER SYSTEM RESET meshhook_secrets.audit");
    w.su("SELECT pg_reload_conf()");
    eventually("the audit log is on again", || health(&mut w.client).0 == "ok");
}

// --- metrics -------------------------------------------------------------------------------------

#[test]
fn metrics_measure_what_they_say() {
    let cluster = by_hand().start();
    let mut w = World::new(&cluster);
    let empty = metrics(&mut w.client);
    assert_eq!(empty["meshhook_secrets_kek_age_seconds"], None);
    assert_eq!(empty["meshhook_secrets_last_rotation_timestamp_seconds"], None);
    assert_eq!(empty["meshhook_secrets_next_rotation_timestamp_seconds"], None);
    assert_eq!(empty["meshhook_secrets_keks{\"status\": \"active\"}"], Some(0.0));

    let project = w.project();
    w.project();
    w.su("UPDATE meshhook_secrets.kek_storage SET created_at = now() - interval '1 day'");
    w.su("SELECT meshhook_secrets.kek_configure('10 days')");
    w.su(&format!("SELECT meshhook_secrets.seal('{project}')"));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let before = metrics(&mut w.client);
    let near = |value: Option<f64>, wanted: f64| {
        let value = value.unwrap();
        assert!((value - wanted).abs() < 30.0, "{value} is not about {wanted}");
    };
    near(before["meshhook_secrets_kek_age_seconds"], 86_400.0);
    near(before["meshhook_secrets_next_rotation_timestamp_seconds"], now + 9.0 * 86_400.0);
    for (name, value) in [
        ("health", 1.0),
        ("sealed", 0.0),
        ("sealed_projects", 1.0),
        ("rewraps_remaining", 0.0),
        ("rotation_running", 0.0),
        ("rotation_error", 0.0),
        ("keks{\"status\": \"active\"}", 1.0),
        ("keks{\"status\": \"retiring\"}", 0.0),
    ] {
        assert_eq!(before[&format!("meshhook_secrets_{name}")], Some(value), "{name}");
    }

    // Monitoring asks all the time: an index knows who is sealed.
    w.su("SET enable_seqscan = off");
    let sealed = "EXPLAIN SELECT count(DISTINCT project_id) FROM meshhook_secrets.data_keys
        WHERE status = 'disabled'";
    let plan = w.superuser.query(sealed, &[]).unwrap();
    let plan: String = plan.iter().map(|row| row.get::<_, String>(0)).collect();
    assert!(plan.contains("data_keys_disabled"), "{plan}");
    w.su("RESET enable_seqscan");

    w.su("SELECT meshhook_secrets.kek_rotate()");
    w.su("UPDATE meshhook_secrets.rotation_jobs SET last_error = 'x'");
    w.su("SELECT meshhook_secrets.seal()");
    let after = metrics(&mut w.client);
    near(after["meshhook_secrets_last_rotation_timestamp_seconds"], now);
    near(after["meshhook_secrets_kek_age_seconds"], 0.0);
    for (name, value) in [
        ("health", 2.0),
        ("sealed", 1.0),
        ("rewraps_remaining", 2.0),
        ("rotation_running", 1.0),
        ("rotation_error", 1.0),
        ("keks{\"status\": \"active\"}", 1.0),
        ("keks{\"status\": \"retiring\"}", 1.0),
    ] {
        assert_eq!(after[&format!("meshhook_secrets_{name}")], Some(value), "{name}");
    }
}

#[test]
fn counters_count_by_database_and_keep_the_last_error() {
    let mut w = World::new(Cluster::shared());
    let mut other = World::new(Cluster::shared());
    let project = w.project();
    let mut user = w.db.user(w.alice);
    user.query("SELECT meshhook_secrets.secret_get($1, 'TOKEN')", &[&project]).unwrap();
    user.query("SELECT meshhook_secrets.secret_get($1, 'TOKEN')", &[&project]).unwrap();
    let stranger =
        w.db.user(Uuid::new_v4())
            .query("SELECT meshhook_secrets.secret_get($1, 'TOKEN')", &[&project]);
    expect_error(stranger, "42501");
    let counted = metrics(&mut w.client);
    assert_eq!(counted["meshhook_secrets_puts_total"], Some(1.0));
    assert_eq!(counted["meshhook_secrets_gets_total"], Some(2.0));
    assert_eq!(counted["meshhook_secrets_denials_total"], Some(1.0));
    let last = counted.keys().find(|name| name.contains("last_error")).unwrap();
    assert!(last.contains("\"sqlstate\": \"42501\""), "{last}");
    let counted = metrics(&mut other.client);
    assert_eq!(counted["meshhook_secrets_puts_total"], Some(0.0));
    assert_eq!(counted["meshhook_secrets_denials_total"], Some(0.0));
}

#[test]
fn metrics_are_named_as_prometheus_wants_them() {
    let mut w = World::new(Cluster::shared());
    let rows = w.client.query("SELECT * FROM meshhook_secrets.metrics()", &[]).unwrap();
    for row in rows {
        let (name, kind, help): (&str, &str, &str) = (row.get(0), row.get(1), row.get(4));
        assert!(name.starts_with("meshhook_secrets_"), "{name}");
        assert!(name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_'), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        assert!(["counter", "gauge"].contains(&kind) && help.ends_with('.'), "{name}: {help}");
    }
}

// --- doctor --------------------------------------------------------------------------------------

/// A finding: what makes it true (statements, or `$ ` commands of the shell, in which `{file}` is the
/// root key file, `{dir}` the server's directory, `{db}` the database and `{postmaster}` its process),
/// and words of its detail. No statements: it is so from the start.
struct Case(&'static str, &'static str, &'static str, &'static [&'static str]);

#[test]
fn doctor_finds_settings_and_its_remedies_work() {
    let libraries = "auto_explain, pg_stat_statements, meshhook_secrets";
    let cluster = by_hand().setting("shared_preload_libraries", libraries).setting("fsync", "on");
    let cluster = cluster.setting("log_line_prefix", "").start();
    let mut w = World::new(&cluster);
    let mut cases = vec![
        Case(
            "critical",
            "debug_print",
            "debug_print_parse",
            &["ALTER SYSTEM SET debug_print_parse = on"],
        ),
        Case(
            "critical",
            "debug_print",
            "debug_print_rewritten",
            &["ALTER SYSTEM SET debug_print_rewritten = on"],
        ),
        Case(
            "critical",
            "debug_print",
            "debug_print_plan",
            &["ALTER SYSTEM SET debug_print_plan = on"],
        ),
        Case(
            "warning",
            "log_min_messages",
            "fatal",
            &["ALTER SYSTEM SET log_min_messages = fatal"],
        ),
        Case("warning", "log_min_messages", "is log", &["ALTER SYSTEM SET log_min_messages = log"]),
        Case(
            "warning",
            "log_parameters_on_error",
            "-1",
            &["ALTER SYSTEM SET log_parameter_max_length_on_error = -1"],
        ),
        Case("info", "log_statement", "all", &["ALTER SYSTEM SET log_statement = 'all'"]),
        Case(
            "info",
            "log_statement",
            "Of database",
            &["ALTER DATABASE {db} SET log_statement = 'mod'"],
        ),
        Case(
            "info",
            "log_statement",
            "Of role",
            &["ALTER ROLE service_role SET log_statement = 'all'"],
        ),
        Case(
            "info",
            "log_statement",
            "Of role",
            &["ALTER ROLE service_role IN DATABASE {db} SET log_statement = 'all'"],
        ),
        Case(
            "info",
            "log_statement",
            "Of all roles",
            &["ALTER ROLE ALL SET log_statement = 'all'"],
        ),
        Case(
            "info",
            "log_parameters",
            "-1",
            &["ALTER DATABASE {db} SET log_min_duration_statement = '1s'"],
        ),
        Case("info", "log_duration", "Of database", &[]),
        Case(
            "info",
            "log_duration",
            "log_min_duration_statement",
            &["ALTER SYSTEM SET log_min_duration_statement = 0"],
        ),
        Case(
            "info",
            "log_duration",
            "log_min_duration_sample",
            &["ALTER SYSTEM SET log_min_duration_sample = '5s'"],
        ),
        Case(
            "info",
            "log_duration",
            "log_transaction_sample_rate",
            &["ALTER SYSTEM SET log_transaction_sample_rate = 0.01"],
        ),
        Case("info", "log_error_statement", "log_min_error_statement", &[]),
        Case(
            "info",
            "auto_explain",
            "auto_explain.log_min_duration",
            &["ALTER SYSTEM SET auto_explain.log_min_duration = 100"],
        ),
        Case(
            "warning",
            "auto_explain_nested",
            "nested",
            &[
                "ALTER SYSTEM SET auto_explain.log_min_duration = 100",
                "ALTER SYSTEM SET auto_explain.log_nested_statements = on",
            ],
        ),
        Case(
            "warning",
            "pgaudit_parameters",
            "pgaudit.log_parameter",
            &["ALTER DATABASE {db} SET pgaudit.log_parameter = on"],
        ),
        Case("info", "statement_statistics", "track_utility", &[]),
        Case("info", "activity_visible", "pg_stat_activity", &[]),
        Case("critical", "fsync", "fsync", &["ALTER SYSTEM SET fsync = off"]),
        Case(
            "critical",
            "full_page_writes",
            "full_page_writes",
            &["ALTER SYSTEM SET full_page_writes = off"],
        ),
        Case(
            "warning",
            "synchronous_commit",
            "synchronous_commit",
            &["ALTER SYSTEM SET synchronous_commit = off"],
        ),
        Case(
            "warning",
            "synchronous_commit",
            "Of role",
            &["ALTER ROLE authenticator SET synchronous_commit = off"],
        ),
        Case(
            "info",
            "preload_order",
            "pg_stat_statements comes after",
            &[
                "ALTER SYSTEM SET shared_preload_libraries = auto_explain, meshhook_secrets, pg_stat_statements",
                "restart",
            ],
        ),
        Case("warning", "worker_slots", "max_worker_processes is 2", &[]),
    ];
    if Prefix::get().major() >= 16 {
        let parameters = Case(
            "warning",
            "auto_explain_parameters",
            "auto_explain.log_parameter_max_length",
            &["ALTER SYSTEM SET auto_explain.log_min_duration = 100"],
        );
        let nested = cases.iter().position(|case| case.1 == "auto_explain_nested");
        cases.insert(nested.expect("it is in the list"), parameters);
    }
    w.play(&cases);
}

#[test]
fn doctor_finds_grants_and_its_remedies_work() {
    let cluster = by_hand().start();
    let mut w = World::new(&cluster);
    w.su("CREATE ROLE joe LOGIN; CREATE ROLE team; CREATE ROLE web_anon; CREATE ROLE own LOGIN");
    // What setup_supabase gave is known as such.
    let findings = w.doctor();
    let by = |name: &str| findings.iter().filter(|it| it.finding == name).collect::<Vec<_>>();
    assert_eq!(by("table_grant"), Vec::<&Finding>::new());
    assert_eq!(by("owner_function"), Vec::<&Finding>::new());
    assert_eq!(by("function_grant").len(), 2, "authenticated and service_role");
    w.play(&[
        Case("critical", "public_grant", "secret_get", &["GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_get TO PUBLIC"]),
        Case("critical", "public_grant", "schema", &["GRANT USAGE ON SCHEMA meshhook_secrets TO PUBLIC"]),
        Case("critical", "public_grant", "settings", &["GRANT SELECT ON meshhook_secrets.settings TO PUBLIC"]),
        Case("critical", "public_grant", "(mac)", &["GRANT SELECT (mac) ON meshhook_secrets.project_secrets TO PUBLIC"]),
        Case("critical", "public_grant", "secret_info", &["GRANT USAGE ON TYPE meshhook_secrets.secret_info TO PUBLIC"]),
        Case("critical", "table_grant", "secret_versions", &["GRANT SELECT ON meshhook_secrets.secret_versions TO joe"]),
        Case("critical", "table_grant", "(dek_encrypted)", &["GRANT SELECT (dek_encrypted) ON meshhook_secrets.data_keys TO joe"]),
        Case("critical", "table_grant", "kek_storage", &["GRANT UPDATE ON meshhook_secrets.kek_storage TO meshhook_secrets_kek_admin"]),
        Case("critical", "table_grant", "CREATE on schema", &["GRANT CREATE ON SCHEMA meshhook_secrets TO joe"]),
        Case("warning", "owner_function", "attach_projects", &["GRANT EXECUTE ON FUNCTION meshhook_secrets.attach_projects TO joe"]),
        Case("warning", "grant_option", "joe may grant EXECUTE", &[
            "GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_get TO joe WITH GRANT OPTION",
        ]),
        Case("warning", "grant_option", "meshhook_secrets_reader may grant", &[
            "GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_get TO meshhook_secrets_reader WITH GRANT OPTION",
        ]),
        Case("info", "function_grant", "team may execute meshhook_secrets.health, meshhook_secrets.secret_get.", &[
            "GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_get TO team",
            "GRANT EXECUTE ON FUNCTION meshhook_secrets.health TO team",
        ]),
        Case("info", "function_grant", "service_role may execute", &[]),
        Case("critical", "anonymous_grant", "anon may execute", &["GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_list TO anon"]),
        Case("info", "role_member", "joe is a member of meshhook_secrets_writer", &["GRANT meshhook_secrets_writer TO joe"]),
        Case("critical", "anonymous_member", "anon, a member of meshhook_secrets_reader by way of team", &[
            "GRANT meshhook_secrets_reader TO team", "GRANT team TO anon",
        ]),
        Case("critical", "anonymous_member", "authenticator", &["GRANT meshhook_secrets_reader TO authenticator"]),
        Case("critical", "anonymous_member", "web_anon", &["GRANT meshhook_secrets_auditor TO web_anon"]),
        Case("info", "bypasses_rls", "own is not bound", &[
            "ALTER ROLE own BYPASSRLS", "GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_get_many TO own",
        ]),
        Case("info", "superuser", "joe is a superuser", &["ALTER ROLE joe SUPERUSER"]),
    ]);
}

#[test]
fn doctor_finds_changed_objects_and_its_remedies_work() {
    let cluster = by_hand().start();
    let mut w = World::new(&cluster);
    w.su("CREATE ROLE joe;
          CREATE FUNCTION public.spy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'");
    w.play(&[
        Case("critical", "row_security", "project_secrets", &["ALTER TABLE meshhook_secrets.project_secrets DISABLE ROW LEVEL SECURITY"]),
        Case("critical", "row_security", "data_keys", &["ALTER TABLE meshhook_secrets.data_keys NO FORCE ROW LEVEL SECURITY"]),
        Case("critical", "policy_added", "everybody", &["CREATE POLICY everybody ON meshhook_secrets.project_secrets USING (true)"]),
        Case("critical", "policy_added", "secret_versions", &["CREATE POLICY everybody ON meshhook_secrets.secret_versions USING (true)"]),
        Case("critical", "policy_changed", "members", &["DROP POLICY members ON meshhook_secrets.project_secrets"]),
        Case("critical", "policy_changed", "members", &[
            "ALTER POLICY members ON meshhook_secrets.project_secrets
                USING (project_id = ANY ((SELECT meshhook_secrets.member_projects())::uuid[]) OR name = 'x')",
        ]),
        Case("critical", "policy_changed", "members", &["ALTER POLICY members ON meshhook_secrets.project_secrets TO joe"]),
        Case("critical", "guard_missing", "kek_storage", &["ALTER TABLE meshhook_secrets.kek_storage DISABLE TRIGGER refuse_direct_change"]),
        Case("critical", "guard_missing", "settings", &["DROP TRIGGER refuse_direct_change ON meshhook_secrets.settings"]),
        Case("critical", "trigger_added", "spy", &[
            "CREATE TRIGGER spy AFTER INSERT ON meshhook_secrets.project_secrets FOR EACH ROW EXECUTE FUNCTION public.spy()",
        ]),
        Case("critical", "rule_added", "copy", &["CREATE RULE copy AS ON INSERT TO meshhook_secrets.settings DO ALSO NOTIFY x"]),
        Case("critical", "owner", "settings", &["ALTER TABLE meshhook_secrets.settings OWNER TO joe"]),
        Case("critical", "owner", "secret_get", &["ALTER FUNCTION meshhook_secrets.secret_get OWNER TO joe"]),
        Case("critical", "owner", "joe", &["ALTER SCHEMA meshhook_secrets OWNER TO joe"]),
        Case("critical", "attached_triggers", "projects", &["ALTER TABLE public.projects DISABLE TRIGGER meshhook_secrets_deleted"]),
        Case("critical", "attached_triggers", "projects", &["DROP TRIGGER meshhook_secrets_truncated ON public.projects"]),
        Case("critical", "attached_table", "public.gone", &[
            "UPDATE meshhook_secrets.settings SET value = value || '{\"table\": \"gone\"}' WHERE key = 'attach_projects'",
        ]),
        Case("info", "not_attached", "No projects table", &["DELETE FROM meshhook_secrets.settings WHERE key = 'attach_projects'"]),
        Case("warning", "wrapper_search_path", "public.reveal", &[
            "CREATE FUNCTION public.reveal(p uuid) RETURNS text LANGUAGE sql SECURITY DEFINER
                AS $$ SELECT meshhook_secrets.secret_get(p, 'TOKEN') $$",
        ]),
        Case("warning", "wrapper_search_path", "public.store", &[
            "CREATE PROCEDURE public.store(p uuid, v text) LANGUAGE sql SECURITY DEFINER SET search_path = public
                BEGIN ATOMIC SELECT meshhook_secrets.secret_put(p, 'TOKEN', v); END",
        ]),
    ]);
    // The wrappers are still there, and their literals are nobody's to mask.
    let found = w.one("wrapper_not_listed", "public.reveal, public.store").unwrap();
    assert_eq!(found.severity, "warning");
    assert!(
        found.remedy.starts_with(
            "ALTER SYSTEM SET meshhook_secrets.value_functions = 'public.reveal, public.store';\n"
        ),
        "{found:?}"
    );
    if w.count("pg_settings WHERE name = 'meshhook_secrets.value_functions'") > 0 {
        w.apply(&found);
    } else {
        w.su("DROP FUNCTION public.reveal; DROP PROCEDURE public.store");
    }
    w.gone("wrapper_not_listed", "");

    // Anybody may give a function any name; what the library takes for a name is proposed, no more.
    let make = |name: &str| {
        format!(
            "CREATE FUNCTION {name}() RETURNS text LANGUAGE sql SECURITY DEFINER
                AS $$ SELECT meshhook_secrets.secret_get(NULL::uuid, 'TOKEN') $$;"
        )
    };
    w.su("CREATE SCHEMA \"App\"");
    let pwned = "public.\"x\n$ touch /tmp/pwned #\"";
    let others = ["public.\"select\"", "public.\"a,b\"", pwned];
    for name in ["\"App\".\"Store\"", "pg_temp.z"].iter().chain(&others) {
        w.su(&make(name));
    }
    let oid = w.count(
        "generate_series(1, (SELECT oid::bigint FROM pg_proc WHERE proname LIKE '%touch%'))",
    );
    let found = w.one("wrapper_not_listed", "").unwrap();
    assert!(!found.detail.contains('\n') && !found.detail.contains("pg_temp"), "{found:?}");
    let hidden = format!("-- The name has control characters: look at OID {oid}");
    let lines: Vec<&str> = found.remedy.lines().collect();
    assert_eq!(lines.len(), 5, "{found:?}");
    assert!(lines[0].ends_with("\"App\".\"Store\"';"), "{found:?}");
    assert_eq!(lines[1], "SELECT pg_reload_conf();");
    for line in [
        &hidden[..],
        "-- Rename it, or list it by hand if it is yours: public.\"a,b\"",
        "-- Rename it, or list it by hand if it is yours: public.\"select\"",
    ] {
        assert!(lines[2..].contains(&line), "{line} is not in {found:?}");
    }
    let path = w.one("wrapper_search_path", "touch").unwrap();
    assert_eq!((&path.remedy[..], path.detail.contains('\n')), (&hidden[..], false));
    w.apply(&found);
    eventually("the name in mixed case is listed", || {
        w.one("wrapper_not_listed", "").is_some_and(|it| !it.detail.contains("Store"))
    });
    for name in others {
        w.su(&format!("DROP FUNCTION {name}"));
    }
    w.gone("wrapper_not_listed", "");
}

#[test]
fn doctor_finds_a_sealed_project_and_its_remedy_works() {
    let mut w = World::new(Cluster::shared());
    let project = w.project();
    w.su(&format!("SELECT meshhook_secrets.seal('{project}')"));
    let found = w.one("degraded", "One project is sealed").unwrap();
    w.apply(&found);
    w.gone("degraded", "");
}

#[test]
fn doctor_finds_the_state_of_keys_and_its_remedies_work() {
    let cluster = by_hand().setting("meshhook_secrets.audit", "off").start();
    let mut w = World::new(&cluster);
    w.project();
    w.play(&[Case("critical", "sealed", "An operator", &["SELECT meshhook_secrets.seal()"])]);
    cluster.write_root_key(KEY_B);
    w.su("SELECT meshhook_secrets.unseal()");
    let found = w.one("sealed", "root key 971a090d2b412973").unwrap();
    // Its advice is taken.
    assert!(
        found.remedy.starts_with("-- Put the root key with this fingerprint back"),
        "{found:?}"
    );
    cluster.write_root_key(&format!("{KEY_B}\n{KEY_A}"));
    w.apply(&found);
    w.gone("sealed", "");

    // The KEK is wrapped by what is a previous root key now.
    let found = w.one("root_key_rotation", "1 KEKs").unwrap();
    assert_eq!(found.severity, "warning");
    w.apply(&found);
    w.gone("root_key_rotation", "");
    let found = w.one("previous_root_key", "971a090d2b412973").unwrap();
    assert_eq!(found.severity, "info");
    cluster.write_root_key(KEY_B);
    w.apply(&found);
    w.gone("previous_root_key", "");

    // The life of KEKs.
    w.su("UPDATE meshhook_secrets.kek_storage SET created_at = now() - interval '500 days'");
    let found = w.one("kek_old", "500 days").unwrap();
    w.apply(&found);
    w.gone("kek_old", "");
    w.su("SELECT meshhook_secrets.kek_rewrap()");
    w.su("UPDATE meshhook_secrets.kek_storage SET retired_at = now() - interval '100 days' WHERE kek_id = 1");
    w.play(&[
        Case("info", "kek_retired", "KEK 1 was retired 100 days ago", &[]),
        Case("info", "no_schedule", "not rotated by itself", &[]),
    ]);
    w.su("SELECT meshhook_secrets.kek_mark_compromised(2)");
    let found = w.one("kek_compromised", "wraps 1 data keys").unwrap();
    assert_eq!(found.severity, "critical");
    w.apply(&found);
    w.su("SELECT meshhook_secrets.kek_rewrap()");
    let found = w.one("kek_compromised", "no longer needed").unwrap();
    assert_eq!(found.severity, "warning");
    w.apply(&found);
    w.gone("kek_compromised", "");

    // Verification, by the time that is recorded of the last one.
    let found = w.one("kek_verify", "never run").unwrap();
    assert_eq!(
        (found.severity.as_str(), found.remedy.as_str()),
        ("warning", "SELECT * FROM meshhook_secrets.kek_verify(deep => true);",)
    );
    w.apply(&found);
    let record = |age: &str| {
        format!(
            "INSERT INTO meshhook_secrets.settings VALUES ('last_kek_verify',
                jsonb_build_object('at', now() - interval '{age}'))
             ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        )
    };
    w.su(&record("40 days"));
    w.one("kek_verify", "last run on").unwrap();
    w.su(&record("1 day"));
    w.gone("kek_verify", "");

    let found = w.one("audit_verify", "never run").unwrap();
    assert_eq!(
        (found.severity.as_str(), found.remedy.as_str()),
        ("warning", "SELECT * FROM meshhook_secrets.audit_verify();")
    );
    w.apply(&found);
    w.gone("audit_verify", "");
}

#[test]
fn doctor_finds_where_the_root_key_lies_and_its_remedies_work() {
    let cluster = by_hand().start();
    let mut w = World::new(&cluster);
    w.play(&[
        Case("critical", "root_key_file", "group or others", &["$ chmod 644 {file}"]),
        Case("warning", "root_key_directory", "can write to its directory", &["$ chmod 777 {dir}"]),
        Case(
            "critical",
            "root_key_in_data",
            "every base backup",
            &[
                "$ mv {file} {dir}/data/root.key",
                "ALTER SYSTEM SET meshhook_secrets.root_key_file = '{dir}/data/root.key'",
            ],
        ),
    ]);
    let found = w.superuser_sees("root_key_filesystem");
    assert_eq!(found.unwrap().severity, "info");
    // Its path is nobody's business but the superuser's.
    w.su("SELECT meshhook_secrets.unseal()");
    run(Command::new("chmod").arg("644").arg(cluster.dir().join("meshhook_secrets.key")));
    let found = w.one("root_key_file", "").unwrap();
    assert!(!format!("{found:?}").contains("meshhook_secrets.key"), "{found:?}");
    let found = w.superuser_sees("root_key_file").unwrap();
    assert!(found.remedy.contains("meshhook_secrets.key"), "{found:?}");

    let memory = Path::new("/dev/shm");
    let device = |path: &Path| fs::metadata(path).map(|it| it.dev()).ok();
    if device(memory).is_some() && device(memory) != device(cluster.dir()) {
        let file = memory.join(format!("mhs-{}", Uuid::new_v4()));
        fs::write(&file, format!("{KEY_A}\n")).unwrap();
        Account::of_server().own(&file);
        run(Command::new("chmod").arg("600").arg(&file));
        w.su_lines(&[
            &format!("ALTER SYSTEM SET meshhook_secrets.root_key_file = '{}'", file.display()),
            "SELECT pg_reload_conf()",
        ]);
        w.gone("root_key_filesystem", "");
        fs::remove_file(file).unwrap();
    }

    let command = format!("echo {KEY_A}");
    let cluster = by_hand().root_key(RootKey::Command(command)).start();
    let mut w = World::new(&cluster);
    assert_eq!(w.one("root_key_command", "cannot be seen").unwrap().severity, "info");
    w.gone("root_key_copy", "");
}

#[test]
fn doctor_finds_what_memory_lacks_and_its_remedies_work() {
    // Without any memory that may be locked, from the start.
    let cluster = by_hand().create();
    let mut start = Command::new("prlimit");
    start.args(["--memlock=0:0"]).arg(Prefix::get().program("pg_ctl")).args(["start", "-w", "-D"]);
    start.arg(cluster.data_dir()).arg("-l").arg(cluster.dir().join("log")).env_clear();
    run(Account::of_server().run_as(start.env("PATH", "/usr/bin:/bin")).stdout(Stdio::null()));
    let mut w = World::new(&cluster);
    let found = w.one("key_memory", "could not be locked").unwrap();
    assert_eq!(found.severity, "warning");
    cluster.restart(); // with the limits of the tests again
    let mut w = World::new(&cluster);
    w.gone("key_memory", "could not be locked");
    let allowed =
        Command::new("prlimit").args(["--core=1000000:1000000", "true"]).output().unwrap();
    if allowed.status.success() {
        let make = &["$ prlimit --core=1000000:1000000 --pid {postmaster}"];
        w.play(&[Case("warning", "core_dumps", "Core dumps are on", make)]);
    } else {
        // Core dumps are forbidden here, for good.
        w.gone("core_dumps", "");
    }
}

#[test]
fn doctor_finds_replicas_publications_and_connections_and_its_remedies_work() {
    let cluster = by_hand().setting("wal_level", "logical").setting("wal_keep_size", "1GB").start();
    let mut w = World::new(&cluster);
    w.gone("standby", "");
    w.play(&[
        Case(
            "warning",
            "publication",
            "everything",
            &["CREATE PUBLICATION everything FOR ALL TABLES"],
        ),
        Case(
            "warning",
            "publication",
            "keys",
            &["CREATE PUBLICATION keys FOR TABLE meshhook_secrets.kek_storage"],
        ),
    ]);
    let published = "pg_publication_tables WHERE pubname = 'everything' AND tablename = 'projects'";
    assert_eq!(w.count(published), 1, "the host's tables are still published");

    // A certificate for when TLS is on.
    let file = |name: &str| cluster.data_dir().join(name);
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-new", "-x509", "-nodes", "-subj", "/CN=test", "-keyout"]);
    run(openssl.arg(file("server.key")).arg("-out").arg(file("server.crt")).stderr(Stdio::null()));
    for name in ["server.key", "server.crt"] {
        Account::of_server().own(&file(name));
        run(Command::new("chmod").arg("600").arg(file(name)));
    }
    w.play(&[Case(
        "warning",
        "unencrypted_connections",
        "127.0.0.2",
        &["ALTER SYSTEM SET listen_addresses = '127.0.0.2'", "restart"],
    )]);

    // A standby cannot have the same address.
    w.su("ALTER SYSTEM RESET listen_addresses");
    w.obey("restart");

    w.one("no_standby", "only copy").unwrap();
    let standby = Cluster::builder().standby_of(&cluster).start();
    w.gone("no_standby", "");
    let mut there = standby.connect("postgres", "postgres");
    there.batch_execute("SELECT pg_wal_replay_pause()").unwrap();
    for _ in 0..7 {
        w.su("SELECT pg_logical_emit_message(false, 'test', repeat('x', 10000000))");
    }
    let found = w.eventually_one("standby_lag", "behind");
    assert_eq!(found.severity, "warning");
    // On the standby, as it says.
    assert!(found.remedy.starts_with("-- On the standby"), "{found:?}");
    there.batch_execute("SELECT pg_wal_replay_resume()").unwrap();
    w.gone("standby_lag", "");
}

#[test]
fn doctor_looks_as_far_as_an_owner_without_superuser_sees() {
    let cluster = by_hand().start();
    let db = cluster.empty_database();
    let mut superuser = db.superuser();
    superuser.batch_execute("CREATE ROLE former SUPERUSER LOGIN").unwrap();
    db.connect("former").batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();
    superuser.batch_execute("ALTER ROLE former NOSUPERUSER").unwrap();
    let mut client = db.connect(&member(&db, "auditor"));
    assert_eq!(health(&mut client).0, "ok");
    let found = doctor(&mut client).into_iter().find(|it| it.finding == "limited_view").unwrap();
    assert!(found.detail.contains("former") && found.severity == "info", "{found:?}");
    superuser.batch_execute(&found.remedy).unwrap();
    let names: Vec<_> = doctor(&mut client).into_iter().map(|it| it.finding).collect();
    assert!(!names.contains(&String::from("limited_view")), "{names:?}");
    assert!(names.contains(&String::from("no_standby")), "{names:?}");
}

#[test]
fn doctor_always_answers_and_says_what_it_cannot_see() {
    let mut w = World::new(Cluster::shared());
    let findings = w.doctor();
    for name in ["backup", "root_key_copy", "temporary_files"] {
        assert!(findings.iter().any(|it| it.finding == name && it.severity == "info"), "{name}");
    }
    let order =
        |severity: &str| ["critical", "warning", "info"].iter().position(|it| *it == severity);
    assert!(findings.is_sorted_by_key(|it| order(&it.severity).unwrap()), "the worst first");
    for found in findings {
        assert!(found.detail.ends_with('.') && !found.remedy.is_empty(), "{found:?}");
    }
}

#[test]
fn every_finding_has_a_case_here() {
    let sources = [
        "src/service/doctor.rs",
        "src/store/doctor/logging.sql",
        "src/store/doctor/grants.sql",
        "src/store/doctor/objects.sql",
        "src/store/doctor/server.sql",
    ];
    let here = fs::read_to_string(Prefix::repository().join("tests/observe.rs")).unwrap();
    let mut names = BTreeSet::new();
    for source in sources {
        let text = fs::read_to_string(Prefix::repository().join(source)).unwrap();
        let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for (before, quote) in [
            ("'critical', '", '\''),
            ("'warning', '", '\''),
            ("'info', '", '\''),
            ("'critical' AS severity, '", '\''),
            ("'info' AS severity, '", '\''),
            ("CRITICAL, \"", '"'),
            ("WARNING, \"", '"'),
            ("INFO, \"", '"'),
        ] {
            names.extend(
                text.split(before).skip(1).map(|rest| rest.split(quote).next().unwrap().to_owned()),
            );
        }
    }
    assert!(names.len() > 40, "{names:?}");
    // No swap here, and no audit_verify yet.
    let untested = ["swap"];
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !untested.contains(&name.as_str()) && !here.contains(&format!("\"{name}\"")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

// --- monitoring/ ---------------------------------------------------------------------------------

#[test]
fn the_exporter_shows_every_metric() {
    let mut w = World::new(Cluster::shared());
    w.project();
    let measured: BTreeMap<String, Option<f64>> = metrics(&mut w.client);
    let exporter = Exporter::start(&w);
    let page = exporter.page();
    assert!(page.contains("\npg_exporter_last_scrape_error 0"), "{page}");
    assert!(page.contains("# TYPE meshhook_secrets_puts_total counter"), "{page}");
    assert!(page.contains("# TYPE meshhook_secrets_health gauge"), "{page}");
    let label = format!("datname=\"{}\"", w.db.name());
    let mut shown = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("meshhook_secrets_")) {
        assert!(line.contains(&label), "{line}");
        shown.insert(line.split('{').next().unwrap().to_owned());
    }
    let names = measured.keys().map(|name| name.split('{').next().unwrap().to_owned()).collect();
    assert_eq!(shown, names);
    // And what it shows is so.
    let line = |name: &str| page.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("meshhook_secrets_health{").ends_with(" 0"));
    assert!(line("meshhook_secrets_next_rotation_timestamp_seconds{").ends_with(" NaN"));
    let active = page.lines().find(|line| line.contains("status=\"active\"")).unwrap();
    assert!(active.starts_with("meshhook_secrets_keks{") && active.ends_with(" 1"), "{active}");
}

#[test]
fn alerts_and_dashboard_use_metrics_that_exist() {
    let mut w = World::new(Cluster::shared());
    let known: BTreeSet<String> =
        metrics(&mut w.client).keys().map(|name| name.split('{').next().unwrap().into()).collect();
    for file in ["alerts.yml", "alerts_test.yml", "dashboard.json", "queries.yaml"] {
        let text = fs::read_to_string(monitoring(file)).unwrap();
        let used: BTreeSet<String> = words(&text)
            .filter(|word| {
                word.starts_with("meshhook_secrets_") && *word != "meshhook_secrets_alerts"
            })
            .map(str::to_owned)
            .collect();
        assert!(used.len() > 8, "{file}: {used:?}");
        assert_eq!(used.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "{file}");
    }
    let dashboard = fs::read_to_string(monitoring("dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let shown = panels.iter().flat_map(|it| it["targets"].as_array().unwrap());
    let shown: String = shown.map(|target| target["expr"].as_str().unwrap()).collect();
    for name in &known {
        assert!(shown.contains(&format!("{name}{{")), "no panel shows {name}");
    }
    let ids: BTreeSet<i64> = panels.iter().map(|it| it["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
}

#[test]
fn alert_rules_pass_promtool() {
    let promtool = tools().join("promtool");
    run(Command::new(&promtool).args(["check", "rules"]).arg(monitoring("alerts.yml")));
    run(Command::new(&promtool).args(["test", "rules"]).arg(monitoring("alerts_test.yml")));
    // Each alert is expected once, or its test says nothing.
    let alerts = fs::read_to_string(monitoring("alerts.yml")).unwrap();
    let test = fs::read_to_string(monitoring("alerts_test.yml")).unwrap();
    let readme = fs::read_to_string(monitoring("README.md")).unwrap();
    let names: Vec<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 8);
    for name in names {
        assert!(test.contains(&format!("alertname: {name}\n        exp_alerts:")), "{name}");
        assert!(readme.contains(name), "{name}");
    }
}

// --- docs/realtime.md ------------------------------------------------------------------------------

#[test]
fn the_bridge_to_realtime_forwards_what_it_should_and_nothing_else() {
    let cluster = by_hand().start();
    let mut w = World::new(&cluster);
    let project = w.project();
    // What Supabase has of its own.
    w.su("CREATE SCHEMA realtime; GRANT USAGE ON SCHEMA realtime TO authenticated;
          CREATE TABLE realtime.messages (topic text, extension text, payload jsonb, event text, private bool);
          ALTER TABLE realtime.messages ENABLE ROW LEVEL SECURITY;
          GRANT SELECT ON realtime.messages TO authenticated;
          CREATE FUNCTION realtime.topic() RETURNS text LANGUAGE sql STABLE
              AS $$ SELECT nullif(current_setting('realtime.topic', true), '') $$;
          CREATE FUNCTION realtime.send(payload jsonb, event text, topic text, private boolean DEFAULT true)
              RETURNS void LANGUAGE sql
              AS $$ INSERT INTO realtime.messages VALUES (topic, 'broadcast', payload, event, private) $$");
    let page = fs::read_to_string(Prefix::repository().join("docs/realtime.md")).unwrap();
    let block = |language: &str, index: usize| {
        let fence = format!("\n```{language}\n");
        let mut blocks = page.split(&fence).skip(1);
        blocks.nth(index).unwrap().split("\n```\n").next().unwrap().to_owned()
    };
    w.su(&block("sql", 1));
    let path = format!("{}:/usr/bin:/bin", Prefix::get().program("").display());
    let mut bridge = Command::new("bash");
    bridge.args(["-c", &block("sh", 0)]).env_clear().env("PATH", path).env("PGHOST", cluster.dir());
    let bridge = bridge.env("PGUSER", "secrets_bridge").env("PGDATABASE", w.db.name());
    let _bridge = Ending(bridge.spawn().unwrap());
    let sent = |w: &mut World<'_>| -> Vec<String> {
        let sql = "SELECT topic || ' ' || event || ' ' || payload::text || ' ' || private FROM realtime.messages";
        w.superuser.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    };
    eventually("the bridge says that it listens", || !sent(&mut w).is_empty());
    let listens = "pg_stat_activity WHERE usename = 'secrets_bridge' AND query IN ('LISTEN meshhook_secrets;', 'SELECT;')";
    eventually("it does", || w.count(listens) > 0);

    for forged in [
        "no json at all",
        "[]",
        r#"{"event": "audit", "action": "x", "outcome": "denied", "project_id": "not an id"}"#,
        r#"{"event": "audit", "action": "secret_get", "outcome": "denied", "project_id": "00000000-0000-4000-8000-000000000000"}"#,
        r#"{"event": "something", "kek_id": 1}"#,
        r#"'); DROP TABLE realtime.messages; --"#,
        r#"{"event": "\u0000"}"#,
    ] {
        w.superuser.execute("SELECT pg_notify('meshhook_secrets', $1)", &[&forged]).unwrap();
    }
    w.su("SELECT meshhook_secrets.kek_rotate()");
    let denied = serde_json::json!({"event": "audit", "action": "secret_get", "outcome": "denied",
        "project_id": project, "name": "TOKEN", "value": "<script>"});
    w.superuser
        .execute("SELECT pg_notify('meshhook_secrets', $1)", &[&denied.to_string()])
        .unwrap();
    eventually("all is forwarded", || sent(&mut w).len() >= 3);
    assert_eq!(
        sent(&mut w),
        [
            String::from("secrets:operations listening {} true"),
            String::from(
                r#"secrets:operations rotation_started {"total": 1, "job_id": 1, "kek_id": 2} true"#
            ),
            format!(
                r#"secrets:{project} audit {{"action": "secret_get", "outcome": "denied"}} true"#
            ),
        ]
    );

    // Who hears it: Realtime asks with the topic that is to be joined.
    for (user, topic, hears) in [
        (w.alice, format!("secrets:{project}"), true),
        (Uuid::new_v4(), format!("secrets:{project}"), false),
        (w.alice, String::from("secrets:operations"), false),
    ] {
        let mut user = w.db.user(user);
        user.execute("SELECT set_config('realtime.topic', $1, false)", &[&topic]).unwrap();
        let rows = user.query("SELECT FROM realtime.messages", &[]).unwrap();
        assert_eq!(!rows.is_empty(), hears, "{topic}");
    }
}

#[test]
fn every_event_is_documented() {
    let page = fs::read_to_string(Prefix::repository().join("docs/realtime.md")).unwrap();
    let mut found = 0;
    for file in ["kek_life", "rotation", "audit/writer"] {
        let file = Prefix::repository().join("src/service").join(file).with_extension("rs");
        let text = fs::read_to_string(file).unwrap();
        for event in text.split("\"event\": \"").skip(1) {
            let event = event.split('"').next().unwrap();
            assert!(page.contains(&format!("`{event}`")), "{event}");
            found += 1;
        }
    }
    assert!(found >= 5, "{found}");
}

// --- helpers -------------------------------------------------------------------------------------

/// A server without room for the worker: nothing happens by itself.
fn by_hand<'p>() -> ClusterBuilder<'p> {
    Cluster::builder()
        .setting("max_logical_replication_workers", "0")
        .setting("max_worker_processes", "2")
}

/// A database, somebody who may ask how things are, and a superuser.
struct World<'c> {
    db: Database<'c>,
    alice: Uuid,
    watcher: String,
    client: Client,
    superuser: Client,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    severity: String,
    finding: String,
    detail: String,
    remedy: String,
}

impl<'c> World<'c> {
    fn new(cluster: &'c Cluster) -> Self {
        let db = cluster.database();
        let watcher = member(&db, "auditor");
        let client = db.connect(&watcher);
        let superuser = db.superuser();
        eventually("the root key is there", || health(&mut db.connect(&watcher)).0 != "sealed");
        World { alice: Uuid::new_v4(), watcher, client, superuser, db }
    }

    /// Somebody who is a member of this role of ours.
    fn member(&self, role: &str) -> Client {
        self.db.connect(&member(&self.db, role))
    }

    /// A project with a secret.
    fn project(&mut self) -> Uuid {
        let project = self.db.project(self.alice);
        let put = "SELECT meshhook_secrets.secret_put($1, 'TOKEN', 'value')";
        self.db.user(self.alice).query(put, &[&project]).unwrap();
        project
    }

    #[track_caller]
    fn su(&mut self, sql: &str) {
        self.superuser.batch_execute(sql).unwrap_or_else(|error| panic!("{error:?}\nin {sql}"));
    }

    fn su_lines(&mut self, lines: &[&str]) {
        for line in lines {
            self.su(line);
        }
    }

    fn count(&mut self, from: &str) -> i64 {
        self.superuser.query_one(&format!("SELECT count(*) FROM {from}"), &[]).unwrap().get(0)
    }

    /// Asserts the state and what its cause contains.
    #[track_caller]
    fn is(
        &mut self,
        state: &str,
        cause: Option<&str>,
    ) -> (String, Option<String>, Option<SystemTime>) {
        let health = health(&mut self.client);
        assert_eq!(health.0, state, "{health:?}");
        match cause {
            Some(part) => assert!(health.1.as_ref().unwrap().contains(part), "{health:?}"),
            None => assert_eq!(health.1, None),
        }
        health
    }

    // --- doctor ---

    /// As the watcher sees it, in a session of its own: settings may have changed.
    fn doctor(&mut self) -> Vec<Finding> {
        doctor(&mut self.db.connect(&self.watcher))
    }

    /// The one finding of this name whose detail contains this, if there is any.
    fn one(&mut self, name: &str, about: &str) -> Option<Finding> {
        let mut found = self.doctor();
        found.retain(|it| it.finding == name && it.detail.contains(about));
        assert!(found.len() <= 1, "{found:?}");
        found.pop()
    }

    #[track_caller]
    fn eventually_one(&mut self, name: &str, about: &str) -> Finding {
        let mut found = None;
        eventually(&format!("{name} is found, about {about}"), || {
            found = self.one(name, about);
            found.is_some()
        });
        found.unwrap()
    }

    #[track_caller]
    fn gone(&mut self, name: &str, about: &str) {
        let mut last = Vec::new();
        eventually(&format!("{name} is gone"), || {
            last = self.doctor();
            !last.iter().any(|it| it.finding == name && it.detail.contains(about))
        });
    }

    fn superuser_sees(&mut self, name: &str) -> Option<Finding> {
        doctor(&mut self.db.superuser()).into_iter().find(|it| it.finding == name)
    }

    /// Makes each case true, sees it, does what the remedy says, and sees it gone.
    fn play(&mut self, cases: &[Case]) {
        for Case(severity, name, about, make) in cases {
            eprintln!("{name}: {about}");
            if !make.is_empty() {
                assert_eq!(self.one(name, about), None, "{name} before it is made true");
            }
            for line in *make {
                let cluster = self.db.cluster();
                let line = line
                    .replace("{file}", &cluster.root_key_path().to_string_lossy())
                    .replace("{dir}", &cluster.dir().to_string_lossy())
                    .replace("{db}", self.db.name())
                    .replace("{postmaster}", &cluster.postmaster_pid().to_string());
                self.obey(&line);
            }
            self.su("SELECT pg_reload_conf()");
            let found = self.eventually_one(name, about);
            assert_eq!(found.severity, *severity, "{found:?}");
            // The list of preloaded libraries is for superusers.
            let listed = found.remedy.contains("shared_preload_libraries");
            assert!(!listed, "{found:?}");
            self.apply(&found);
            self.gone(name, about);
        }
    }

    /// Does what the remedy says, as a superuser sees it.
    #[track_caller]
    fn apply(&mut self, found: &Finding) {
        let seen = doctor(&mut self.db.superuser());
        let same =
            seen.iter().find(|it| (&it.finding, &it.detail) == (&found.finding, &found.detail));
        let found = same.unwrap_or_else(|| panic!("a superuser does not see {found:?}")).clone();
        let lines = found.remedy.lines().filter(|line| !line.starts_with("--"));
        let (shell, sql): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with("$ "));
        assert!(!shell.is_empty() || !sql.is_empty(), "nothing to run: {found:?}");
        for command in shell {
            self.obey(command);
        }
        for statement in sql.join("\n").split_inclusive(";\n") {
            assert!(statement.trim_end().ends_with(';'), "{found:?}");
            self.obey(statement);
        }
        if found.detail.contains("Restart the server") {
            self.obey("restart");
        }
    }

    #[track_caller]
    fn obey(&mut self, line: &str) {
        if let Some(command) = line.strip_prefix("$ ") {
            let mut shell = Command::new("sh");
            run(Account::of_server().run_as(shell.args(["-c", command])));
        } else if line == "restart" {
            self.db.cluster().restart();
            self.superuser = self.db.superuser();
            self.client = self.db.connect(&self.watcher);
        } else {
            self.su(line);
        }
    }
}

/// A new login role that is a member of this role of ours.
fn member(db: &Database<'_>, role: &str) -> String {
    let name = format!("{role}_{}", Uuid::new_v4().simple());
    db.superuser()
        .batch_execute(&format!("CREATE ROLE {name} LOGIN IN ROLE meshhook_secrets_{role}"))
        .unwrap();
    name
}

fn health(client: &mut Client) -> (String, Option<String>, Option<SystemTime>) {
    let rows =
        client.query("SELECT state, cause, since FROM meshhook_secrets.health()", &[]).unwrap();
    assert_eq!(rows.len(), 1);
    (rows[0].get(0), rows[0].get(1), rows[0].get(2))
}

/// Name and labels, and the value.
fn metrics(client: &mut Client) -> BTreeMap<String, Option<f64>> {
    let sql = "SELECT name || CASE labels WHEN '{}' THEN '' ELSE labels::text END, value
        FROM meshhook_secrets.metrics()";
    let rows = client.query(sql, &[]).unwrap();
    let metrics: BTreeMap<_, _> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(metrics.len(), rows.len(), "each once");
    metrics
}

fn doctor(client: &mut Client) -> Vec<Finding> {
    let rows = client.query("SELECT * FROM meshhook_secrets.doctor()", &[]).unwrap();
    rows.iter()
        .map(|row| Finding {
            severity: row.get("severity"),
            finding: row.get("finding"),
            detail: row.get("detail"),
            remedy: row.get("remedy"),
        })
        .collect()
}

fn monitoring(file: &str) -> PathBuf {
    Prefix::repository().join("monitoring").join(file)
}

/// Words of letters, digits and underscores.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_')
}

/// Where promtool and the exporter are.
fn tools() -> PathBuf {
    let script = Prefix::repository().join("scripts/monitoring-tools");
    run(&mut Command::new(script)).trim().into()
}

/// A process that ends when dropped.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The exporter as monitoring/README.md sets it up.
struct Exporter {
    _process: Ending,
    port: u16,
}

impl Exporter {
    fn start(w: &World<'_>) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = w.db.cluster().dir();
        let source = format!("user={} host={} dbname={}", w.watcher, dir.display(), w.db.name());
        let process = Command::new(tools().join("prometheus-postgres-exporter"))
            .env("DATA_SOURCE_NAME", source)
            .arg(format!("--extend.query-path={}", monitoring("queries.yaml").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let exporter = Self { _process: Ending(process), port };
        eventually("the exporter listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        exporter
    }

    fn page(&self) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        assert!(page.starts_with("HTTP/1.0 200"), "{page}");
        page
    }
}
