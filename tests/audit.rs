//! What leaves an audit record, what is in it, and who may look at it: every function of ours, every
//! way in which a transaction or a backend can end, repeats, searching, rights, what the system does
//! by itself, sealing, notifications.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, Config, NoTls};
use serde_json::{Value, json};
use support::audit::{Auditor, find_writer, make_role, search, writer_pid};
use support::{Cluster, Database, KEY_A, Shutdown, backend_pid, eventually, expect_error, signal};
use uuid::Uuid;

const PUT: &str = "SELECT version FROM meshhook_secrets.secret_put($1, $2, $3)";
const GET: &str = "SELECT meshhook_secrets.secret_get($1, $2)";
const FINGERPRINT_A: &str = "971a090d2b412973";

// --- every function ---------------------------------------------------------------------------

/// Functions that leave no record of their own: what policies and triggers ask, what the writer calls,
/// and probes, which may be asked every second.
const UNRECORDED: [&str; 11] = [
    "member_projects",
    "refuse_direct_change",
    "remove_versions",
    "host_project_changed",
    "audit_make_partition",
    "audit_record_setup",
    "library_version",
    "health",
    "metrics",
    "doctor",
    "project_seal_status",
];

/// A call, who makes it, and what of its record is about its subject.
struct Called {
    by: By,
    call: &'static str,
    about: Value,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum By {
    /// The application's server, over TCP, with a request's claims and headers.
    Service,
    /// A member of `meshhook_secrets_kek_admin`, through the socket.
    KekAdmin,
    /// A role with BYPASSRLS that is a member of `meshhook_secrets_auditor`.
    Auditor,
    /// A superuser.
    Superuser,
}

/// Every function once, in an order in which each succeeds. `$P`: the project; `$S`: the secret TOKEN.
fn calls() -> Vec<Called> {
    let called = |by, call, about| Called { by, call, about };
    let service = |call, about: Value| {
        let mut about = about;
        about["project_id"] = json!("$P");
        called(By::Service, call, about)
    };
    let kek = |call, about| called(By::KekAdmin, call, about);
    let of = |version: i32| json!({"name": "TOKEN", "secret_id": "$S", "version": version});
    let with = |mut about: Value, field: &str, value: &str| {
        about[field] = json!(value);
        about
    };
    vec![
        service("secret_put('$P', 'TOKEN', 'value')", of(1)),
        service("secret_put_bytes('$P', 'TOKEN', 'bytes')", of(2)),
        service("secret_generate('$P', 'TOKEN')", of(3)),
        service("secret_rollback('$P', 'TOKEN', 1)", with(of(4), "detail", "to version 1")),
        service("secret_get('$P', 'TOKEN', purpose => 'run')", with(of(4), "purpose", "run")),
        service(
            "secret_get_bytes('$P', 'TOKEN', 2, purpose => 'copy')",
            with(of(2), "purpose", "copy"),
        ),
        service(
            "secret_get_many('$P', '{TOKEN}', purpose => 'reveal')",
            with(of(4), "purpose", "reveal"),
        ),
        service("secret_list('$P')", json!({})),
        service("secret_describe('$P', 'TOKEN')", json!({"name": "TOKEN"})),
        service("secret_versions('$P', 'TOKEN')", json!({"name": "TOKEN"})),
        service("secret_due('$P')", json!({})),
        service("secret_delete('$P', 'TOKEN')", of(4)),
        service("secret_undelete('$P', 'TOKEN')", of(4)),
        service(
            "secret_expire('$P', 'TOKEN', '2100-01-01 00:00:00+00')",
            with(of(4), "detail", "2100-01-01T00:00:00.000000Z"),
        ),
        kek("dek_rotate('$P')", json!({"project_id": "$P"})),
        kek("secret_reencrypt('$P')", json!({"project_id": "$P"})),
        kek("seal('$P')", json!({"project_id": "$P"})),
        kek("unseal('$P')", json!({"project_id": "$P"})),
        service("secret_purge('$P', 'TOKEN', 'TOKEN')", of(4)),
        kek("seal_status()", json!({})),
        kek("root_key_status()", json!({})),
        kek("root_key_verify()", json!({})),
        kek("root_key_rotate()", json!({})),
        kek("kek_generate()", json!({"kek_id": 2})),
        kek("kek_rotate('yearly')", json!({"kek_id": 2, "detail": "yearly"})),
        kek("kek_rewrap()", json!({"detail": "* rewrapped, 0 remaining"})),
        kek("kek_disable(1)", json!({"kek_id": 1})),
        kek("kek_enable(1)", json!({"kek_id": 1})),
        kek("kek_mark_compromised(1)", json!({"kek_id": 1})),
        kek("kek_destroy(1, '1')", json!({"kek_id": 1})),
        kek("kek_cancel_destroy(1)", json!({"kek_id": 1})),
        kek("kek_status()", json!({})),
        kek("kek_verify(2)", json!({"kek_id": 2})),
        kek("kek_configure('90 days')", json!({})),
        called(
            By::Auditor,
            "audit_search('$P', action => 'secret_put')",
            json!({"project_id": "$P"}),
        ),
        called(By::Auditor, "audit_verify()", json!({"detail": "0 problems"})),
        called(By::Auditor, "audit_prune(now())", json!({"detail": "nothing"})),
        called(
            By::Superuser,
            "attach_projects('public.projects')",
            json!({"detail": "public.projects"}),
        ),
        called(
            By::Superuser,
            "setup_supabase()",
            json!({"detail": "users_may_reveal => false, users_may_audit => false"}),
        ),
    ]
}

#[test]
fn every_function_leaves_a_record_of_who_did_what_to_what() {
    // Every server listens at port 5432; this one at an address of its own.
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = format!("127.83.{high}.{low}");
    let cluster = Cluster::builder().setting("listen_addresses", &address).start();
    let db = cluster.database();
    let project = db.project(Uuid::new_v4());
    let sub = Uuid::new_v4();
    let mut service = Config::new()
        .host(&address)
        .dbname(db.name())
        .user("authenticator")
        .application_name("the worker of the host")
        .connect(NoTls)
        .unwrap();
    let claims = json!({"role": "service_role", "sub": sub}).to_string();
    let headers = json!({"x-request-id": "request 42", "cookie": "c=1"}).to_string();
    let request = "SELECT set_config('request.jwt.claims', $1, false),
        set_config('request.headers', $2, false), set_config('role', 'service_role', false)";
    service.execute(request, &[&claims, &headers]).unwrap();
    let mut clients = BTreeMap::from([
        (By::Service, service),
        (By::KekAdmin, db.member_of("meshhook_secrets_kek_admin")),
        (By::Auditor, db.auditor().client),
        (By::Superuser, db.superuser()),
    ]);
    // Nothing is done by a worker meanwhile.
    let mut auditor = db.auditor();

    let mut covered = BTreeSet::from(UNRECORDED);
    let mut secret = Value::Null;
    for Called { by, call, about } in calls() {
        let function = call.split('(').next().unwrap();
        assert!(covered.insert(function), "{function} is called twice");
        let earlier = auditor.search(&format!("action => '{function}'")).len();
        let statement =
            format!("SELECT * FROM meshhook_secrets.{call}").replace("$P", &project.to_string());
        if function == "kek_rewrap" {
            eventually("the rotation is finished", || {
                let count = "SELECT count(*) FROM meshhook_secrets.rotation_jobs
                    WHERE finished_at IS NULL";
                db.superuser().query_one(count, &[]).unwrap().get::<_, i64>(0) == 0
            });
        }
        let began: f64 = now(&db);
        clients.get_mut(&by).unwrap().query(&statement, &[]).unwrap_or_else(|error| {
            panic!("{call}: {error:?}");
        });
        let ended: f64 = now(&db);
        let mut found = auditor.search(&format!("action => '{function}'"));
        // The search for its own records is one of them.
        if function == "audit_search" {
            found.retain(|it| it["project_id"] != Value::Null);
        } else {
            found.drain(..earlier);
        }
        assert_eq!(found.len(), 1, "{call}: {found:#?}");
        let record = &found[0];
        if function == "secret_put" {
            let find = "SELECT to_jsonb(id) FROM meshhook_secrets.project_secrets";
            secret = db.superuser().query_one(find, &[]).unwrap().get(0);
        }

        let time: f64 = db
            .superuser()
            .query_one(
                "SELECT extract(epoch FROM $1::text::timestamptz)::float8",
                &[&record["time"].as_str().unwrap()],
            )
            .unwrap()
            .get(0);
        assert!((began..=ended).contains(&time), "{call}: {record:#?}");
        let mut wanted = json!({
            "action": function, "outcome": "ok", "sqlstate": null, "times": 1,
            "project_id": null, "secret_id": null, "name": null, "version": null,
            "kek_id": null, "purpose": null, "detail": null,
        });
        for (field, value) in about.as_object().unwrap() {
            wanted[field] = match value.as_str() {
                Some("$P") => json!(project),
                Some("$S") => secret.clone(),
                _ => value.clone(),
            };
        }
        if let Some(end) = wanted["detail"].as_str().and_then(|text| text.strip_prefix('*')) {
            assert!(record["detail"].as_str().unwrap().ends_with(end), "{record:#?}");
            wanted["detail"] = record["detail"].clone();
        }
        for (field, value) in who(by, sub).as_object().unwrap() {
            wanted[field] = value.clone();
        }
        for (field, value) in wanted.as_object().unwrap() {
            assert_eq!(&record[field], value, "{field} of {call}: {record:#?}");
        }
    }
    // The server's: last, since it leaves the others nothing to do.
    let functions: Vec<String> = db
        .superuser()
        .query(
            "SELECT DISTINCT proname::text FROM pg_proc
             WHERE pronamespace = 'meshhook_secrets'::regnamespace",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let uncovered: Vec<_> = functions.iter().filter(|it| !covered.contains(it.as_str())).collect();
    assert!(uncovered.is_empty(), "neither called nor excepted: {uncovered:?}");
    auditor.assert_good();
}

fn who(by: By, sub: Uuid) -> Value {
    let local = |actor: &str| {
        json!({
            "actor": actor, "actor_role": actor, "claimed_sub": null, "claimed_role": null,
            "client_address": null, "application_name": null, "request_id": null,
        })
    };
    match by {
        By::Service => json!({
            "actor": "authenticator", "actor_role": "service_role", "claimed_sub": sub,
            "claimed_role": "service_role", "client_address": "127.0.0.1",
            "application_name": "the worker of the host", "request_id": "request 42",
        }),
        By::KekAdmin => local("member_of_meshhook_secrets_kek_admin"),
        By::Auditor => local("whole_auditor"),
        By::Superuser => local("postgres"),
    }
}

#[test]
fn every_function_that_fails_leaves_a_record_too() {
    let db = Cluster::shared().database();
    let w = World::new(&db);
    let mut auditor = db.auditor();
    for call in calls() {
        let function = call.call.split('(').next().unwrap();
        // Those of SQL, which a superuser alone may call, fail as any statement does.
        if call.by == By::Superuser {
            continue;
        }
        // With NULLs, if there is any argument that may not be; else by a role without rights.
        let nulls: Option<String> = db
            .superuser()
            .query_one(
                "SELECT CASE WHEN pronargs > 0 THEN repeat('NULL, ', pronargs - 1) || 'NULL' END
                 FROM pg_proc WHERE proname = $1
                     AND pronamespace = 'meshhook_secrets'::regnamespace",
                &[&function],
            )
            .unwrap()
            .get(0);
        let may_be_null =
            ["seal", "unseal", "kek_rotate", "kek_configure", "audit_verify", "kek_verify"];
        let Some(nulls) = nulls.filter(|_| !may_be_null.contains(&function)) else { continue };
        let statement = format!("SELECT * FROM meshhook_secrets.{function}({nulls})");
        let mut superuser = db.superuser();
        expect_error(superuser.query(&statement, &[]), "22004");
        let record = auditor.one(&format!("action => '{function}', outcome => 'error'"));
        assert_eq!(record["sqlstate"], "22004", "{record:#?}");
        assert_eq!(record["actor"], "postgres", "{record:#?}");
    }
    drop(w);
}

fn now(db: &Database<'_>) -> f64 {
    let now = "SELECT extract(epoch FROM clock_timestamp())::float8";
    db.superuser().query_one(now, &[]).unwrap().get(0)
}

// --- however the transaction ends -----------------------------------------------------------------

#[test]
fn reveal_in_a_transaction_that_is_rolled_back_leaves_its_record() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    let mut transaction = w.member.transaction().unwrap();
    transaction.query_one(GET, &[&w.project, &"TOKEN"]).unwrap();
    transaction.rollback().unwrap();
    w.assert_revealed(1);
}

#[test]
fn reveal_in_a_transaction_that_then_fails_leaves_its_record() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    let mut transaction = w.member.transaction().unwrap();
    transaction.query_one(GET, &[&w.project, &"TOKEN"]).unwrap();
    expect_error(transaction.query_one("SELECT 1 / 0", &[]), "22012");
    transaction.rollback().unwrap();
    w.assert_revealed(1);
    // The very statement fails, after the reveal.
    let statement = "SELECT 1 / length(left(meshhook_secrets.secret_get($1, $2), 0))";
    expect_error(w.member.query_one(statement, &[&w.project, &"TOKEN"]), "22012");
    w.assert_revealed(2);
    // Cancelled while it runs.
    w.member.batch_execute("SET statement_timeout = '200ms'").unwrap();
    let statement = "SELECT pg_sleep(10 * length(meshhook_secrets.secret_get($1, $2)))";
    expect_error(w.member.query_one(statement, &[&w.project, &"TOKEN"]), "57014");
    w.assert_revealed(3);
    // Deferred until the commit.
    w.db.superuser()
        .batch_execute(
            "CREATE TABLE public.deferred (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
             GRANT ALL ON public.deferred TO authenticated",
        )
        .unwrap();
    w.member.batch_execute("RESET statement_timeout").unwrap();
    let mut transaction = w.member.transaction().unwrap();
    transaction.batch_execute("INSERT INTO public.deferred VALUES (1), (1)").unwrap();
    transaction.query_one(GET, &[&w.project, &"TOKEN"]).unwrap();
    expect_error(transaction.commit(), "23505");
    w.assert_revealed(4);
}

#[test]
fn reveal_inside_an_exception_block_leaves_its_record() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    let run = |member: &mut Client, body: &str| {
        member.batch_execute(&format!("DO $$ BEGIN {body} END $$")).unwrap();
    };
    let project = w.project;
    let get = |name: &str| format!("PERFORM meshhook_secrets.secret_get('{project}', '{name}');");
    run(
        &mut w.member,
        &format!(
            "BEGIN {} RAISE EXCEPTION 'later'; EXCEPTION WHEN OTHERS THEN NULL; END;",
            get("TOKEN")
        ),
    );
    w.assert_revealed(1);
    // The failure itself is caught, and nothing tells of it but the record.
    for (name, outcome, sqlstate) in
        [("MISSING", "not_found", "PT404"), ("1 bad", "error", "22023")]
    {
        run(&mut w.member, &format!("BEGIN {} EXCEPTION WHEN OTHERS THEN NULL; END;", get(name)));
        let record = w.auditor.one(&format!("action => 'secret_get', outcome => '{outcome}'"));
        assert_eq!(record["sqlstate"], sqlstate, "{record:#?}");
        assert_eq!(record["claimed_sub"], json!(w.alice), "{record:#?}");
        // What can be no name is not recorded: it may be a value in the wrong place.
        let recorded = if outcome == "error" { Value::Null } else { json!(name) };
        assert_eq!(record["name"], recorded, "{record:#?}");
    }
    // Nested, and rolled back as a whole.
    let mut transaction = w.member.transaction().unwrap();
    let nested = format!(
        "DO $$ BEGIN BEGIN {get} BEGIN {get} RAISE EXCEPTION 'x'; EXCEPTION WHEN OTHERS THEN {get} END;
             RAISE EXCEPTION 'y'; EXCEPTION WHEN OTHERS THEN NULL; END; END $$",
        get = get("TOKEN")
    );
    transaction.batch_execute(&nested).unwrap();
    transaction.rollback().unwrap();
    w.assert_revealed(4);
}

#[test]
fn backend_killed_right_after_it_got_the_value_leaves_its_record() {
    for mode in ["wait", "nowait"] {
        let cluster = Cluster::builder().setting("meshhook_secrets.audit_mode", mode).start();
        let db = cluster.database();
        let mut w = World::new(&db);
        for (round, transaction) in [false, true, false].into_iter().enumerate() {
            let mut member = db.user(w.alice);
            let pid = backend_pid(&mut member);
            if transaction {
                member.batch_execute("BEGIN").unwrap();
            }
            let value: String = member.query_one(GET, &[&w.project, &"TOKEN"]).unwrap().get(0);
            let starts = || cluster.log().matches("is ready to accept connections").count();
            let before = starts();
            signal(pid, "KILL");
            assert_eq!(value, "value");
            eventually("the backend is gone", || member.simple_query("SELECT 1").is_err());
            eventually("the server is back", || starts() > before);
            w.auditor = db.auditor();
            w.assert_revealed(round + 1);
        }
        w.auditor.assert_good();
    }
}

#[test]
fn server_stopped_right_after_it_gave_a_value_leaves_its_record() {
    let cluster = Cluster::builder().start();
    let db = cluster.database();
    let mut w = World::new(&db);
    for (round, how) in [Shutdown::Fast, Shutdown::Immediate].into_iter().enumerate() {
        let mut member = db.user(w.alice);
        member.query_one(GET, &[&w.project, &"TOKEN"]).unwrap();
        cluster.stop(how);
        cluster.start();
        w.auditor = db.auditor();
        w.assert_revealed(round + 1);
    }
    // A fast stop also writes what nobody waited for, and the repeats that were being counted.
    let mut member = db.user(w.alice);
    for _ in 0..5 {
        expect_error(member.query_one(GET, &[&w.project, &"MISSING"]), "PT404");
    }
    member.query("SELECT * FROM meshhook_secrets.secret_list($1)", &[&w.project]).unwrap();
    drop(member);
    cluster.stop(Shutdown::Fast);
    cluster.start();
    let mut superuser = db.superuser();
    let written = "SELECT COALESCE(sum(times) FILTER (WHERE name = 'MISSING'), 0)::int,
            (count(*) FILTER (WHERE action = 'secret_list'))::int
        FROM meshhook_secrets.audit_log";
    let row = superuser.query_one(written, &[]).unwrap();
    assert_eq!((row.get(0), row.get(1)), (5, 1));
    db.auditor().assert_good();
}

#[test]
fn reveal_refused_by_row_level_security_leaves_its_record() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    let mallory = Uuid::new_v4();
    let mut stranger = db.user(mallory);
    for (function, call) in [
        ("secret_get", GET),
        ("secret_get_bytes", "SELECT meshhook_secrets.secret_get_bytes($1, $2)"),
        ("secret_get_many", "SELECT meshhook_secrets.secret_get_many($1, ARRAY[$2])"),
    ] {
        expect_error(stranger.query(call, &[&w.project, &"TOKEN"]), "42501");
        let record = w.auditor.one(&format!("action => '{function}'"));
        assert_fields(
            &record,
            &json!({
                "outcome": "denied", "sqlstate": "42501", "project_id": w.project,
                "actor": "authenticator", "actor_role": "authenticated",
                "claimed_sub": mallory, "claimed_role": "authenticated", "times": 1,
            }),
        );
    }
    // A project that does not exist leaves the same record.
    let nowhere = Uuid::new_v4();
    expect_error(stranger.query(GET, &[&nowhere, &"TOKEN"]), "42501");
    let record = w.auditor.one(&format!("'{nowhere}', action => 'secret_get'"));
    assert_fields(&record, &json!({"outcome": "denied", "sqlstate": "42501", "name": "TOKEN"}));
}

#[test]
fn calls_that_postgresql_itself_refuses_are_recorded_too() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    // A function that the role was not granted: three times, of which two are counted.
    for _ in 0..3 {
        expect_error(w.member.query("SELECT * FROM meshhook_secrets.kek_status()", &[]), "42501");
    }
    let found = w.auditor.one("action => 'kek_status', outcome => 'denied'");
    let wanted = json!({
        "sqlstate": "42501", "times": 1, "actor": "authenticator", "actor_role": "authenticated",
        "claimed_sub": w.alice, "claimed_role": "authenticated", "project_id": null, "name": null,
    });
    assert_fields(&found, &wanted);
    // A schema that the role may not even use; with bind parameters, and by a path without the schema.
    let mut anon = db.anon();
    expect_error(anon.query(GET, &[&w.project, &"TOKEN"]), "42501");
    let found = w.auditor.one("action => 'secret_get', outcome => 'denied', actor => 'anon'");
    assert_fields(&found, &json!({ "sqlstate": "42501", "actor": "authenticator" }));
    w.member.batch_execute("SET search_path = meshhook_secrets").unwrap();
    expect_error(w.member.query("SELECT kek_rotate()", &[]), "42501");
    w.auditor.one("action => 'kek_rotate', outcome => 'denied'");
    // Tables, partitions of the log included, and direct changes.
    for (table, action) in [("secret_versions", "secret_versions"), ("audit_log", "audit_log")] {
        let sql = format!("SELECT * FROM meshhook_secrets.{table}");
        expect_error(w.member.query(&sql, &[]), "42501");
        w.auditor.one(&format!("action => '{action}', outcome => 'denied'"));
    }
    let insert = "INSERT INTO meshhook_secrets.project_secrets (project_id) VALUES ($1)";
    expect_error(w.member.execute(insert, &[&w.project]), "42501");
    w.auditor.one("action => 'direct_change', outcome => 'denied'");
    // However it is written, and where only the path or a prepared statement names us.
    for (before, call, action) in [
        ("RESET search_path", "SELECT Meshhook_Secrets.unseal()", "unseal"),
        ("RESET search_path", "SELECT meshhook_Secrets . \"metrics\"()", "metrics"),
        ("SET search_path = Meshhook_Secrets", "SELECT health()", "health"),
        ("PREPARE p AS SELECT seal()", "EXECUTE p", "seal"),
    ] {
        let _ = w.member.batch_execute(before);
        expect_error(w.member.batch_execute(call), "42501");
        w.auditor.one(&format!("action => '{action}', outcome => 'denied'"));
    }
    // A host's own table of such a name.
    db.superuser()
        .batch_execute(
            "CREATE SCHEMA app; CREATE TABLE app.audit_log_2020 ();
             GRANT USAGE ON SCHEMA app TO authenticated",
        )
        .unwrap();
    w.member.batch_execute("RESET search_path").unwrap();
    let before = w.auditor.search("outcome => 'denied'").len();
    expect_error(w.member.query("TABLE app.audit_log_2020", &[]), "42501");
    assert_eq!(w.auditor.search("outcome => 'denied'").len(), before);
    // Others' objects, and others' texts that merely mention ours, are none of our business.
    let before = w.auditor.search("outcome => 'denied'").len();
    expect_error(w.member.query("SELECT * FROM pg_catalog.pg_authid", &[]), "42501");
    let comment = "SELECT 'meshhook_secrets.secret_get' FROM pg_catalog.pg_authid";
    expect_error(w.member.query(comment, &[]), "42501");
    assert_eq!(w.auditor.search("outcome => 'denied'").len(), before);
    w.auditor.assert_good();
}

#[test]
fn forged_claim_is_recorded_as_a_claim_beside_who_really_connected() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    let mut mallory = db.member_of("meshhook_secrets_reader");
    grant_membership(&db, "meshhook_secrets_reader");
    let alice = json!({"role": "service_role", "sub": w.alice}).to_string();
    let claim = "SELECT set_config('request.jwt.claims', $1, false)";
    mallory.execute(claim, &[&alice]).unwrap();
    mallory.query_one(GET, &[&w.project, &"TOKEN"]).unwrap();
    let record = w.auditor.one("action => 'secret_get'");
    let really = json!({
        "outcome": "ok", "actor": "member_of_meshhook_secrets_reader",
        "actor_role": "member_of_meshhook_secrets_reader",
        "claimed_sub": w.alice, "claimed_role": "service_role",
    });
    assert_fields(&record, &really);

    // What is no claim is not recorded as one, and opens nothing.
    let long = json!({"sub": "x".repeat(300)}).to_string();
    for nonsense in [
        "nonsense",
        "[]",
        "{}",
        r#"{"sub": 7}"#,
        r#"{"sub": ["a"]}"#,
        "{\"sub\": \"a\\nb\"}",
        &long,
    ] {
        mallory.execute(claim, &[&nonsense]).unwrap();
        // Another project each time: no repeat of the one before.
        let project = db.project(w.alice);
        let result = mallory.query_one(GET, &[&project, &"TOKEN"]);
        let error = result.unwrap_err();
        let sqlstate = error.code().unwrap().code();
        let record = w.auditor.one(&format!("'{project}', action => 'secret_get'"));
        // Refused by us, or by the host's function, which cannot make anything of it.
        let outcome = if sqlstate == "42501" { "denied" } else { "error" };
        let wanted = json!({
            "outcome": outcome, "sqlstate": sqlstate,
            "actor": "member_of_meshhook_secrets_reader",
            "claimed_sub": null, "claimed_role": null,
        });
        assert_fields(&record, &wanted);
    }
    // SET SESSION AUTHORIZATION is for superusers; the record says who they said they are then.
    let mut superuser = db.superuser();
    superuser.execute(claim, &[&alice]).unwrap();
    superuser.batch_execute("SET ROLE authenticated").unwrap();
    superuser.query_one(GET, &[&w.project, &"TOKEN"]).unwrap();
    let record = w.auditor.one("action => 'secret_get', actor => 'postgres'");
    assert_fields(&record, &json!({"actor": "postgres", "actor_role": "authenticated"}));
}

#[test]
fn reveals_by_a_cursor_leave_a_record_for_each_row_that_was_fetched() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    let mut transaction = w.member.transaction().unwrap();
    let declare = format!(
        "DECLARE values CURSOR FOR SELECT meshhook_secrets.secret_get('{}', 'TOKEN')
         FROM generate_series(1, 5)",
        w.project
    );
    transaction.batch_execute(&declare).unwrap();
    assert_eq!(transaction.query("FETCH 2 FROM values", &[]).unwrap().len(), 2);
    assert_eq!(transaction.query("FETCH 1 FROM values", &[]).unwrap().len(), 1);
    transaction.batch_execute("CLOSE values").unwrap();
    transaction.rollback().unwrap();
    w.assert_revealed(3);
    // One that outlives its transaction is filled at the commit.
    let declare = declare.replace("CURSOR", "CURSOR WITH HOLD");
    w.member.batch_execute(&format!("BEGIN; {declare}; COMMIT")).unwrap();
    w.assert_revealed(8);
}

#[test]
fn many_secrets_leave_a_record_each() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    for name in ["DELETED", "EXPIRED", "SPOILED"] {
        w.put(name, "value");
    }
    let binary = "SELECT meshhook_secrets.secret_put_bytes($1, 'BINARY', '\\xff')";
    w.member.query_one(binary, &[&w.project]).unwrap();
    let delete = "SELECT meshhook_secrets.secret_delete($1, 'DELETED')";
    w.member.query_one(delete, &[&w.project]).unwrap();
    let expire = "SELECT meshhook_secrets.secret_expire($1, 'EXPIRED', now() - interval '1 hour')";
    w.member.query_one(expire, &[&w.project]).unwrap();
    w.db.superuser()
        .batch_execute(
            "UPDATE meshhook_secrets.project_secrets SET current_version = 7 WHERE name = 'SPOILED'",
        )
        .unwrap();
    let many = "SELECT name, status FROM meshhook_secrets.secret_get_many($1, $2, 'run')";
    let names = ["TOKEN", "MISSING", "DELETED", "EXPIRED", "SPOILED", "BINARY", "TOKEN"];
    let answers = w.member.query(many, &[&w.project, &&names[..]]).unwrap();
    assert_eq!(answers.len(), 6);
    let mut ids: BTreeMap<String, Value> = BTreeMap::new();
    let find = "SELECT name, to_jsonb(id) FROM meshhook_secrets.project_secrets";
    for row in w.db.superuser().query(find, &[]).unwrap() {
        ids.insert(row.get(0), row.get(1));
    }
    let found = w.auditor.search("action => 'secret_get_many'");
    let told: Vec<_> = found
        .iter()
        .map(|record| {
            let name = record["name"].as_str().unwrap();
            assert_eq!(record["secret_id"], ids.get(name).cloned().unwrap_or_default(), "{record}");
            assert_eq!(record["purpose"], "run");
            assert_eq!(record["project_id"], json!(w.project));
            (name, record["outcome"].as_str().unwrap(), record["sqlstate"].as_str())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("TOKEN", "ok", None),
            ("MISSING", "not_found", Some("PT404")),
            ("DELETED", "not_found", Some("PT410")),
            ("EXPIRED", "not_found", Some("PT410")),
            ("SPOILED", "error", Some("XX001")),
            ("BINARY", "error", Some("22023")),
        ]
    );
    // Without names: those that it gives.
    w.member
        .query(
            "SELECT * FROM meshhook_secrets.secret_get_many($1, purpose => 'all')",
            &[&w.project],
        )
        .unwrap();
    let all = w.auditor.search("action => 'secret_get_many'");
    let names: BTreeSet<_> = all[6..].iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["TOKEN", "EXPIRED", "SPOILED", "BINARY"]));
    // A project without any still leaves one.
    let empty = db.project(w.alice);
    w.put_in(empty, "ONLY", "value");
    let delete = "SELECT meshhook_secrets.secret_delete($1, 'ONLY')";
    w.member.query_one(delete, &[&empty]).unwrap();
    w.member.query("SELECT * FROM meshhook_secrets.secret_get_many($1)", &[&empty]).unwrap();
    let record = w.auditor.one(&format!("'{empty}', action => 'secret_get_many'"));
    assert_fields(&record, &json!({"outcome": "ok", "name": null}));
}

#[test]
fn prepared_transaction_leaves_the_records_of_what_became_of_it() {
    let cluster = Cluster::builder().setting("max_prepared_transactions", "5").start();
    let db = cluster.database();
    let mut w = World::new(&db);
    for (name, end) in [("UNDONE", "ROLLBACK"), ("DONE", "COMMIT")] {
        w.member.batch_execute("BEGIN").unwrap();
        w.put(name, "value");
        w.member.query_one(GET, &[&w.project, &name]).unwrap();
        w.member.batch_execute(&format!("PREPARE TRANSACTION '{name}'")).unwrap();
        assert_eq!(w.auditor.outcomes(&format!("name => '{name}'")), ["secret_get ok"], "{name}");
        // By somebody else, and across a restart.
        cluster.restart();
        w.auditor = db.auditor();
        w.member = db.user(w.alice);
        assert_eq!(w.auditor.outcomes(&format!("name => '{name}'")), ["secret_get ok"], "{name}");
        db.superuser().batch_execute(&format!("{end} PREPARED '{name}'")).unwrap();
    }
    assert_eq!(w.auditor.outcomes("name => 'UNDONE'"), ["secret_get ok"]);
    let mut done = w.auditor.outcomes("name => 'DONE'");
    done.sort();
    assert_eq!(done, ["secret_get ok", "secret_put ok"]);
    // The session that prepared goes on, and so do its records.
    w.member.batch_execute("BEGIN").unwrap();
    w.put("THIRD", "value");
    w.member.batch_execute("PREPARE TRANSACTION 'THIRD'").unwrap();
    w.member.batch_execute("COMMIT PREPARED 'THIRD'").unwrap();
    w.put("FOURTH", "value");
    // Nobody asks for them here: the writer takes them over by itself.
    let mut superuser = db.superuser();
    eventually("the records are sealed", || {
        let count = "SELECT count(*) FROM meshhook_secrets.audit_log
            WHERE action = 'secret_put' AND name IN ('THIRD', 'FOURTH')";
        superuser.query_one(count, &[]).unwrap().get::<_, i64>(0) == 2
    });
    w.auditor.assert_good();
}

#[test]
fn changes_that_are_rolled_back_leave_no_record_and_failed_ones_leave_one() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    let (project, alice) = (w.project, w.alice);
    let mut transaction = w.member.transaction().unwrap();
    transaction.query_one(PUT, &[&project, &"ROLLED_BACK", &"value"]).unwrap();
    transaction.rollback().unwrap();

    let mut transaction = w.member.transaction().unwrap();
    transaction.query_one(PUT, &[&project, &"KEPT", &"value"]).unwrap();
    let mut savepoint = transaction.savepoint("here").unwrap();
    savepoint.query_one(PUT, &[&project, &"UNDONE", &"value"]).unwrap();
    savepoint.rollback().unwrap();
    let mut savepoint = transaction.savepoint("there").unwrap();
    savepoint.query_one(PUT, &[&project, &"RELEASED", &"value"]).unwrap();
    savepoint.commit().unwrap();
    transaction.commit().unwrap();

    // Failed, in a transaction that goes on.
    let mut transaction = w.member.transaction().unwrap();
    transaction.query_one(PUT, &[&project, &"BESIDE", &"value"]).unwrap();
    let mut savepoint = transaction.savepoint("here").unwrap();
    let cas = "SELECT meshhook_secrets.secret_put($1, 'KEPT', 'value', cas => 7)";
    expect_error(savepoint.query_one(cas, &[&project]), "PT409");
    savepoint.rollback().unwrap();
    transaction.commit().unwrap();

    // Failed after it had written: by a trigger of the commit, or by the client's own statement.
    let fails = "SELECT 1 / (version - version)
        FROM meshhook_secrets.secret_put($1, 'STATEMENT', 'value')";
    expect_error(w.member.query(fails, &[&project]), "22012");

    let found = w.auditor.search(&format!("'{project}', action => 'secret_put'"));
    let told: Vec<_> = found
        .iter()
        .map(|it| {
            assert_eq!(it["claimed_sub"], json!(alice));
            format!("{} {}", it["name"].as_str().unwrap(), it["outcome"].as_str().unwrap())
        })
        .filter(|it| it != "TOKEN ok")
        .collect();
    let told: BTreeSet<&str> = told.iter().map(String::as_str).collect();
    assert_eq!(told, BTreeSet::from(["KEPT ok", "RELEASED ok", "BESIDE ok", "KEPT error"]));
    assert_eq!(found.len(), 5, "{found:#?}");
    let failed = w.auditor.one("action => 'secret_put', outcome => 'error'");
    assert_eq!(failed["sqlstate"], "PT409");
    // Records of one transaction say so.
    let of = |name: &str| {
        let record = found.iter().find(|it| it["name"] == name && it["outcome"] == "ok").unwrap();
        record["transaction_id"].as_i64().unwrap()
    };
    assert_eq!(of("KEPT"), of("RELEASED"));
    assert_ne!(of("KEPT"), of("BESIDE"));
}

// --- repeats ----------------------------------------------------------------------------------------

#[test]
fn repeats_of_a_failure_are_counted_and_recorded_as_one() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    let mut stranger = db.user(Uuid::new_v4());
    // Whoever tries name after name repeats himself.
    for attempt in 0..40 {
        expect_error(stranger.query(GET, &[&w.project, &format!("NAME_{attempt}")]), "42501");
    }
    // A member who misspells a name does so for each name apart, and it is another failure.
    for name in ["WRONG", "WRONG", "WRONGER", "WRONG"] {
        expect_error(w.member.query(GET, &[&w.project, &name]), "PT404");
    }
    // Successes are never collapsed.
    for _ in 0..5 {
        w.get();
    }
    let first = w.auditor.one("action => 'secret_get', outcome => 'denied'");
    assert_fields(&first, &json!({"times": 1, "name": "NAME_0"}));
    assert_eq!(w.auditor.search("action => 'secret_get', outcome => 'not_found'").len(), 2);
    w.assert_revealed(5);

    // Told to stop, the writer writes down what was counted.
    signal(writer_pid(&db), "TERM");
    eventually("the repeats are recorded", || {
        w.auditor.search("action => 'secret_get', outcome => 'denied'").len() == 2
    });
    let found = w.auditor.search("action => 'secret_get', outcome => 'denied'");
    assert_eq!(found[0], first);
    assert_fields(&found[1], &json!({"times": 39, "name": "NAME_39", "project_id": w.project}));
    assert!(found[1]["time"].as_str() > first["time"].as_str(), "{found:#?}");
    let found = w.auditor.search("action => 'secret_get', outcome => 'not_found'");
    let times: Vec<_> = found
        .iter()
        .map(|it| (it["name"].as_str().unwrap(), it["times"].as_i64().unwrap()))
        .collect();
    assert_eq!(times, [("WRONG", 1), ("WRONGER", 1), ("WRONG", 2)]);
    w.auditor.assert_good();
}

#[test]
fn repeats_are_recorded_by_themselves_when_their_minute_is_over() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    let mut stranger = db.user(Uuid::new_v4());
    let began = Instant::now();
    for _ in 0..7 {
        expect_error(stranger.query(GET, &[&w.project, &"TOKEN"]), "42501");
    }
    let mut superuser = db.superuser();
    let mut times = || denials(&mut superuser);
    eventually("the first is recorded", || times() == [1]);
    // The writer has always something to do, and does not leave.
    while began.elapsed() < Duration::from_secs(58) {
        assert_eq!(times(), [1], "after {:?}", began.elapsed());
        w.get();
        sleep(Duration::from_millis(500));
    }
    eventually("the repeats are recorded", || {
        w.get();
        times() == [1, 6]
    });
    // The next one is a first one again.
    expect_error(stranger.query(GET, &[&w.project, &"TOKEN"]), "42501");
    eventually("it is recorded", || times() == [1, 6, 1]);
}

#[test]
fn writer_that_leaves_records_the_repeats_first() {
    let db = Cluster::shared().database();
    let w = World::new(&db);
    let mut stranger = db.user(Uuid::new_v4());
    for _ in 0..7 {
        expect_error(stranger.query(GET, &[&w.project, &"TOKEN"]), "42501");
    }
    let mut superuser = db.superuser();
    eventually("the writer is there", || find_writer(&mut superuser).is_some());
    // Nobody asks it to do anything.
    eventually("the writer has left", || find_writer(&mut superuser).is_none());
    assert_eq!(denials(&mut superuser), [1, 6]);
    let pending = "SELECT count(*) FROM meshhook_secrets.audit_pending";
    assert_eq!(superuser.query_one(pending, &[]).unwrap().get::<_, i64>(0), 0);
}

/// How many denials each record of denials stands for, as the table has it.
fn denials(superuser: &mut Client) -> Vec<i32> {
    let times = "SELECT times FROM meshhook_secrets.audit_log WHERE outcome = 'denied' ORDER BY id";
    superuser.query(times, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn flood_of_denials_stays_bounded() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    const FLOOD: usize = 3000;
    let mallory = Uuid::new_v4();
    scope(|scope| {
        for client in 0..4 {
            let (db, project) = (&db, w.project);
            scope.spawn(move || {
                let mut stranger = db.user(mallory);
                for attempt in 0..FLOOD / 4 {
                    let name = format!("NAME_{client}_{attempt}");
                    expect_error(stranger.query(GET, &[&project, &name]), "42501");
                }
            });
        }
    });
    signal(writer_pid(&db), "TERM");
    eventually("the repeats are recorded", || w.auditor.search("outcome => 'denied'").len() > 1);
    let found = w.auditor.search("outcome => 'denied'");
    let times: i64 = found.iter().map(|it| it["times"].as_i64().unwrap()).sum();
    assert_eq!(times, FLOOD as i64, "{found:#?}");
    assert!(found.len() < 10, "{} records", found.len());
    // The member is served all the same.
    w.get();
    w.assert_revealed(1);
    w.auditor.assert_good();
}

#[test]
fn floods_of_different_denials_are_all_recorded_and_keep_nobody_waiting() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    // Each about another project: no repeats, and more than the ring has room for.
    const FLOOD: usize = 2500;
    let mut stranger = db.user(Uuid::new_v4());
    let mut longest = Duration::ZERO;
    let get = stranger.prepare(GET).unwrap();
    for _ in 0..FLOOD {
        let began = Instant::now();
        expect_error(stranger.query(&get, &[&Uuid::new_v4(), &"TOKEN"]), "42501");
        longest = longest.max(began.elapsed());
    }
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    w.get();
    w.assert_revealed(1);
    let mut superuser = db.superuser();
    let count = "SELECT count(*), count(DISTINCT project_id) FROM meshhook_secrets.audit_log
        WHERE outcome = 'denied'";
    let row = superuser.query_one(count, &[]).unwrap();
    let (records, projects): (i64, i64) = (row.get(0), row.get(1));
    // What the ring has no room for goes to the server log.
    let logged = db
        .cluster()
        .log()
        .lines()
        .filter(|line| line.contains(db.name()) && line.contains("meshhook_secrets audit: {"))
        .count() as i64;
    assert_eq!((records + logged, projects), (FLOOD as i64, records), "{logged} logged");
    w.auditor.assert_good();
}

// --- searching --------------------------------------------------------------------------------------

#[test]
fn search_finds_by_every_filter() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    let other = db.project(w.alice);
    w.put_in(other, "OTHER", "value");
    w.get();
    let mallory = Uuid::new_v4();
    expect_error(db.user(mallory).query(GET, &[&w.project, &"TOKEN"]), "42501");
    expect_error(w.member.query(GET, &[&w.project, &"MISSING"]), "PT404");
    let all = w.auditor.search("");
    let project = w.project;
    let alice = w.alice;
    let middle = all[all.len() / 2]["time"].as_str().unwrap().to_owned();
    type Wanted<'a> = Box<dyn Fn(&Value) -> bool + 'a>;
    let is = |field: &'static str, value: String| -> Wanted<'_> {
        Box::new(move |it: &Value| it[field] == value.as_str())
    };
    let actor = |value: String| -> Wanted<'_> {
        Box::new(move |it: &Value| {
            ["actor", "actor_role", "claimed_sub"].iter().any(|field| it[field] == value.as_str())
        })
    };
    let filters: Vec<(String, Wanted<'_>)> = vec![
        (format!("project_id => '{project}'"), is("project_id", project.to_string())),
        (format!("project_id => '{other}'"), is("project_id", other.to_string())),
        ("action => 'secret_get'".into(), is("action", "secret_get".into())),
        ("outcome => 'ok'".into(), is("outcome", "ok".into())),
        ("outcome => 'denied'".into(), is("outcome", "denied".into())),
        ("outcome => 'not_found'".into(), is("outcome", "not_found".into())),
        ("name => 'TOKEN'".into(), is("name", "TOKEN".into())),
        ("actor => 'postgres'".into(), actor("postgres".into())),
        ("actor => 'authenticated'".into(), actor("authenticated".into())),
        ("actor => 'authenticator'".into(), actor("authenticator".into())),
        (format!("actor => '{alice}'"), actor(alice.to_string())),
        (format!("actor => '{mallory}'"), actor(mallory.to_string())),
        (
            format!("since => '{middle}'"),
            Box::new(|it: &Value| it["time"].as_str().unwrap() >= middle.as_str()),
        ),
        (
            format!("until => '{middle}'"),
            Box::new(|it: &Value| it["time"].as_str().unwrap() < middle.as_str()),
        ),
        (
            format!(
                "project_id => '{project}', action => 'secret_get', outcome => 'ok', actor => '{alice}', name => 'TOKEN'"
            ),
            Box::new(|it: &Value| {
                it["project_id"] == json!(project)
                    && it["action"] == "secret_get"
                    && it["outcome"] == "ok"
                    && it["claimed_sub"] == json!(alice)
            }),
        ),
    ];
    // Searches leave records too: only what was there before counts.
    let last = all.iter().filter_map(|it| it["id"].as_i64()).max().unwrap();
    for (filter, wanted) in filters {
        let expected: Vec<_> = all.iter().filter(|it| wanted(it)).cloned().collect();
        assert!(!expected.is_empty(), "{filter} finds nothing");
        assert!(expected.len() < all.len(), "{filter} finds everything");
        let mut found = w.auditor.search(&filter);
        found.retain(|it| it["id"].as_i64().unwrap() <= last);
        assert_eq!(found, expected, "{filter}");
    }
    for nothing in [
        "project_id => '00000000-0000-0000-0000-00000000000f'",
        "action => 'SECRET_GET'",
        "outcome => 'denied', action => 'secret_put'",
        "name => 'TOK%'",
        "actor => ''",
        "since => 'infinity'",
        "since => now() + interval '1 hour'",
        "until => '-infinity'",
        "until => '2020-01-01'",
        "after => 1",
        "after => -1",
    ] {
        let found = w.auditor.search(nothing);
        // since infinity is no bound.
        if nothing == "since => 'infinity'" {
            continue;
        }
        assert_eq!(found, Vec::<Value>::new(), "{nothing}");
    }
}

#[test]
fn search_refuses_bad_input() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    for (arguments, sqlstate) in [
        ("page_size => 0", "22023"),
        ("page_size => -1", "22023"),
        ("page_size => 1001", "22023"),
        ("page_size => NULL", "22004"),
        ("outcome => 'OK'", "22023"),
        ("outcome => ''", "22023"),
    ] {
        let search = format!("SELECT * FROM meshhook_secrets.audit_search({arguments})");
        let failure = expect_error(w.auditor.client.query(&search, &[]), sqlstate);
        assert!(!failure.hint.is_empty(), "{arguments}: {failure:?}");
    }
    for verify in ["from_seal => 1", "to_seal => 1", "-1", "0", "9223372036854775807"] {
        let verify = format!("SELECT * FROM meshhook_secrets.audit_verify({verify})");
        expect_error(w.auditor.client.query(&verify, &[]), "PT404").hint("audit_verify()");
    }
    // Texts that mean something elsewhere.
    for text in ["' OR true --", "%", "\\", "TOKEN\n", &"x".repeat(100_000)] {
        for argument in ["action", "actor", "name"] {
            let search = format!(
                "SELECT * FROM meshhook_secrets.audit_search({argument} => $1, page_size => 10)"
            );
            let found = w.auditor.client.query(&search, &[&text]).unwrap();
            assert_eq!(found.len(), 0, "{argument} {text}");
        }
    }
}

#[test]
fn pages_have_neither_gap_nor_double_while_others_write() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    const BEFORE: usize = 120;
    for number in 0..BEFORE {
        w.put(&format!("BEFORE_{number}"), "value");
        w.get();
    }
    let stop = AtomicBool::new(false);
    let project = w.project;
    scope(|scope| {
        for client in 0..3 {
            let (stop, mut member) = (&stop, db.user(w.alice));
            scope.spawn(move || {
                for number in 0.. {
                    let name = format!("DURING_{client}_{number}");
                    member.query_one(PUT, &[&project, &name, &"value"]).unwrap();
                    member.query_one(GET, &[&project, &name]).unwrap();
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        let _stopping = StopAtEnd(&stop);
        for round in 0..6 {
            let size = [40, 200, 1000][round % 3];
            let pages = pages(&mut w.auditor.client, &format!("'{project}'"), size);
            let what = |it: &Value| {
                let text = |field: &str| it[field].to_string();
                (text("action"), text("name"), text("transaction_id"), text("time"))
            };
            let mut seen = BTreeMap::new();
            for (page, record) in &pages {
                if let Some(earlier) = seen.insert(what(record), *page) {
                    panic!("round {round}: on page {earlier} and {page}: {record:#}");
                }
            }
            let before: BTreeSet<_> = pages
                .iter()
                .filter_map(|(_, it)| it["name"].as_str())
                .filter(|name| name.starts_with("BEFORE_"))
                .collect();
            assert_eq!(before.len(), BEFORE, "round {round}");
            let gets = pages
                .iter()
                .filter(|(_, it)| it["action"] == "secret_get" && it["name"] == "TOKEN");
            assert_eq!(gets.count(), BEFORE, "round {round}");
            // Newest first, throughout.
            let ids: Vec<_> = pages.iter().filter_map(|(_, it)| it["id"].as_i64()).collect();
            assert!(ids.windows(2).all(|pair| pair[0] > pair[1]), "round {round}: {ids:?}");
        }
    });
    // In the end everything that was done is there once.
    let pages = pages(&mut w.auditor.client, &format!("'{project}'"), 1000);
    let during: Vec<_> = pages
        .iter()
        .filter_map(|(_, it)| it["name"].as_str().filter(|name| name.starts_with("DURING")))
        .collect();
    let distinct: BTreeSet<_> = during.iter().collect();
    assert_eq!(during.len(), 2 * distinct.len());
    w.auditor.assert_good();
}

/// All pages of a search, each record with the number of its page.
fn pages(client: &mut Client, arguments: &str, size: usize) -> Vec<(usize, Value)> {
    let search = format!(
        "SELECT to_jsonb(found) FROM meshhook_secrets.audit_search({arguments}, after => $1, page_size => {size}) found"
    );
    let mut all: Vec<(usize, Value)> = Vec::new();
    let mut after: Option<i64> = None;
    for page in 0.. {
        let found = client.query(&search, &[&after]).unwrap();
        assert!(found.len() <= size);
        if found.is_empty() {
            break;
        }
        all.extend(found.into_iter().map(|row| (page, row.get::<_, Value>(0))));
        after = all.iter().rev().find_map(|(_, it)| it["id"].as_i64());
        if after.is_none() {
            break;
        }
    }
    all
}

// --- who may look -------------------------------------------------------------------------------------

#[test]
fn search_shows_each_what_is_his() {
    let cluster = Cluster::shared();
    let db = cluster.database();
    let mut w = World::new(&db);
    w.get();
    let bob = Uuid::new_v4();
    let bobs = db.project(bob);
    db.user(bob).query_one(PUT, &[&bobs, &"BOBS", &"value"]).unwrap();
    let projects = |found: &[Value]| -> BTreeSet<String> {
        found.iter().map(|it| it["project_id"].to_string()).collect()
    };
    let (alices, bobs_text) = (json!(w.project).to_string(), json!(bobs).to_string());

    // The whole log, with what is of no project.
    let all = projects(&w.auditor.search(""));
    assert!([&alices, &bobs_text, "null"].iter().all(|it| all.contains(*it)), "{all:?}");

    // Nobody else before he is let in.
    let call = "SELECT * FROM meshhook_secrets.audit_search()";
    for mut client in [db.user(w.alice), db.anon(), db.service()] {
        expect_error(client.query(call, &[]), "42501");
    }
    for group in ["writer", "reader", "kek_admin"] {
        let mut member = db.member_of(&format!("meshhook_secrets_{group}"));
        for call in ["audit_search()", "audit_verify()", "audit_prune(now())"] {
            let call = format!("SELECT * FROM meshhook_secrets.{call}");
            expect_error(member.query(&call, &[]), "42501");
        }
    }

    // An auditor to whom row-level security applies sees the projects that he is a member of.
    let mut limited = db.member_of("meshhook_secrets_auditor");
    grant_membership(&db, "meshhook_secrets_auditor");
    assert_eq!(search(&mut limited, ""), Vec::<Value>::new());
    for call in [
        format!("audit_search('{}')", w.project),
        format!("audit_search('{}')", Uuid::new_v4()),
        "audit_verify()".into(),
        "audit_prune(now())".into(),
    ] {
        let call = format!("SELECT * FROM meshhook_secrets.{call}");
        expect_error(limited.query(&call, &[]), "42501");
    }
    let claim = "SELECT set_config('request.jwt.claims', $1, false)";
    limited.execute(claim, &[&json!({"sub": w.alice}).to_string()]).unwrap();
    assert_eq!(projects(&search(&mut limited, "")), BTreeSet::from([alices.clone()]));
    expect_error(
        limited.query(&format!("SELECT * FROM meshhook_secrets.audit_search('{bobs}')"), &[]),
        "42501",
    );

    // The application's users, once it is so set up: members, not strangers.
    db.superuser()
        .batch_execute("SELECT meshhook_secrets.setup_supabase(users_may_audit => true)")
        .unwrap();
    assert_eq!(projects(&search(&mut w.member, "")), BTreeSet::from([alices.clone()]));
    let found = search(&mut w.member, &format!("'{}', action => 'secret_get'", w.project));
    assert!(found.iter().any(|it| it["outcome"] == "ok"), "{found:#?}");
    expect_error(
        w.member.query(&format!("SELECT * FROM meshhook_secrets.audit_search('{bobs}')"), &[]),
        "42501",
    );
    let mut mallory = db.user(Uuid::new_v4());
    assert_eq!(search(&mut mallory, ""), Vec::<Value>::new());
    expect_error(
        mallory
            .query(&format!("SELECT * FROM meshhook_secrets.audit_search('{}')", w.project), &[]),
        "42501",
    );
    // A new member at once, a former one not any more.
    let carol = Uuid::new_v4();
    db.add_member(bobs, carol);
    let mut member = db.user(carol);
    assert_eq!(projects(&search(&mut member, "")), BTreeSet::from([bobs_text]));
    db.superuser()
        .execute("DELETE FROM public.project_members WHERE user_id = $1", &[&carol])
        .unwrap();
    assert_eq!(search(&mut member, ""), Vec::<Value>::new());
    for mut client in [db.anon(), db.service()] {
        expect_error(client.query(call, &[]), "42501");
    }
    for call in ["audit_verify()", "audit_prune(now())"] {
        let call = format!("SELECT * FROM meshhook_secrets.{call}");
        expect_error(w.member.query(&call, &[]), "42501");
    }
    // And taken away again.
    db.superuser().batch_execute("SELECT meshhook_secrets.setup_supabase()").unwrap();
    expect_error(w.member.query(call, &[]), "42501");
}

#[test]
fn records_of_a_deleted_project_stay_for_the_auditor() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    w.get();
    db.delete_project(w.project);
    let project = w.project;
    let told = w.auditor.outcomes(&format!("'{project}'"));
    let told: Vec<_> = told.iter().filter(|it| !it.starts_with("audit_search")).collect();
    assert_eq!(told, ["secret_put ok", "secret_get ok", "project_deleted ok"]);
    let record = w.auditor.one("action => 'project_deleted'");
    assert_fields(&record, &json!({"project_id": project, "actor": "postgres"}));
    w.auditor.assert_good();
}

#[test]
fn nobody_touches_a_row_directly() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    w.get();
    w.auditor.assert_good();
    let mut superuser = db.superuser();
    let before = contents(&mut superuser);
    let partitions: Vec<String> = superuser
        .query(
            "SELECT c.oid::regclass::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = 'meshhook_secrets.audit_log'::regclass",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(partitions.len() >= 2, "this month and the next: {partitions:?}");
    let mut tables: Vec<(String, &str)> = partitions.into_iter().map(|it| (it, "id")).collect();
    for (table, column) in [
        ("audit_log", "id"),
        ("audit_pending", "record"),
        ("audit_seals", "seal_id"),
        ("audit_head", "seal_id"),
        ("audit_keys", "key_version"),
    ] {
        tables.push((format!("meshhook_secrets.{table}"), column));
    }
    let mut clients: Vec<(String, Client)> = ["writer", "reader", "kek_admin", "auditor"]
        .map(|group| (group.to_owned(), db.member_of(&format!("meshhook_secrets_{group}"))))
        .into();
    clients.push(("authenticated".into(), db.user(w.alice)));
    clients.push(("service_role".into(), db.service()));
    clients.push(("anon".into(), db.anon()));
    clients.push(("whole auditor".into(), db.auditor().client));
    // Somebody whom a superuser has given everything but superuser.
    make_role(db.cluster(), "spoiled", "LOGIN BYPASSRLS");
    superuser
        .batch_execute(
            "GRANT USAGE ON SCHEMA meshhook_secrets TO spoiled;
             GRANT ALL ON ALL TABLES IN SCHEMA meshhook_secrets TO spoiled",
        )
        .unwrap();
    clients.push(("spoiled".into(), db.connect("spoiled")));
    for (who, client) in &mut clients {
        for (table, column) in &tables {
            let mut attempts = vec![
                format!("INSERT INTO {table} SELECT * FROM {table}"),
                format!("INSERT INTO {table} DEFAULT VALUES"),
                format!("UPDATE {table} SET {column} = {column}"),
                format!("DELETE FROM {table}"),
                format!("TRUNCATE {table} CASCADE"),
                format!("ALTER TABLE {table} DISABLE TRIGGER ALL"),
                format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"),
                format!("DROP TABLE {table}"),
            ];
            if who != "spoiled" {
                attempts.push(format!("SELECT * FROM {table}"));
                attempts.push(format!("SELECT FROM {table}"));
                attempts.push(format!("SELECT count({column}) FROM {table}"));
                attempts.push(format!("BEGIN; LOCK TABLE {table} IN ACCESS SHARE MODE"));
                attempts.push(format!("COPY {table} TO STDOUT"));
                attempts.push(format!("COPY {table} FROM STDIN"));
            }
            for attempt in attempts {
                let result = client.simple_query(&attempt);
                let Err(error) = result else { panic!("{who}: {attempt}") };
                let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
                assert_eq!(code, "42501", "{who}: {attempt}: {error:?}");
                client
                    .batch_execute("ROLLBACK")
                    .unwrap_or_else(|error| panic!("{who}: after {attempt}: {error:?}"));
            }
            // Whoever may begin to copy is refused by the trigger; the driver may stumble over an error
            // at that moment.
            if who == "spoiled" {
                let mut spoiled = db.connect("spoiled");
                let copy = format!("COPY {table} FROM STDIN");
                let copied = spoiled.copy_in(&copy).and_then(|copy| copy.finish());
                let error = copied.expect_err(table);
                let code = error.code().map(|code| code.code());
                assert!(code.is_none_or(|code| code == "42501"), "{table}: {error:?}");
            }
        }
        let make = "SELECT meshhook_secrets.audit_make_partition(now())";
        expect_error(client.query(make, &[]), "42501");
        let record = "SELECT meshhook_secrets.audit_record_setup('secret_get', 'forged')";
        expect_error(client.query(record, &[]), "42501");
    }
    // What our trigger refused is known.
    let refused = w.auditor.search("action => 'direct_change'");
    assert!(
        refused.iter().any(|it| it["actor"] == "spoiled" && it["outcome"] == "denied"),
        "{refused:#?}"
    );
    // Nothing has changed but what was added since.
    let after = contents(&mut superuser);
    assert!(before.is_subset(&after));
    w.auditor.assert_good();
    superuser
        .batch_execute(
            "REVOKE ALL ON ALL TABLES IN SCHEMA meshhook_secrets FROM spoiled;
             REVOKE ALL ON SCHEMA meshhook_secrets FROM spoiled",
        )
        .unwrap();
}

/// Lets a role ask the host which projects it is a member of.
fn grant_membership(db: &Database<'_>, role: &str) {
    let grant = format!("GRANT EXECUTE ON FUNCTION public.user_project_ids() TO {role}");
    db.superuser().batch_execute(&grant).unwrap();
}

/// Every record and seal, as text.
fn contents(superuser: &mut Client) -> BTreeSet<String> {
    let rows = "SELECT l::text FROM meshhook_secrets.audit_log l
        UNION ALL SELECT s::text FROM meshhook_secrets.audit_seals s";
    superuser.query(rows, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

// --- what the system does by itself -------------------------------------------------------------------

#[test]
fn loading_of_the_root_key_is_recorded_in_every_database_that_uses_us() {
    let cluster = Cluster::builder().start();
    for _ in 0..2 {
        let db = cluster.database();
        let mut w = World::new(&db);
        let record = w.auditor.one("action => 'root_key_load'");
        let wanted = json!({
            "actor": "system", "outcome": "ok", "detail": format!("root key {FINGERPRINT_A}"),
            "actor_role": null, "claimed_sub": null, "client_address": null, "project_id": null,
        });
        assert_fields(&record, &wanted);
    }
    let db = cluster.database();
    let mut w = World::new(&db);
    w.auditor.one("action => 'root_key_load'");
    cluster.restart();
    // By itself: nobody does anything in this database.
    let mut superuser = db.superuser();
    eventually("the start is recorded", || {
        let count =
            "SELECT count(*) FROM meshhook_secrets.audit_log WHERE action = 'root_key_load'";
        superuser.query_one(count, &[]).unwrap().get::<_, i64>(0) == 2
    });
    db.auditor().assert_good();
}

#[test]
fn sealing_is_recorded_by_whom_and_for_the_server_and_what_fails_meanwhile_is_sealed_afterwards() {
    let cluster = Cluster::builder().start();
    let db = cluster.database();
    let mut w = World::new(&db);
    let idle = cluster.database();
    let mut other = World::new(&idle);
    w.get();
    let mut admin = db.member_of("meshhook_secrets_kek_admin");
    admin.batch_execute("SELECT meshhook_secrets.seal()").unwrap();

    // Sealed, every failure is still recorded, without a seal, and found first.
    for _ in 0..3 {
        expect_error(w.member.query(GET, &[&w.project, &"TOKEN"]), "PT503");
    }
    let mut stranger = db.user(Uuid::new_v4());
    expect_error(stranger.query(GET, &[&w.project, &"TOKEN"]), "42501");
    expect_error(w.member.query(PUT, &[&w.project, &"NEW", &"value"]), "PT503");
    w.member.query("SELECT * FROM meshhook_secrets.secret_list($1)", &[&w.project]).unwrap();
    let found = w.auditor.search("");
    let (unsealed, sealed): (Vec<_>, Vec<_>) = found.iter().partition(|it| it["id"].is_null());
    let told: Vec<_> = unsealed
        .iter()
        .filter(|it| it["action"] != "audit_search")
        .map(|it| format!("{} {} {}", it["action"], it["outcome"], it["sqlstate"]).replace('"', ""))
        .collect();
    assert_eq!(
        told,
        [
            "seal ok null",
            "secret_get error PT503",
            "secret_get denied 42501",
            "secret_put error PT503",
            "secret_list ok null",
        ]
    );
    assert!(sealed.iter().any(|it| it["action"] == "secret_get"), "{sealed:#?}");
    // Oldest first here: those without an id are the newest.
    assert!(found[sealed.len()..].iter().all(|it| it["id"].is_null()));
    // Filters hold for them too.
    assert_eq!(w.auditor.search("outcome => 'denied'").len(), 1);
    assert_eq!(w.auditor.search("outcome => 'denied', name => 'NEW'").len(), 0);
    assert_eq!(w.auditor.search(&format!("'{}', action => 'secret_put'", w.project)).len(), 2);
    let newest = w.auditor.search("action => 'secret_get', page_size => 2");
    assert!(newest.iter().all(|it| it["id"].is_null()), "{newest:#?}");
    expect_error(
        w.auditor.client.query("SELECT * FROM meshhook_secrets.audit_verify()", &[]),
        "PT503",
    );
    expect_error(
        w.auditor.client.query("SELECT * FROM meshhook_secrets.audit_prune(now())", &[]),
        "PT503",
    );

    // Sealed across a restart too, as long as there is no key.
    cluster.write_root_key("");
    cluster.restart();
    w.auditor = db.auditor();
    w.member = db.user(w.alice);
    expect_error(w.member.query(PUT, &[&w.project, &"AFTER", &"value"]), "PT503");
    assert_eq!(w.auditor.outcomes("name => 'AFTER'"), ["secret_put error"]);
    cluster.write_root_key(KEY_A);
    cluster.reload();
    eventually("the secrets are open", || w.member.query(GET, &[&w.project, &"TOKEN"]).is_ok());
    let found = w.auditor.search("");
    let unsealed: Vec<_> =
        found.iter().filter(|it| it["id"].is_null() && it["action"] != "audit_search").collect();
    assert!(unsealed.is_empty(), "{unsealed:#?}");
    let failures = w.auditor.search("action => 'secret_get', outcome => 'error', name => 'TOKEN'");
    let times: i64 = failures.iter().map(|it| it["times"].as_i64().unwrap()).sum();
    assert!(times >= 2, "{failures:#?}");
    assert_eq!(w.auditor.search("action => 'secret_put', outcome => 'error'").len(), 2);
    // Who did it, and that it was so.
    let seal = w.auditor.one("action => 'seal'");
    assert_eq!(seal["actor"], "member_of_meshhook_secrets_kek_admin");
    let system = w.auditor.search("actor => 'system'");
    let told: Vec<_> = system
        .iter()
        .map(|it| format!("{} {}", it["action"], it["outcome"]).replace('"', ""))
        .filter(|it| it.contains("seal") || it.contains("root_key"))
        .collect();
    let told: Vec<&str> = told.iter().map(String::as_str).collect();
    // The events of before the restart may have gone with it.
    assert_eq!(told[0], "root_key_load ok", "{told:?}");
    assert!(told.ends_with(&["sealed error", "root_key_load ok"]), "{told:?}");
    w.auditor.assert_good();

    // Without a restart in between: both, in every database.
    admin = db.member_of("meshhook_secrets_kek_admin");
    admin.batch_execute("SELECT meshhook_secrets.seal()").unwrap();
    admin.batch_execute("SELECT meshhook_secrets.unseal()").unwrap();
    other.auditor = idle.auditor();
    for auditor in [&mut w.auditor, &mut other.auditor] {
        for action in ["sealed", "unsealed"] {
            let record = auditor.search(&format!("action => '{action}', outcome => 'ok'"));
            let record = record.last().unwrap();
            assert_fields(record, &json!({"actor": "system", "detail": "by an operator"}));
        }
        auditor.assert_good();
    }
    assert_eq!(w.auditor.search("action => 'unseal'").len(), 1);
    assert_eq!(other.auditor.search("action => 'unseal'").len(), 0);
}

#[test]
fn rotation_by_schedule_retirement_and_destruction_are_recorded_as_the_system_s() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    let mut superuser = db.superuser();
    superuser
        .batch_execute(
            "UPDATE meshhook_secrets.kek_storage SET created_at = now() - interval '3 hours'",
        )
        .unwrap();
    superuser.batch_execute("SELECT meshhook_secrets.kek_configure('2 hours')").unwrap();
    eventually("the old KEK is retired", || {
        let status = "SELECT status FROM meshhook_secrets.kek_storage WHERE kek_id = 1";
        superuser.query_one(status, &[]).unwrap().get::<_, String>(0) == "retired"
    });
    for (action, kek_id, detail) in [
        ("kek_rotate", 2, json!("schedule")),
        ("kek_retire", 1, Value::Null),
        ("rotation_finish", 2, Value::Null),
    ] {
        let record = w.auditor.one(&format!("action => '{action}'"));
        let wanted = json!({
            "actor": "system", "actor_role": null, "outcome": "ok", "kek_id": kek_id,
            "detail": detail, "client_address": null, "application_name": null,
        });
        assert_fields(&record, &wanted);
    }
    superuser.batch_execute("SELECT meshhook_secrets.kek_destroy(1, '1', '0')").unwrap();
    eventually("the old KEK is destroyed", || {
        w.auditor.search("action => 'kek_destroyed'").len() == 1
    });
    let record = w.auditor.one("action => 'kek_destroyed'");
    assert_fields(&record, &json!({"actor": "system", "kek_id": 1, "outcome": "ok"}));
    let record = w.auditor.one("action => 'kek_destroy'");
    assert_fields(&record, &json!({"actor": "postgres", "kek_id": 1, "outcome": "ok"}));
    w.auditor.assert_good();
}

// --- off, and not there ---------------------------------------------------------------------------------

#[test]
fn switched_off_nothing_is_recorded_and_nothing_refused() {
    let cluster = Cluster::builder().setting("meshhook_secrets.audit", "off").start();
    let db = cluster.database();
    let mut w = World::new(&db);
    w.get();
    expect_error(w.member.query(GET, &[&w.project, &"MISSING"]), "PT404");
    expect_error(db.user(Uuid::new_v4()).query(GET, &[&w.project, &"TOKEN"]), "42501");
    w.member.query("SELECT * FROM meshhook_secrets.secret_list($1)", &[&w.project]).unwrap();
    let mut superuser = db.superuser();
    superuser
        .batch_execute("SELECT meshhook_secrets.seal(); SELECT meshhook_secrets.unseal()")
        .unwrap();
    superuser.query_one("SELECT meshhook_secrets.kek_generate()", &[]).unwrap();
    w.get();
    let found = w.auditor.search("");
    let by_somebody: Vec<_> = found.iter().filter(|it| it["actor"] != "system").collect();
    assert!(by_somebody.is_empty(), "{by_somebody:#?}");
    // It is the server's, not the session's.
    for role in ["postgres", "whole_auditor"] {
        let set = db.connect(role).batch_execute("SET meshhook_secrets.audit = on");
        expect_error(set, "55P02");
    }
    for setting in ["audit_mode = nowait", "audit_timeout = 100"] {
        let set = w.member.batch_execute(&format!("SET meshhook_secrets.{setting}"));
        expect_error(set, "42501");
    }
    cluster.set("meshhook_secrets.audit", "on");
    cluster.reload();
    eventually("the setting is on", || {
        let show = "SHOW meshhook_secrets.audit";
        w.member.query_one(show, &[]).unwrap().get::<_, String>(0) == "on"
    });
    w.get();
    w.assert_revealed(1);
    w.auditor.assert_good();
}

#[test]
fn without_the_library_at_server_start_everything_is_refused_and_says_why() {
    let cluster = Cluster::builder().start();
    let db = cluster.database();
    let w = World::new(&db);
    let (alice, project) = (w.alice, w.project);
    drop(w);
    cluster.set("shared_preload_libraries", "");
    cluster.restart();
    for call in calls() {
        if call.by == By::Superuser {
            continue;
        }
        let statement = format!("SELECT * FROM meshhook_secrets.{}", call.call);
        let statement = statement.replace("$P", &project.to_string());
        expect_error(db.superuser().query(&statement, &[]), "55000")
            .hint("shared_preload_libraries");
    }
    cluster.set("shared_preload_libraries", "meshhook_secrets");
    cluster.restart();
    let mut member = db.user(alice);
    assert_eq!(member.query_one(GET, &[&project, &"TOKEN"]).unwrap().get::<_, String>(0), "value");
    db.auditor().assert_good();
}

// --- notifications ----------------------------------------------------------------------------------------

#[test]
fn denials_failures_and_critical_operations_are_told_to_whoever_listens() {
    let cluster = Cluster::builder().start();
    let db = cluster.database();
    let mut w = World::new(&db);
    let mut ears = db.connect("authenticator");
    ears.batch_execute("LISTEN meshhook_secrets").unwrap();
    w.get();
    let mallory = Uuid::new_v4();
    expect_error(db.user(mallory).query(GET, &[&w.project, &"TOKEN"]), "42501");
    let heard = hear(&mut ears, "secret_get");
    let wanted = json!({
        "event": "audit", "action": "secret_get", "outcome": "denied", "project_id": w.project,
    });
    assert_fields(&heard, &wanted);
    // Everybody who can connect can listen: who it was and which secret is not told.
    for hidden in ["TOKEN", &mallory.to_string(), "authenticat"] {
        assert!(!heard.to_string().contains(hidden), "{heard}");
    }
    expect_error(w.member.query(PUT, &[&w.project, &"1 bad", &"value"]), "22023");
    assert_fields(&hear(&mut ears, "secret_put"), &json!({"event": "audit", "outcome": "error"}));
    let mut superuser = db.superuser();
    for (call, action) in [
        ("seal()", "seal"),
        ("unseal()", "unseal"),
        ("root_key_rotate()", "root_key_rotate"),
        ("audit_prune(now())", "audit_prune"),
    ] {
        superuser.query(&format!("SELECT * FROM meshhook_secrets.{call}"), &[]).unwrap();
        if action != "seal" {
            let heard = hear(&mut ears, action);
            assert_fields(&heard, &json!({"event": "audit", "outcome": "ok"}));
        }
    }
    superuser.query("SELECT meshhook_secrets.kek_generate()", &[]).unwrap();
    superuser.query("SELECT meshhook_secrets.kek_rotate()", &[]).unwrap();
    eventually("the old KEK is retired", || {
        let status = "SELECT status FROM meshhook_secrets.kek_storage WHERE kek_id = 1";
        superuser.query_one(status, &[]).unwrap().get::<_, String>(0) == "retired"
    });
    superuser.query("SELECT meshhook_secrets.kek_mark_compromised(1)", &[]).unwrap();
    hear(&mut ears, "kek_mark_compromised");
    superuser.query("SELECT meshhook_secrets.kek_destroy(1, '1')", &[]).unwrap();
    hear(&mut ears, "kek_destroy");
    // What is neither is not told.
    w.get();
    expect_error(w.member.query(GET, &[&w.project, &"MISSING"]), "PT404");
    w.assert_revealed(2);
    expect_error(db.user(Uuid::new_v4()).query(GET, &[&w.project, &"TOKEN"]), "42501");
    let mut between = Vec::new();
    let last = hear_all(&mut ears, "secret_get", &mut between);
    assert_eq!(last["outcome"], "denied");
    let told: Vec<_> = between.iter().filter(|it| it["event"] == "audit").collect();
    assert!(told.is_empty(), "{told:#?}");
}

/// The next notification of an audit record of this action.
#[track_caller]
fn hear(ears: &mut Client, action: &str) -> Value {
    hear_all(ears, action, &mut Vec::new())
}

#[track_caller]
fn hear_all(ears: &mut Client, action: &str, before: &mut Vec<Value>) -> Value {
    let mut incoming = ears.notifications();
    let mut incoming = incoming.timeout_iter(Duration::from_secs(10));
    while let Some(heard) = incoming.next().unwrap() {
        assert_eq!(heard.channel(), "meshhook_secrets");
        let event: Value = serde_json::from_str(heard.payload()).unwrap();
        if event["event"] == "audit" && event["action"] == action {
            return event;
        }
        before.push(event);
    }
    panic!("nothing of {action}, but {before:#?}");
}

// --- the world --------------------------------------------------------------------------------------------

/// Alice with a project and a secret TOKEN, and the auditor.
struct World<'c> {
    db: &'c Database<'c>,
    alice: Uuid,
    project: Uuid,
    member: Client,
    auditor: Auditor,
}

impl<'c> World<'c> {
    fn new(db: &'c Database<'c>) -> Self {
        let alice = Uuid::new_v4();
        let project = db.project(alice);
        let (member, auditor) = (db.user(alice), db.auditor());
        let mut world = Self { db, alice, project, member, auditor };
        world.put("TOKEN", "value");
        world
    }

    fn put(&mut self, name: &str, value: &str) {
        self.put_in(self.project, name, value);
    }

    fn put_in(&mut self, project: Uuid, name: &str, value: &str) {
        self.member.query_one(PUT, &[&project, &name, &value]).unwrap();
    }

    fn get(&mut self) {
        let value: String = self.member.query_one(GET, &[&self.project, &"TOKEN"]).unwrap().get(0);
        assert_eq!(value, "value");
    }

    /// Asserts that the secret was revealed so often, and each time recorded in full.
    #[track_caller]
    fn assert_revealed(&mut self, times: usize) {
        let found = self.auditor.search("action => 'secret_get', outcome => 'ok'");
        assert_eq!(found.len(), times, "{found:#?}");
        let wanted = json!({
            "project_id": self.project, "name": "TOKEN", "version": 1, "sqlstate": null, "times": 1,
            "actor": "authenticator", "actor_role": "authenticated",
            "claimed_sub": self.alice, "claimed_role": "authenticated",
        });
        for record in found {
            assert_fields(&record, &wanted);
            assert!(record["secret_id"].is_string(), "{record:#}");
        }
    }
}

#[track_caller]
fn assert_fields(record: &Value, wanted: &Value) {
    for (field, value) in wanted.as_object().unwrap() {
        let nothing = value.is_null() && record.get(field).is_none();
        assert!(nothing || &record[field] == value, "{field} is not {value}: {record:#}");
    }
}

/// Ends the others when its scope ends, however that is.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
