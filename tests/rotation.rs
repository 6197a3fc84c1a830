//! A rotation of the KEK disturbs nobody, and nothing stops it for good: clients go on without an
//! error, killed processes and servers take it up again, transactions that are open keep their key,
//! callers at the same moment share one rotation. Its worker is there only while there is work, and
//! keeps nobody from dropping, stopping, copying or promoting what it works in.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant, SystemTime};

use postgres::{Client, IsolationLevel};
use support::{
    Cluster, ClusterBuilder, Database, KEY_A, Prefix, RootKey, Shutdown, backend_pid, eventually,
    expect_error, run, signal,
};
use uuid::Uuid;

const PUT: &str = "SELECT version FROM meshhook_secrets.secret_put($1, $2, $3)";
const GET: &str = "SELECT meshhook_secrets.secret_get($1, $2)";
const MAINTENANCE: &str = "meshhook_secrets maintenance";
const LAUNCHER: &str = "meshhook_secrets launcher";
/// What a server may take to let go of a database, or to stop.
const QUICKLY: Duration = Duration::from_secs(5);

// --- nobody notices ---------------------------------------------------------------------------

#[test]
fn clients_put_and_get_without_an_error_while_keks_rotate() {
    const CLIENTS: usize = 8;
    const ROTATIONS: i64 = 20;
    const PROJECTS: usize = 150;
    let db = Cluster::shared().database();
    fill(&db, 300);
    let mut operator = operator(&db);
    let stop = AtomicBool::new(false);
    let rounds = scope(|scope| {
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let alice = Uuid::new_v4();
            let projects = projects(&db, alice, PROJECTS);
            let (mut client, stop) = (db.user(alice), &stop);
            clients.push(scope.spawn(move || {
                // Ends everything at the first error.
                let _ending = StopAtEnd(stop);
                let mut written: HashMap<(Uuid, String), String> = HashMap::new();
                let (mut round, mut longest) = (0_usize, Duration::ZERO);
                while !stop.load(Ordering::Relaxed) {
                    // Now and then in a project that has no data key yet.
                    let project = projects[(round / 3) % PROJECTS];
                    let name = format!("NAME_{}", round % 4);
                    let value = format!("{number} wrote {round}");
                    let started = Instant::now();
                    put(&mut client, project, &name, &value);
                    written.insert((project, name), value);
                    let any = written.iter().nth(round * 7 % written.len());
                    let ((project, name), value) = any.unwrap();
                    assert_eq!(get(&mut client, *project, name), *value, "client {number}");
                    longest = longest.max(started.elapsed());
                    round += 1;
                }
                for ((project, name), value) in &written {
                    assert_eq!(get(&mut client, *project, name), *value, "client {number}");
                }
                (round, longest)
            }));
        }
        let _ending = StopAtEnd(&stop);
        for _ in 0..ROTATIONS {
            rotate(&mut operator);
            eventually("the rotation finished", || is_finished(&mut operator));
            assert!(!stop.load(Ordering::Relaxed), "a client failed");
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    println!("rounds of the clients, and the longest: {rounds:?}");
    let held_up =
        |(rounds, longest): &(usize, Duration)| *rounds < 20 || *longest > Duration::from_secs(2);
    assert!(!rounds.iter().any(held_up), "clients were held up: {rounds:?}");
    assert_eq!(finished_jobs(&db), ROTATIONS);
    assert_all_good(&db, ROTATIONS + 1);
}

#[test]
fn rotation_started_the_moment_another_ends_is_not_overlooked() {
    let cluster = Cluster::builder().start();
    let db = cluster.database();
    fill(&db, 3);
    // Each answer is the rotation that runs, or a new one as soon as that is finished.
    let until = Instant::now() + Duration::from_secs(6);
    let callers: Vec<Client> = (0..3).map(|_| operator(&db)).collect();
    scope(|scope| {
        for mut caller in callers {
            scope.spawn(move || {
                let (mut latest, mut since) = (0, Instant::now());
                while Instant::now() < until {
                    let job: i32 = caller.query_one(ROTATE, &[]).unwrap().get("job_id");
                    if job != latest {
                        (latest, since) = (job, Instant::now());
                    }
                    assert!(since.elapsed() < QUICKLY, "rotation {job} waits for a worker");
                }
            });
        }
    });
    let mut operator = operator(&db);
    eventually("the rotation finished", || is_finished(&mut operator));
    let rotations = finished_jobs(&db);
    println!("{rotations} rotations");
    assert!(rotations > 20, "only {rotations} rotations");
    assert_all_good(&db, rotations + 1);
}

#[test]
fn rotation_that_is_rolled_back_never_was() {
    let db = Cluster::shared().database();
    fill(&db, 3);
    let mut operator = operator(&db);
    let mut transaction = operator.transaction().unwrap();
    transaction.query(ROTATE, &[]).unwrap();
    transaction.rollback().unwrap();
    let mut transaction = operator.transaction().unwrap();
    transaction.batch_execute("SAVEPOINT here").unwrap();
    transaction.query(ROTATE, &[]).unwrap();
    transaction.batch_execute("ROLLBACK TO here").unwrap();
    transaction.commit().unwrap();
    assert_all_good(&db, 1);
    assert_eq!(jobs(&db), 0);
    // The session's next one is noticed all the same.
    rotate(&mut operator);
    eventually("the rotation finished", || is_finished(&mut operator));
    assert_all_good(&db, 2);
}

#[test]
fn callers_at_the_same_moment_share_one_rotation() {
    for callers in [2, 8] {
        let cluster = Cluster::shared();
        let db = cluster.database();
        fill(&db, 50);
        let clients: Vec<Client> = (0..callers).map(|_| operator(&db)).collect();
        // Nobody finishes it before the last one has asked.
        let mut writer = db.service();
        let late = db.project(Uuid::new_v4());
        let mut writing = writer.transaction().unwrap();
        writing.query(PUT, &[&late, &"TOKEN", &value_of(late)]).unwrap();
        let start = Barrier::new(callers);
        let answers: Vec<(i32, i32)> = scope(|scope| {
            let callers: Vec<_> = clients
                .into_iter()
                .map(|mut client| {
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        let row = client.query_one(ROTATE, &[]).unwrap();
                        (row.get("job_id"), row.get("kek_id"))
                    })
                })
                .collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        assert_eq!(answers, vec![(1, 2); callers]);
        writing.commit().unwrap();
        eventually("the rotation finished", || is_finished(&mut operator(&db)));
        assert_eq!(jobs(&db), 1);
        assert_all_good(&db, 2);
    }
}

// --- open transactions --------------------------------------------------------------------------

#[test]
fn open_transaction_keeps_the_kek_that_it_wrapped_with() {
    let db = Cluster::shared().database();
    fill(&db, 20);
    let [first, second, later] = [(); 3].map(|()| db.project(Uuid::new_v4()));
    let mut operator = operator(&db);

    let [mut wrapper, mut early] = [(); 2].map(|()| db.service());
    let mut wrapped = wrapper.transaction().unwrap();
    wrapped.query(PUT, &[&first, &"TOKEN", &value_of(first)]).unwrap();
    let mut committed = early.transaction().unwrap();
    committed.query("SELECT count(*) FROM public.projects", &[]).unwrap();

    rotate(&mut operator);
    eventually("other data keys are rewrapped", || wraps(&mut operator, 1) == 0);
    // Nobody retires it...
    sleep(Duration::from_millis(1500));
    assert_eq!(status(&mut operator, 1), "retiring");
    // ... nor destroys it. To wait for the transaction is allowed.
    operator.batch_execute("SET statement_timeout = '1s'").unwrap();
    let destroy = "SELECT meshhook_secrets.kek_destroy(1, '1', '0')";
    let error = operator.query(destroy, &[]).unwrap_err();
    let code = error.as_db_error().unwrap().code().code();
    assert!(["PT409", "57014"].contains(&code), "{error:?}");
    operator.batch_execute("RESET statement_timeout").unwrap();
    assert_eq!(status(&mut operator, 1), "retiring");
    assert_eq!(status(&mut operator, 2), "active");
    assert_eq!(finished_jobs(&db), 0);

    // Both go on as if nothing had happened.
    wrapped.query(PUT, &[&second, &"TOKEN", &value_of(second)]).unwrap();
    committed.query(PUT, &[&later, &"TOKEN", &value_of(later)]).unwrap();
    for (transaction, project) in [(&mut wrapped, first), (&mut committed, later)] {
        let value: String = transaction.query_one(GET, &[&project, &"TOKEN"]).unwrap().get(0);
        assert_eq!(value, value_of(project));
    }
    committed.commit().unwrap();
    assert_eq!(status(&mut operator, 1), "retiring");
    wrapped.commit().unwrap();
    eventually("the rotation finished", || is_finished(&mut operator));
    assert_all_good(&db, 2);
    assert_eq!(last_error(&db), None);
}

#[test]
fn first_secret_with_a_snapshot_older_than_the_kek_is_stored_or_asks_to_be_repeated() {
    let db = Cluster::shared().database();
    fill(&db, 5);
    let mut operator = operator(&db);
    for (keks, level) in (2..).zip([IsolationLevel::RepeatableRead, IsolationLevel::Serializable]) {
        let project = db.project(Uuid::new_v4());
        let mut client = db.service();
        let mut old = client.build_transaction().isolation_level(level).start().unwrap();
        old.query("SELECT count(*) FROM public.projects", &[]).unwrap();
        rotate(&mut operator);
        match old.query(PUT, &[&project, &"TOKEN", &value_of(project)]) {
            Ok(_) => old.commit().unwrap(),
            Err(error) => {
                expect_error(Err::<(), _>(error), "40001");
                old.rollback().unwrap();
                put(&mut client, project, "TOKEN", &value_of(project));
            }
        }
        assert_eq!(get(&mut client, project, "TOKEN"), value_of(project));
        eventually("the rotation finished", || is_finished(&mut operator));
        assert_all_good(&db, keks);
    }
}

#[test]
fn open_transaction_in_one_database_holds_up_no_other() {
    let cluster = Cluster::builder().start();
    let (held, free) = (cluster.database(), cluster.database());
    fill(&held, 10);
    fill(&free, 10);
    let late = held.project(Uuid::new_v4());
    let mut client = held.service();
    let mut open = client.transaction().unwrap();
    open.query(PUT, &[&late, &"TOKEN", &value_of(late)]).unwrap();
    rotate(&mut operator(&held));
    sleep(Duration::from_millis(300));
    rotate(&mut operator(&free));
    let asked = Instant::now();
    eventually("the other database's rotation finished", || is_finished(&mut operator(&free)));
    assert!(asked.elapsed() < QUICKLY, "waited {:?}", asked.elapsed());
    // Meanwhile the worker and the launcher can be ended, and come again.
    for kind in [MAINTENANCE, LAUNCHER] {
        for pid in workers(&cluster, kind) {
            terminate(&cluster, pid);
            eventually("it ends", || !is_alive(pid));
        }
    }
    open.commit().unwrap();
    eventually("the held rotation finished", || is_finished(&mut operator(&held)));
    assert_all_good(&held, 2);
    assert_all_good(&free, 2);
}

// --- disasters ------------------------------------------------------------------------------------

#[test]
fn rotation_completes_by_itself_after_every_kill() {
    const ROUNDS: i64 = 30;
    let mut random = Random::new();
    let cluster = Cluster::builder()
        .setting("meshhook_secrets.rewrap_batch_size", "50")
        .setting("meshhook_secrets.rewrap_pause", "20ms")
        .start();
    let db = cluster.database();
    fill(&db, 2000);
    let mut hits = 0;
    for round in 0..ROUNDS {
        let moment = Duration::from_millis(random.below(900));
        let mut witness = operator(&db);
        let victim = operator(&db);
        rotate(&mut witness);
        hits += match round % 4 {
            0 => kill_worker(&cluster, &mut witness, moment),
            1 => kill_client(&cluster, &mut witness, victim, moment),
            2 => kill_postmaster(&cluster, &mut witness, moment),
            _ => stop_at_once(&cluster, &mut witness, moment),
        };
        // No call of ours: the tables alone say when it is done.
        eventually("the rotation finished", || {
            let Ok(mut superuser) = cluster.try_connect(db.name(), "postgres") else {
                return false;
            };
            let keks = "SELECT count(*) FROM meshhook_secrets.kek_storage WHERE status = 'active'";
            let active: i64 = superuser.query_one(keks, &[]).unwrap().get(0);
            assert_eq!(active, 1);
            let jobs =
                "SELECT count(*) FROM meshhook_secrets.rotation_jobs WHERE finished_at IS NULL";
            superuser.query_one(jobs, &[]).unwrap().get::<_, i64>(0) == 0
        });
        assert_all_good(&db, round + 2);
        assert_eq!(finished_jobs(&db), round + 1);
    }
    println!("{hits} of {ROUNDS} rounds hit the rotation before its end");
    assert!(hits > ROUNDS / 2, "only {hits} of {ROUNDS} rounds hit the rotation before its end");
}

// --- states without a way out -------------------------------------------------------------------

#[test]
fn a_kek_that_is_switched_off_during_its_rotation_does_not_end_all_rotations() {
    for step in ["kek_mark_compromised", "kek_disable"] {
        let cluster = slow().start();
        let db = cluster.database();
        fill(&db, 20);
        let mut operator = operator(&db);
        rotate(&mut operator);
        operator.query_one(&format!("SELECT meshhook_secrets.{step}(2)"), &[]).unwrap();
        let mut service = db.service();
        let project = db.project(Uuid::new_v4());
        expect_error(service.query(PUT, &[&project, &"NEW", &"v"]), "PT503").hint("kek_rotate");
        rotate(&mut operator);
        speed_up(&cluster);
        assert_eq!(status(&mut operator, 3), "active");
        put(&mut service, project, "NEW", "v");
        if step == "kek_disable" {
            operator.query_one("SELECT meshhook_secrets.kek_enable(2)", &[]).unwrap();
        }
        eventually("all data keys are with the new KEK", || {
            wraps(&mut operator, 1) + wraps(&mut operator, 2) == 0
        });
        eventually("the rotation is finished", || {
            let running =
                "SELECT count(*) FROM meshhook_secrets.rotation_jobs WHERE finished_at IS NULL";
            db.superuser().query_one(running, &[]).unwrap().get::<_, i64>(0) == 0
        });
    }
}

#[test]
fn a_database_without_an_active_kek_keeps_no_worker_busy() {
    let cluster = Cluster::builder().start();
    let (db, other) = (cluster.database(), cluster.database());
    fill(&db, 3);
    fill(&other, 3);
    let mut admin = operator(&db);
    for step in ["kek_disable(1)", "kek_enable(1)"] {
        admin.query_one(&format!("SELECT meshhook_secrets.{step}"), &[]).unwrap();
    }
    assert_eq!(status(&mut admin, 1), "retiring");
    rotate(&mut operator(&other));
    eventually("the other database rotates", || is_finished(&mut operator(&other)));
    eventually("no worker stays", || workers(&cluster, MAINTENANCE).is_empty());
    rotate(&mut admin);
    eventually("it rotates when told to", || is_finished(&mut admin));
}

#[test]
fn a_schema_of_our_name_that_somebody_else_made_is_not_looked_into() {
    let cluster = Cluster::builder().start();
    let (db, ours) = (cluster.empty_database(), cluster.database());
    fill(&ours, 3);
    db.superuser()
        .batch_execute(&format!(
            "CREATE ROLE squatter LOGIN; GRANT CREATE ON DATABASE {} TO squatter",
            db.name()
        ))
        .unwrap();
    db.connect("squatter")
        .batch_execute(
            "CREATE SCHEMA meshhook_secrets;
             CREATE VIEW meshhook_secrets.kek_storage AS SELECT 1 AS kek_id;
             CREATE TABLE meshhook_secrets.rotation_jobs (job_id bigint)",
        )
        .unwrap();
    // At start the launcher looks into every database.
    cluster.restart();
    rotate(&mut operator(&ours));
    eventually("the rotation is finished", || is_finished(&mut operator(&ours)));
    let log = cluster.log();
    assert!(!log.contains("was terminated by signal"), "{log}");
    assert_eq!(workers(&cluster, LAUNCHER).len(), 1);
}

// --- the worker's life ----------------------------------------------------------------------------

#[test]
fn idle_server_has_only_a_launcher_that_sleeps() {
    let cluster = Cluster::builder().start();
    let (db, _other) = (cluster.database(), cluster.database());
    fill(&db, 5);
    rotate(&mut operator(&db));
    eventually("the rotation finished", || is_finished(&mut operator(&db)));
    eventually("workers left", || workers(&cluster, MAINTENANCE).is_empty());
    let launchers = workers(&cluster, LAUNCHER);
    let [launcher] = launchers[..] else { panic!("one launcher, not {launchers:?}") };
    let in_database = "SELECT datname IS NOT NULL FROM pg_stat_activity WHERE pid = $1";
    let mut superuser = db.superuser();
    assert!(!superuser.query_one(in_database, &[&launcher]).unwrap().get::<_, bool>(0));

    // What was posted while the last worker was ending may wake it once more.
    let log = cluster.log();
    eventually("the launcher sleeps for three seconds", || {
        let before = (wake_ups(launcher), cpu(launcher));
        sleep(Duration::from_secs(3));
        (wake_ups(launcher), cpu(launcher)) == before
    });
    assert!(workers(&cluster, MAINTENANCE).is_empty());
    assert_eq!(workers(&cluster, LAUNCHER), [launcher]);
    assert_eq!(cluster.log(), log, "an idle server logs nothing");
}

#[test]
fn worker_shows_what_it_does_where_it_does_it() {
    let cluster = slow().start();
    let (db, other) = (cluster.database(), cluster.database());
    fill(&db, 100);
    fill(&other, 5);
    rotate(&mut operator(&db));
    let activity = "SELECT datname, query FROM pg_stat_activity WHERE backend_type = $1";
    let mut superuser = cluster.connect("postgres", "postgres");
    let mut look = || -> Vec<(String, String)> {
        let rows = superuser.query(activity, &[&MAINTENANCE]).unwrap();
        rows.iter().filter_map(|row| Some((row.get::<_, Option<String>>(0)?, row.get(1)))).collect()
    };
    let rewrapping = (db.name().to_owned(), String::from("meshhook_secrets: rewrapping data keys"));
    eventually("a worker rewraps", || look().contains(&rewrapping));
    let seen: Vec<_> = (0..60)
        .flat_map(|_| {
            sleep(Duration::from_millis(17));
            look()
        })
        .collect();
    assert!(seen.len() >= 50, "the worker stays while there is work: {seen:?}");
    for (database, query) in seen {
        assert_eq!(database, db.name(), "nothing is to be done elsewhere");
        assert!(query.starts_with("meshhook_secrets: "), "it shows {query:?}");
    }
    assert_eq!(jobs(&other), 0);
    assert_all_good(&other, 1);
    speed_up(&cluster);
    eventually("the rotation finished", || is_finished(&mut operator(&db)));
    eventually("the worker left", || workers(&cluster, MAINTENANCE).is_empty());
}

#[test]
fn database_is_dropped_and_copied_at_once_while_idle_and_during_a_rotation() {
    let cluster = slow().start();
    let mut superuser = cluster.connect("postgres", "postgres");
    let db = cluster.database();
    fill(&db, 50);

    eventually("workers left", || workers(&cluster, MAINTENANCE).is_empty());
    let copy = format!("CREATE DATABASE copied TEMPLATE {}", db.name());
    quickly("copying an idle database", || superuser.batch_execute(&copy).unwrap());
    quickly("dropping an idle database", || {
        superuser.batch_execute("DROP DATABASE copied").unwrap()
    });

    rotate(&mut operator(&db));
    eventually("a worker is there", || workers(&cluster, MAINTENANCE).len() == 1);
    quickly("copying during a rotation", || superuser.batch_execute(&copy).unwrap());
    let rename = "ALTER DATABASE copied RENAME TO renamed";
    quickly("renaming a copy", || superuser.batch_execute(rename).unwrap());
    // The rotation goes on after the copying.
    eventually("a worker is there", || in_database(&cluster, db.name()));
    let drop = format!("DROP DATABASE {}", db.name());
    quickly("dropping during a rotation", || superuser.batch_execute(&drop).unwrap());
    superuser.batch_execute("DROP DATABASE renamed").unwrap();

    // Whoever looks for work finds the databases gone, and says nothing.
    let log = cluster.log().len();
    sleep(Duration::from_secs(4));
    assert!(workers(&cluster, MAINTENANCE).is_empty());
    let log = cluster.log().split_off(log);
    assert!(log.lines().count() <= 3, "{log}");
    // The launcher is as good as before.
    let db = cluster.database();
    fill(&db, 3);
    rotate(&mut operator(&db));
    eventually("the rotation finished", || is_finished(&mut operator(&db)));
}

#[test]
fn extension_is_dropped_at_once_while_idle_and_during_a_rotation() {
    let cluster = slow().start();
    for rotating in [false, true] {
        let db = cluster.database();
        fill(&db, 50);
        if rotating {
            rotate(&mut operator(&db));
            eventually("a worker is there", || in_database(&cluster, db.name()));
            sleep(Duration::from_millis(300));
        }
        let before = cluster.log().len();
        let mut superuser = db.superuser();
        let drop = "DROP EXTENSION meshhook_secrets CASCADE";
        quickly("dropping the extension", || superuser.batch_execute(drop).unwrap());
        eventually("the worker left", || workers(&cluster, MAINTENANCE).is_empty());
        sleep(Duration::from_millis(2500));
        assert!(workers(&cluster, MAINTENANCE).is_empty());
        let log = cluster.log().split_off(before);
        assert!(!log.contains("ERROR") && !log.contains("FATAL"), "{log}");
        // Made anew, it is served as any other.
        superuser.batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();
        let mut operator = operator(&db);
        let generate = "SELECT meshhook_secrets.kek_generate()";
        operator.query(generate, &[]).unwrap();
        rotate(&mut operator);
        eventually("the rotation finished", || is_finished(&mut operator));
    }
}

#[test]
fn server_stops_quickly_during_a_rotation_and_takes_it_up_again() {
    let cluster = slow().start();
    let db = cluster.database();
    fill(&db, 60);
    rotate(&mut operator(&db));
    for mode in ["fast", "smart", "fast"] {
        eventually("a worker is there", || in_database(&cluster, db.name()));
        sleep(Duration::from_millis(250));
        assert_eq!(finished_jobs(&db), 0);
        quickly(mode, || stop(&cluster, mode));
        cluster.start();
    }
    cluster.stop(Shutdown::Fast);
    cluster.set("meshhook_secrets.rewrap_pause", "0");
    cluster.start();
    // Without any call of ours.
    eventually("the rotation finished", || finished_jobs(&db) == 1);
    assert_all_good(&db, 2);
    let log = cluster.log();
    assert!(!log.contains("PANIC") && !log.contains("ERROR"), "{log}");
}

#[test]
fn terminated_worker_and_launcher_come_again() {
    let cluster = slow().start();
    let db = cluster.database();
    fill(&db, 60);
    rotate(&mut operator(&db));
    for kind in [MAINTENANCE, MAINTENANCE, LAUNCHER, MAINTENANCE] {
        eventually("a worker is there", || in_database(&cluster, db.name()));
        let victims = workers(&cluster, kind);
        let [victim] = victims[..] else { panic!("one {kind}, not {victims:?}") };
        terminate(&cluster, victim);
        eventually("it ends", || !is_alive(victim) || kind == LAUNCHER);
        eventually("another comes", || {
            let now = workers(&cluster, kind);
            // The launcher may see its worker off first.
            now.len() == 1 && (now != [victim] || kind == LAUNCHER)
        });
    }
    speed_up(&cluster);
    eventually("the rotation finished", || is_finished(&mut operator(&db)));
    assert_all_good(&db, 2);

    // At idle, the next rotation finds the new launcher.
    eventually("the worker left", || workers(&cluster, MAINTENANCE).is_empty());
    let launchers = workers(&cluster, LAUNCHER);
    let [launcher] = launchers[..] else { panic!("one launcher, not {launchers:?}") };
    terminate(&cluster, launcher);
    eventually("the launcher ends", || !is_alive(launcher));
    // Also one that is started while there is none.
    rotate(&mut operator(&db));
    eventually("the rotation finished", || is_finished(&mut operator(&db)));
    assert_all_good(&db, 3);
}

#[test]
fn rotations_in_several_databases_all_finish() {
    let cluster = Cluster::builder().start();
    let databases = [(); 3].map(|()| cluster.database());
    for db in &databases {
        fill(db, 200);
    }
    for _ in 0..3 {
        let start = Barrier::new(databases.len());
        scope(|scope| {
            for db in &databases {
                let (start, mut operator) = (&start, operator(db));
                scope.spawn(move || {
                    start.wait();
                    rotate(&mut operator);
                });
            }
        });
        for db in &databases {
            eventually("the rotation finished", || is_finished(&mut operator(db)));
        }
    }
    for db in &databases {
        assert_eq!(finished_jobs(db), 3);
        assert_all_good(db, 4);
    }
}

#[test]
fn sealed_server_waits_with_the_rotation_and_goes_on_after_unseal() {
    let cluster = slow().start();
    let db = cluster.database();
    fill(&db, 60);
    let mut operator = operator(&db);
    rotate(&mut operator);
    eventually("some are done", || wraps(&mut operator, 2) > 1);
    operator.query("SELECT meshhook_secrets.seal()", &[]).unwrap();
    sleep(Duration::from_millis(500));
    let (done, log) = (moved(&db, 2), cluster.log().len());
    sleep(Duration::from_secs(4));
    assert_eq!(moved(&db, 2), done, "nothing is rewrapped while sealed");
    let log = cluster.log().split_off(log);
    assert!(log.lines().count() <= 2, "{log}");
    expect_error(operator.query("SELECT meshhook_secrets.kek_generate()", &[]), "PT503");

    operator.query("SELECT meshhook_secrets.unseal()", &[]).unwrap();
    quickly("going on after unseal()", || {
        eventually("the rotation goes on", || moved(&db, 2) > done);
    });
    speed_up(&cluster);
    eventually("the rotation finished", || is_finished(&mut operator));
    assert_all_good(&db, 2);
}

#[test]
fn rotation_waits_for_a_root_key_that_is_missing_at_start() {
    let cluster = slow().start();
    let db = cluster.database();
    fill(&db, 60);
    rotate(&mut operator(&db));
    eventually("a worker is there", || in_database(&cluster, db.name()));
    cluster.stop(Shutdown::Fast);
    fs::remove_file(cluster.root_key_path()).unwrap();
    cluster.start();
    let done = moved(&db, 2);
    sleep(Duration::from_secs(4));
    assert_eq!(moved(&db, 2), done);
    cluster.set("meshhook_secrets.rewrap_pause", "0");
    cluster.write_root_key(KEY_A);
    cluster.reload();
    quickly("going on with the key", || {
        eventually("the rotation finished", || finished_jobs(&db) == 1);
    });
    assert_all_good(&db, 2);
}

// --- standby ----------------------------------------------------------------------------------------

#[test]
fn standby_reads_through_a_rotation_and_rotates_once_promoted() {
    let primary = Cluster::builder().start();
    let db = primary.database();
    fill(&db, 100);
    let standby =
        Cluster::builder().standby_of(&primary).root_key(RootKey::File(KEY_A.into())).start();
    assert!(is_readable(&standby, &db, 100));
    rotate(&mut operator(&db));
    eventually("the rotation finished", || is_finished(&mut operator(&db)));
    eventually("the standby has it", || {
        let mut there = standby.connect(db.name(), OPERATOR);
        status(&mut there, 1) == "retired"
    });
    assert!(is_readable(&standby, &db, 100), "readable on the standby after the rotation");
    for kind in [LAUNCHER, MAINTENANCE] {
        assert!(workers(&standby, kind).is_empty(), "no {kind} on a standby");
    }
    let mut there = standby.connect(db.name(), OPERATOR);
    expect_error(there.query(ROTATE, &[]), "25006");

    standby.promote();
    rotate(&mut there);
    eventually("the rotation finished on the former standby", || is_finished(&mut there));
    assert_eq!(status(&mut there, 2), "retired");
    assert_eq!(status(&mut there, 3), "active");
    assert!(is_readable(&standby, &db, 100), "readable after the promotion");
    assert_verified(&mut there);
    assert_eq!(status(&mut operator(&db), 2), "active", "the primary has a life of its own");
}

#[test]
fn rotation_that_is_pending_at_promotion_completes() {
    let primary = slow().start();
    let db = primary.database();
    fill(&db, 60);
    let standby = Cluster::builder()
        .standby_of(&primary)
        .root_key(RootKey::File(KEY_A.into()))
        .setting("meshhook_secrets.rewrap_pause", "0")
        .start();
    rotate(&mut operator(&db));
    eventually("the standby has some of it", || {
        let mut there = standby.connect(db.name(), OPERATOR);
        status(&mut there, 1) == "retiring" && wraps(&mut there, 2) > 0
    });
    primary.stop(Shutdown::Immediate);
    standby.promote();
    eventually("the rotation finished", || {
        let mut there = standby.connect(db.name(), "postgres");
        let jobs = "SELECT count(*) FROM meshhook_secrets.rotation_jobs WHERE finished_at IS NULL";
        there.query_one(jobs, &[]).unwrap().get::<_, i64>(0) == 0
    });
    let mut there = standby.connect(db.name(), OPERATOR);
    assert!(is_finished(&mut there));
    assert_verified(&mut there);
    assert!(is_readable(&standby, &db, 60));
}

// --- pg_cron ------------------------------------------------------------------------------------------

#[test]
fn pg_cron_rotates_as_an_ordinary_member_of_kek_admin() {
    let prefix = Prefix::get();
    let major = prefix.major();
    assert!(
        prefix.modules().join("pg_cron.so").exists(),
        "this test needs pg_cron: apt-get install postgresql-{major}-cron, or pg_cron built for \
         PostgreSQL {major} from its sources"
    );
    let cluster = Cluster::builder().start();
    let db = cluster.database();
    fill(&db, 20);
    cluster.set("shared_preload_libraries", "meshhook_secrets, pg_cron");
    cluster.set("cron.database_name", db.name());
    cluster.set("cron.host", text(cluster.dir()));
    cluster.restart();
    let mut superuser = db.superuser();
    superuser.batch_execute("CREATE EXTENSION pg_cron").unwrap();
    let mut operator = operator(&db);
    superuser.batch_execute("GRANT USAGE ON SCHEMA cron TO operator").unwrap();
    let knows_seconds =
        "SELECT string_to_array(split_part(extversion, '-', 1), '.')::int[] >= '{1,5}'
        FROM pg_extension WHERE extname = 'pg_cron'";
    let knows_seconds: bool = superuser.query_one(knows_seconds, &[]).unwrap().get(0);
    let schedule = if knows_seconds { "2 seconds" } else { "* * * * *" };
    let call = "SELECT meshhook_secrets.kek_rotate('cron')";
    operator.query("SELECT cron.schedule('rotate', $1, $2)", &[&schedule, &call]).unwrap();

    let deadline = Instant::now() + Duration::from_secs(75);
    while finished_jobs(&db) == 0 {
        assert!(Instant::now() < deadline, "cron did not rotate:\n{}", cluster.log());
        sleep(Duration::from_millis(100));
    }
    operator.query("SELECT cron.unschedule('rotate')", &[]).unwrap();
    let job = "SELECT reason, started_by FROM meshhook_secrets.rotation_jobs WHERE job_id = 1";
    let job = superuser.query_one(job, &[]).unwrap();
    assert_eq!(job.get::<_, &str>("reason"), "cron");
    assert!(job.get::<_, &str>("started_by").contains(OPERATOR), "{job:?}");
    let run = "SELECT status, username FROM cron.job_run_details ORDER BY runid LIMIT 1";
    eventually("cron knows that it went well", || {
        superuser.query_one(run, &[]).unwrap().get::<_, &str>(0) == "succeeded"
    });
    assert_eq!(superuser.query_one(run, &[]).unwrap().get::<_, &str>(1), OPERATOR);
    eventually("the rotation finished", || is_finished(&mut operator));
    assert_eq!(status(&mut operator, 1), "retired");
    assert_verified(&mut operator);
}

// --- disasters, one by one ------------------------------------------------------------------------------

/// Kills the maintenance worker; 1 if data keys were left to rewrap then.
fn kill_worker(cluster: &Cluster, witness: &mut Client, moment: Duration) -> i64 {
    sleep(moment);
    let hit = left(witness);
    match workers(cluster, MAINTENANCE).first() {
        Some(worker) if crash(cluster, *worker) => hit,
        _ => 0,
    }
}

/// Kills a client that rewraps too.
fn kill_client(cluster: &Cluster, witness: &mut Client, mut victim: Client, at: Duration) -> i64 {
    let pid = backend_pid(&mut victim);
    scope(|scope| {
        scope.spawn(move || {
            while victim.query("SELECT * FROM meshhook_secrets.kek_rewrap(5)", &[]).is_ok() {
                sleep(Duration::from_millis(10));
            }
        });
        sleep(at);
        let hit = left(witness);
        if crash(cluster, pid) { hit } else { 0 }
    })
}

fn kill_postmaster(cluster: &Cluster, witness: &mut Client, moment: Duration) -> i64 {
    sleep(moment);
    let hit = left(witness);
    let postmaster = cluster.postmaster_pid();
    signal(postmaster, "KILL");
    eventually("the postmaster is gone", || !is_alive(postmaster));
    // Refused while a process of the former server still lives.
    eventually("the server starts", || cluster.try_start().is_ok());
    hit
}

fn stop_at_once(cluster: &Cluster, witness: &mut Client, moment: Duration) -> i64 {
    sleep(moment);
    let hit = left(witness);
    cluster.stop(Shutdown::Immediate);
    cluster.start();
    hit
}

fn left(witness: &mut Client) -> i64 {
    i64::from(!is_finished(witness))
}

/// Kills a server process; the server starts over. False if the process was ending anyhow: then the
/// server has nothing to recover from.
fn crash(cluster: &Cluster, pid: i32) -> bool {
    let mut witness = cluster.connect("postgres", "postgres");
    // Not `signal`, which insists on a process that is there.
    let kill = ["-c", "kill -s KILL \"$0\"", &pid.to_string()];
    let _ = Command::new("sh").args(kill).stderr(Stdio::null()).status();
    let killed = Instant::now();
    while witness.simple_query("SELECT 1").is_ok() {
        if !is_alive(pid) && killed.elapsed() > Duration::from_secs(3) {
            return false;
        }
        assert!(killed.elapsed() < Duration::from_secs(30), "the process outlives SIGKILL");
        sleep(Duration::from_millis(20));
    }
    eventually("the server is back", || cluster.try_connect("postgres", "postgres").is_ok());
    true
}

// --- keys -----------------------------------------------------------------------------------------------

const OPERATOR: &str = "operator";
const ROTATE: &str = "SELECT * FROM meshhook_secrets.kek_rotate('test')";

/// A member of `meshhook_secrets_kek_admin`, and of nothing else.
fn operator(db: &Database<'_>) -> Client {
    // Tests that share a server come here at the same moment.
    let role = "DO $$ BEGIN CREATE ROLE operator LOGIN IN ROLE meshhook_secrets_kek_admin;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$";
    db.superuser().batch_execute(role).unwrap();
    db.connect(OPERATOR)
}

fn rotate(operator: &mut Client) {
    operator.query_one(ROTATE, &[]).unwrap_or_else(|error| panic!("kek_rotate: {error:?}"));
}

/// Whether `kek_status()` says that nothing is left to do.
fn is_finished(operator: &mut Client) -> bool {
    let status = "SELECT count(*) FILTER (WHERE status = 'active') = 1
            AND bool_and(status = 'active' OR status = 'retired' AND wraps = 0)
            AND COALESCE(sum(remaining), 0) = 0
        FROM meshhook_secrets.kek_status()";
    operator.query_one(status, &[]).unwrap().get::<_, Option<bool>>(0).unwrap_or(false)
}

fn status(operator: &mut Client, kek: i32) -> String {
    let status = "SELECT status FROM meshhook_secrets.kek_status() WHERE kek_id = $1";
    operator.query_one(status, &[&kek]).unwrap().get(0)
}

fn wraps(operator: &mut Client, kek: i32) -> i64 {
    let wraps = "SELECT wraps FROM meshhook_secrets.kek_status() WHERE kek_id = $1";
    operator.query_opt(wraps, &[&kek]).unwrap().map_or(0, |row| row.get(0))
}

/// Data keys that a KEK wraps, by the tables: also while sealed.
fn moved(db: &Database<'_>, kek: i32) -> i64 {
    let count = "SELECT count(*) FROM meshhook_secrets.data_keys WHERE kek_id = $1";
    db.superuser().query_one(count, &[&kek]).unwrap().get(0)
}

fn jobs(db: &Database<'_>) -> i64 {
    let count = "SELECT count(*) FROM meshhook_secrets.rotation_jobs";
    db.superuser().query_one(count, &[]).unwrap().get(0)
}

fn finished_jobs(db: &Database<'_>) -> i64 {
    let count = "SELECT count(*) FROM meshhook_secrets.rotation_jobs WHERE finished_at IS NOT NULL";
    db.superuser().query_one(count, &[]).unwrap().get(0)
}

fn last_error(db: &Database<'_>) -> Option<String> {
    let latest =
        "SELECT last_error FROM meshhook_secrets.rotation_jobs ORDER BY job_id DESC LIMIT 1";
    db.superuser().query_one(latest, &[]).unwrap().get(0)
}

/// One KEK is active and wraps all, every other one is retired and wraps nothing, every wrap and
/// value authenticates, and every project's TOKEN is what [`fill`] wrote.
#[track_caller]
fn assert_all_good(db: &Database<'_>, keks: i64) {
    let mut operator = operator(db);
    assert!(is_finished(&mut operator));
    let count = "SELECT count(*), max(kek_id) FILTER (WHERE status = 'active')
        FROM meshhook_secrets.kek_status()";
    let row = operator.query_one(count, &[]).unwrap();
    assert_eq!(row.get::<_, i64>(0), keks, "KEKs");
    assert_eq!(i64::from(row.get::<_, i32>(1)), keks, "the newest is active");
    assert_verified(&mut operator);
    let read = "SELECT count(*) FROM meshhook_secrets.project_secrets s
        WHERE name = 'TOKEN'
          AND meshhook_secrets.secret_get(project_id, name) IS DISTINCT FROM 'value of ' || project_id";
    let wrong: i64 = db.service().query_one(read, &[]).unwrap().get(0);
    assert_eq!(wrong, 0, "values that are not what was written");
}

#[track_caller]
fn assert_verified(operator: &mut Client) {
    let verify = "SELECT kek_id, wraps, good, bad, problem
        FROM meshhook_secrets.kek_verify(deep => true)";
    let rows = operator.query(verify, &[]).unwrap();
    assert!(!rows.is_empty());
    for row in rows {
        assert_eq!(row.get::<_, i64>("bad"), 0, "{row:?}");
        assert_eq!(row.get::<_, i64>("good"), row.get::<_, i64>("wraps"), "{row:?}");
        assert_eq!(row.get::<_, Option<String>>("problem"), None);
    }
}

/// Whether the standby or former standby has this many values of [`fill`].
fn is_readable(cluster: &Cluster, db: &Database<'_>, count: i64) -> bool {
    let mut superuser = cluster.connect(db.name(), "postgres");
    let read = "SELECT count(*) FROM public.projects
        WHERE meshhook_secrets.secret_get(id, 'TOKEN') = 'value of ' || id";
    superuser.query_one(read, &[]).unwrap().get::<_, i64>(0) == count
}

// --- secrets ----------------------------------------------------------------------------------------------

/// New projects, each with a secret TOKEN and so with a data key.
fn fill(db: &Database<'_>, count: usize) {
    projects(db, Uuid::new_v4(), count);
    let put = "SELECT count(meshhook_secrets.secret_put(id, 'TOKEN', 'value of ' || id))
        FROM public.projects";
    let stored: i64 = db.service().query_one(put, &[]).unwrap().get(0);
    assert_eq!(stored as usize, count);
}

fn value_of(project: Uuid) -> String {
    format!("value of {project}")
}

fn projects(db: &Database<'_>, owner: Uuid, count: usize) -> Vec<Uuid> {
    let insert = "INSERT INTO public.projects (owner, name)
        SELECT $1, 'test' FROM generate_series(1, $2::int4) RETURNING id";
    let rows = db.superuser().query(insert, &[&owner, &(count as i32)]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn put(client: &mut Client, project: Uuid, name: &str, value: &str) {
    client
        .query_one(PUT, &[&project, &name, &value])
        .unwrap_or_else(|error| panic!("put {name}: {error:?}"));
}

fn get(client: &mut Client, project: Uuid, name: &str) -> String {
    client
        .query_one(GET, &[&project, &name])
        .unwrap_or_else(|error| panic!("get {name}: {error:?}"))
        .get(0)
}

/// Says stop also when its thread panics.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// --- servers and processes ----------------------------------------------------------------------------------

/// A server whose rotations can be watched: ten data keys a second.
fn slow() -> ClusterBuilder<'static> {
    Cluster::builder()
        .setting("meshhook_secrets.rewrap_batch_size", "1")
        .setting("meshhook_secrets.rewrap_pause", "100ms")
}

/// Lets a rotation that is running come to its end.
fn speed_up(cluster: &Cluster) {
    cluster.set("meshhook_secrets.rewrap_pause", "0");
    cluster.reload();
}

fn stop(cluster: &Cluster, mode: &str) {
    let mut stop = cluster.command("pg_ctl");
    run(stop.args(["stop", "-w", "-t", "30", "-m", mode, "-D"]).arg(cluster.data_dir()));
}

#[track_caller]
fn quickly(what: &str, action: impl FnOnce()) {
    let started = Instant::now();
    action();
    assert!(started.elapsed() < QUICKLY, "{what} took {:?}", started.elapsed());
}

/// The processes of this kind.
fn workers(cluster: &Cluster, kind: &str) -> Vec<i32> {
    let workers = "SELECT pid FROM pg_stat_activity WHERE backend_type = $1";
    let mut superuser = cluster.connect("postgres", "postgres");
    superuser.query(workers, &[&kind]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// Whether a maintenance worker is in this database.
fn in_database(cluster: &Cluster, database: &str) -> bool {
    let workers = "SELECT FROM pg_stat_activity WHERE backend_type = $1 AND datname = $2";
    let mut superuser = cluster.connect("postgres", "postgres");
    !superuser.query(workers, &[&MAINTENANCE, &database]).unwrap().is_empty()
}

fn terminate(cluster: &Cluster, pid: i32) {
    let mut superuser = cluster.connect("postgres", "postgres");
    superuser.query("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
}

fn is_alive(pid: i32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie is none: its parent just has not looked yet.
    !state.is_empty() && !state.contains(") Z ")
}

/// Processor time of a process so far, in ticks.
fn cpu(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// How often a process went to sleep.
fn wake_ups(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Moments that differ from run to run; `MESHHOOK_TEST_SEED` repeats one.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let seed = match std::env::var("MESHHOOK_TEST_SEED") {
            Ok(seed) => seed.parse().expect("a number"),
            Err(_) => now.as_nanos() as u64 | 1,
        };
        println!("MESHHOOK_TEST_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}
