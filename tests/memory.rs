//! A walk through all of the extension, for a look at its memory: every function, with legal and illegal arguments,
//! values of all sizes, errors that cross our frames, several databases with their workers, restarts and a crash.
//! `scripts/memcheck` runs it on a server under valgrind; here it says that nothing of it ends a process.

use std::thread;

use postgres::Client;
use support::{Cluster, Database, KEY_A, KEY_B, Shutdown, backend_pid, eventually, signal};
use uuid::Uuid;

/// Calls of every function: the project is `$1`. They are made twice, in this order.
const CALLS: &[&str] = &[
    "secret_put($1, 'TOKEN', repeat('é', 20000), description => 'd', metadata => '{\"a\": [1]}')",
    "secret_put($1, 'TOKEN', '', expires_at => now() + '1 day', previous_valid_for => '1 hour')",
    "secret_put($1, 'TOKEN', repeat('x', 70000))",
    "secret_put($1, 'no name', 'x')",
    "secret_put($1, NULL, 'x')",
    "secret_put($1, 'TOKEN', 'x', cas => 77)",
    "secret_put_bytes($1, 'BYTES', '\\x00ff')",
    "secret_put_bytes($1, 'BYTES', decode(repeat('00', 65536), 'hex'))",
    "secret_generate($1, 'MADE', 4096, 'printable')",
    "secret_generate($1, 'MADE', 0)",
    "secret_rollback($1, 'TOKEN', 1)",
    "secret_get($1, 'TOKEN')",
    "secret_get($1, 'TOKEN', 1, repeat('p', 500))",
    "secret_get($1, 'BYTES')",
    "secret_get($1, 'NONE')",
    "secret_get_bytes($1, 'BYTES')",
    "secret_get_many($1)",
    "secret_get_many($1, ARRAY['TOKEN', NULL, 'NONE', 'BYTES'])",
    "secret_list($1, search => 'T%', include_deleted => true, after => 'A', page_size => 2)",
    "secret_describe($1, 'TOKEN')",
    "secret_versions($1, 'TOKEN')",
    "secret_due($1, '10 years')",
    "secret_due()",
    "secret_expire($1, 'TOKEN', now() + '1 day')",
    "project_seal_status($1)",
    "seal($1)",
    "secret_get($1, 'TOKEN')",
    "unseal($1)",
    "dek_rotate($1)",
    "secret_reencrypt($1)",
    "kek_generate()",
    "kek_configure('90 days')",
    "kek_configure('1 second')",
    "kek_rotate(repeat('r', 300))",
    "kek_rewrap()",
    "kek_status()",
    "kek_verify(deep => true)",
    "kek_verify(77)",
    "kek_disable((SELECT max(kek_id) FROM meshhook_secrets.kek_status() WHERE status LIKE 'retir%'))",
    "kek_enable((SELECT max(kek_id) FROM meshhook_secrets.kek_status() WHERE status = 'disabled'))",
    "kek_mark_compromised((SELECT min(kek_id) FROM meshhook_secrets.kek_status() WHERE status = 'retired'))",
    "kek_destroy((SELECT min(kek_id) FROM meshhook_secrets.kek_status() WHERE status = 'compromised'),
       (SELECT min(kek_id)::text FROM meshhook_secrets.kek_status() WHERE status = 'compromised'))",
    "kek_cancel_destroy((SELECT min(kek_id) FROM meshhook_secrets.kek_status() WHERE status LIKE 'destroy_%'))",
    "root_key_status()",
    "root_key_rotate()",
    "root_key_verify()",
    "seal_status()",
    "seal()",
    "secret_get($1, 'TOKEN')",
    "unseal()",
    "library_version()",
    "health()",
    "metrics()",
    "doctor()",
    "audit_search()",
    "audit_search($1, since => now() - '1 day', action => 'secret_get', name => 'TOKEN', page_size => 3)",
    "audit_verify()",
    "audit_make_partition(now() + '1 month')",
    "audit_prune(now() - '1 month')",
    "secret_delete($1, 'TOKEN')",
    "secret_get($1, 'TOKEN')",
    "secret_undelete($1, 'TOKEN')",
    "secret_purge($1, 'MADE', 'MADE')",
    "secret_purge($1, 'TOKEN', 'wrong')",
    "attach_projects('public.projects')",
    "setup_supabase(users_may_audit => true)",
    "member_projects()",
];

/// Called otherwise: triggers, and what only other functions of ours call.
const NOT_CALLED: [&str; 6] = [
    "audit_record_setup",
    "host_project_changed",
    "refuse_direct_change",
    "remove_versions",
    // Not there yet.
    "secret_import_table",
    "secret_import_vault",
];

#[test]
fn every_function_is_called() {
    use meshhook_secrets_core::redact::denial::FUNCTIONS;
    for function in FUNCTIONS.iter().filter(|function| !NOT_CALLED.contains(function)) {
        let call = format!("{function}(");
        assert!(CALLS.iter().any(|known| known.starts_with(&call)), "{function} is not called");
    }
}

#[test]
fn a_walk_through_everything_ends_no_process() {
    let cluster = Cluster::builder()
        // Under valgrind everything takes long.
        .setting("meshhook_secrets.audit_timeout", "60s")
        // Statements, parameters, errors and plans go through the masking.
        .setting("log_statement", "all")
        .setting("log_parameter_max_length_on_error", "-1")
        .setting("session_preload_libraries", "auto_explain")
        .setting("auto_explain.log_min_duration", "0")
        .start();
    let databases = [cluster.database(), cluster.database()];
    // Both at once: seal() of the one is in the way of the other.
    thread::scope(|scope| {
        for db in &databases {
            scope.spawn(|| walk(db));
        }
    });
    for db in &databases {
        by_the_way(db);
    }

    let mut client = databases[0].superuser();
    let current = "SELECT root_key_id FROM meshhook_secrets.root_key_status() WHERE is_current";
    let root_key =
        |client: &mut Client| client.query_one(current, &[]).unwrap().get::<_, String>(0);
    let former = root_key(&mut client);
    cluster.write_root_key(&format!("{KEY_B}\n{KEY_A}"));
    cluster.reload();
    eventually("the new root key is loaded", || root_key(&mut client) != former);
    for db in &databases {
        ask(&mut db.superuser(), "root_key_rotate()", Uuid::nil());
    }
    cluster.write_root_key("nonsense");
    cluster.reload();
    let sealed = "SELECT sealed FROM meshhook_secrets.seal_status()";
    let mut is_sealed = || client.query_one(sealed, &[]).unwrap().get::<_, bool>(0);
    eventually("the secrets are sealed", &mut is_sealed);
    cluster.write_root_key(KEY_B);
    cluster.reload();
    eventually("the secrets are open", || !is_sealed());

    let kept: Vec<_> = databases.iter().map(|db| (db, keep(db))).collect();
    let is_kept =
        || kept.iter().for_each(|(db, project)| assert_eq!(kept_in(db, *project), "kept"));
    is_kept();
    let mut victim = databases[0].superuser();
    let pid = backend_pid(&mut victim);
    let mut witness = cluster.connect("postgres", "postgres");
    signal(pid, "KILL");
    eventually("the server noticed the crash", || witness.simple_query("SELECT 1").is_err());
    eventually("the server is back", || cluster.try_connect("postgres", "postgres").is_ok());
    is_kept();
    for how in [Shutdown::Fast, Shutdown::Immediate] {
        cluster.stop(how);
        cluster.start();
        is_kept();
    }
    let mut crashes = 0;
    for line in cluster.log().lines().filter(|line| line.contains("terminated by signal")) {
        assert!(line.contains("signal 9"), "{line}");
        crashes += 1;
    }
    assert_eq!(crashes, 1, "the one that was killed");
}

/// Calls everything, as whoever may and as whoever may not.
fn walk(db: &Database<'_>) {
    let alice = Uuid::new_v4();
    let project = db.project(alice);
    let clients = [db.superuser(), db.user(alice), db.anon(), db.superuser()];
    for mut client in clients {
        for call in CALLS {
            ask(&mut client, call, project);
        }
    }
    db.delete_project(project);
}

/// A call by each protocol: it may be refused, but not by a defect, and the connection stays.
fn ask(client: &mut Client, call: &str, project: Uuid) {
    let sql = format!("SELECT * FROM meshhook_secrets.{call}");
    let bound = match call.contains("$1") {
        true => client.query(&sql, &[&project]).map(drop),
        false => client.query(&sql, &[]).map(drop),
    };
    let literal = sql.replace("$1", &format!("'{project}'"));
    for result in [bound, client.simple_query(&literal).map(drop)] {
        let Err(error) = result else { continue };
        let Some(error) = error.as_db_error() else { panic!("{call}: {error}") };
        assert_ne!(error.code().code(), "XX000", "{call}: {error:?}");
    }
}

/// Errors that cross our frames and other people's, and results that are not taken.
fn by_the_way(db: &Database<'_>) {
    let project = keep(db);
    let mut client = db.superuser();
    let get = format!("meshhook_secrets.secret_get('{project}', 'KEPT')");
    let many = format!("meshhook_secrets.secret_get_many('{project}')");
    for statement in [
        format!(
            "DO $$ BEGIN PERFORM meshhook_secrets.secret_get('{project}', 'NONE');
            EXCEPTION WHEN OTHERS THEN PERFORM {get}; END $$"
        ),
        format!(
            "DO $$ DECLARE found record; BEGIN FOR found IN SELECT * FROM {many} LOOP
            RAISE NOTICE '%', found.name; END LOOP; END $$"
        ),
        format!(
            "BEGIN; SAVEPOINT a; SELECT meshhook_secrets.secret_put('{project}', 'KEPT', 'b');
            ROLLBACK TO a; SELECT {get}; COMMIT"
        ),
        format!(
            "BEGIN; DECLARE c CURSOR FOR SELECT {get} FROM generate_series(1, 9); FETCH 2 FROM c;
            CLOSE c; DECLARE d CURSOR WITH HOLD FOR SELECT * FROM {many}; COMMIT; FETCH d; CLOSE d"
        ),
        format!("SELECT {get} FROM generate_series(1, 50) LIMIT 30"),
        format!("SELECT length(string_agg({get}, ',' ORDER BY {get})) FROM generate_series(1, 50)"),
        format!(
            "CREATE TEMP TABLE kept AS SELECT {get} AS it; COPY (SELECT {get}) TO PROGRAM 'cat >/dev/null'"
        ),
        format!("SELECT 1 / (length({get}) - 4)"),
        format!("SELECT 'a' || {get}::int"),
        format!("SELECT {get} FROM 'unfinished"),
        format!("PREPARE p AS SELECT {get}; EXECUTE p; EXPLAIN ANALYZE EXECUTE p; DEALLOCATE p"),
        format!("UPDATE public.projects SET id = gen_random_uuid() WHERE id = '{project}'"),
        String::from("DELETE FROM meshhook_secrets.secret_versions WHERE false"),
        String::from(
            "SET meshhook_secrets.value_functions = 'x'; SELECT meshhook_secrets.health()",
        ),
        String::from("SET statement_timeout = 1; SELECT * FROM meshhook_secrets.doctor()"),
    ] {
        if let Err(error) = client.simple_query(&statement) {
            let Some(error) = error.as_db_error() else { panic!("{statement}: {error}") };
            assert_ne!(error.code().code(), "XX000", "{statement}: {error:?}");
            client.simple_query("ROLLBACK").unwrap();
        }
    }
}

/// A project with a secret that stays.
fn keep(db: &Database<'_>) -> Uuid {
    let project = db.project(Uuid::new_v4());
    let put = "SELECT meshhook_secrets.secret_put($1, 'KEPT', 'kept')";
    db.superuser().execute(put, &[&project]).unwrap();
    project
}

fn kept_in(db: &Database<'_>, project: Uuid) -> String {
    let get = "SELECT meshhook_secrets.secret_get($1, 'KEPT')";
    db.superuser().query_one(get, &[&project]).unwrap().get(0)
}
