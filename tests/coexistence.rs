//! Beside the libraries that others preload, before us and after us: the server starts, secrets
//! work, the others work, and errors of statements that are none of our business lose nothing, for
//! the client and in the log.

use postgres::Client;
use postgres::error::{DbError, ErrorPosition};
use std::{
    thread::sleep,
    time::{Duration, Instant},
};
use support::{Cluster, Prefix, eventually};
use uuid::Uuid;

const OTHERS: &str = "pg_stat_statements, auto_explain, pgaudit, pg_cron, plpgsql_check";

#[test]
fn loaded_before_us() {
    live_together(&format!("{OTHERS}, meshhook_secrets"));
}

#[test]
fn loaded_after_us() {
    live_together(&format!("meshhook_secrets, {OTHERS}"));
}

#[test]
fn without_us_the_errors_are_the_same() {
    let cluster = server(OTHERS);
    let db = cluster.empty_database();
    errors_are_whole(&cluster, &mut db.superuser());
}

/// pg_cron logs the command of a job, from a process that runs no statement.
#[test]
fn commands_of_cron_jobs_are_masked() {
    for libraries in ["pg_cron, meshhook_secrets", "meshhook_secrets, pg_cron"] {
        let cluster = Cluster::builder()
            .setting("shared_preload_libraries", libraries)
            .setting("cron.database_name", "postgres")
            .setting("cron.use_background_workers", "on")
            .setting("max_worker_processes", "20")
            .start();
        let mut cron = cluster.connect("postgres", "postgres");
        cron.batch_execute("CREATE EXTENSION pg_cron").unwrap();
        for command in [
            "SELECT meshhook_secrets.secret_put(gen_random_uuid(), 'N', 'canary')",
            "SELECT 'of others'",
        ] {
            cron.query("SELECT cron.schedule('* * * * *', $1)", &[&command]).unwrap();
        }
        // It looks once a minute.
        let deadline = Instant::now() + Duration::from_secs(90);
        let done = |log: &str| log.contains("'of others'") && log.contains(".secret_put(");
        while !done(&cluster.log()) {
            assert!(Instant::now() < deadline, "no job was started:\n{}", cluster.log());
            sleep(Duration::from_millis(200));
        }
        sleep(Duration::from_secs(2));
        let masked = "starting: SELECT meshhook_secrets.secret_put(gen_random_uuid(), '***";
        assert!(cluster.log().contains(masked), "{}", cluster.log());
        assert!(!cluster.log().contains("canary"), "{}", cluster.log());
    }
}

fn live_together(libraries: &str) {
    let cluster = server(libraries);
    let (db, alice) = (cluster.database(), Uuid::new_v4());
    let project = db.project(alice);
    let (mut user, mut superuser) = (db.user(alice), db.superuser());

    // Ours.
    let put = "SELECT (meshhook_secrets.secret_put($1, 'TOKEN', $2)).version";
    let get = "SELECT meshhook_secrets.secret_get($1, 'TOKEN')";
    assert_eq!(user.query_one(put, &[&project, &"one"]).unwrap().get::<_, i32>(0), 1);
    superuser.query("SELECT meshhook_secrets.kek_rotate('test')", &[]).unwrap();
    eventually("the rotation is finished", || {
        let left = "SELECT count(*) FROM meshhook_secrets.kek_storage WHERE status = 'retiring'";
        superuser.query_one(left, &[]).unwrap().get::<_, i64>(0) == 0
    });
    assert_eq!(user.query_one(get, &[&project]).unwrap().get::<_, &str>(0), "one");
    assert_eq!(user.query_one(put, &[&project, &"two"]).unwrap().get::<_, i32>(0), 2);

    // The others'.
    superuser
        .batch_execute(
            "CREATE EXTENSION pg_stat_statements; CREATE EXTENSION pgaudit;
             CREATE EXTENSION plpgsql_check;
             CREATE FUNCTION public.wrong() RETURNS int LANGUAGE plpgsql
                 AS $$ BEGIN RETURN nosuch; END $$",
        )
        .unwrap();
    let check = "SELECT count(*) FROM plpgsql_check_function('public.wrong()')";
    assert!(superuser.query_one(check, &[]).unwrap().get::<_, i64>(0) > 0);
    // Statements without literals are counted, ours as well; with them, all but ours.
    superuser.batch_execute("SELECT 'counted' AS mine").unwrap();
    let literal = format!("SELECT meshhook_secrets.secret_get('{project}', 'TOKEN') AS uncounted");
    user.batch_execute(&literal).unwrap();
    let counted = |superuser: &mut Client, what: &str| -> i64 {
        let count = "SELECT count(*) FROM pg_stat_statements WHERE query LIKE $1";
        superuser.query_one(count, &[&what]).unwrap().get(0)
    };
    assert_eq!(counted(&mut superuser, "SELECT $1 AS mine"), 1);
    let bound = "SELECT meshhook_secrets.secret_get($1, $2)";
    user.query(bound, &[&project, &"TOKEN"]).unwrap();
    assert_eq!(counted(&mut superuser, bound), 1);
    assert_eq!(counted(&mut superuser, "%uncounted"), 0);
    let mut cron = cluster.connect("postgres", "postgres");
    cron.batch_execute("CREATE EXTENSION pg_cron; SELECT cron.schedule('* * * * *', 'SELECT 1')")
        .unwrap();
    let log = cluster.log();
    for line in ["AUDIT: SESSION", "  plan:\n", "Query Text: SELECT 'counted' AS mine"] {
        assert!(log.contains(line), "{line} is not in the log");
    }

    errors_are_whole(&cluster, &mut superuser);
}

/// Errors of ordinary statements, with everything that PostgreSQL knows about them.
fn errors_are_whole(cluster: &Cluster, client: &mut Client) {
    client
        .batch_execute(
            "CREATE TABLE public.t (id int PRIMARY KEY, n int NOT NULL CONSTRAINT small CHECK (n < 9));
             INSERT INTO public.t VALUES (1, 1);
             CREATE FUNCTION public.nested() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
                 EXECUTE 'SELECT 1 FROM nosuch WHERE x = ''a literal''';
             END $$;
             CREATE FUNCTION public.raises() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
                 RAISE 'no %', 'luck' USING ERRCODE = 'AB123', DETAIL = 'a ''detail''', HINT = 'a hint',
                     TABLE = 't', COLUMN = 'c', CONSTRAINT = 'k', DATATYPE = 'd', SCHEMA = 's';
             END $$",
        )
        .unwrap();

    let it = failure(client, "SELECT 1, nosuch FROM public.t");
    assert_eq!(it.code().code(), "42703");
    assert_eq!(it.position(), Some(&ErrorPosition::Original(11)));

    let it = failure(client, "INSERT INTO public.t VALUES (1, 2)");
    assert_eq!((it.code().code(), it.constraint()), ("23505", Some("t_pkey")));
    assert_eq!((it.schema(), it.table()), (Some("public"), Some("t")));
    assert_eq!(it.detail(), Some("Key (id)=(1) already exists."));

    let it = failure(client, "INSERT INTO public.t VALUES (2, NULL)");
    assert_eq!((it.code().code(), it.column()), ("23502", Some("n")));
    assert_eq!(it.detail(), Some("Failing row contains (2, null)."));

    let it = failure(client, "INSERT INTO public.t VALUES (2, 10)");
    assert_eq!((it.code().code(), it.constraint()), ("23514", Some("small")));

    let it = failure(client, "SELECT public.nested()");
    assert_eq!(it.code().code(), "42P01");
    let query = "SELECT 1 FROM nosuch WHERE x = 'a literal'".to_owned();
    assert_eq!(it.position(), Some(&ErrorPosition::Internal { position: 15, query }));
    assert_eq!(it.where_(), Some("PL/pgSQL function nested() line 2 at EXECUTE"));

    let it = failure(client, "SELECT public.raises()");
    assert_eq!((it.code().code(), it.message()), ("AB123", "no luck"));
    assert_eq!((it.detail(), it.hint()), (Some("a 'detail'"), Some("a hint")));
    assert_eq!((it.table(), it.column(), it.schema()), (Some("t"), Some("c"), Some("s")));
    assert_eq!((it.constraint(), it.datatype()), (Some("k"), Some("d")));

    let log = cluster.log();
    for line in [
        "column \"nosuch\" does not exist at character 11",
        "DETAIL:  Key (id)=(1) already exists.",
        "DETAIL:  Failing row contains (2, null).",
        "QUERY:  SELECT 1 FROM nosuch WHERE x = 'a literal'",
        "CONTEXT:  PL/pgSQL function nested() line 2 at EXECUTE",
        "DETAIL:  a 'detail'",
        "STATEMENT:  INSERT INTO public.t VALUES (2, 10)",
    ] {
        assert!(log.contains(line), "{line:?} is not in the log");
    }
}

#[track_caller]
fn failure(client: &mut Client, sql: &str) -> DbError {
    client.batch_execute(sql).unwrap_err().as_db_error().unwrap().clone()
}

fn server(libraries: &str) -> Cluster {
    let major = Prefix::get().major();
    for library in ["pgaudit", "pg_cron", "plpgsql_check"] {
        assert!(
            Prefix::get().modules().join(format!("{library}.so")).exists(),
            "this test needs {library}: apt-get install postgresql-{major}-{}",
            library.trim_start_matches("pg_").replace('_', "-"),
        );
    }
    Cluster::builder()
        .setting("shared_preload_libraries", libraries)
        .setting("pgaudit.log", "all")
        .setting("auto_explain.log_min_duration", "0")
        .setting("auto_explain.log_nested_statements", "on")
        .setting("pg_stat_statements.track", "all")
        .setting("cron.database_name", "postgres")
        .start()
}
