//! What happens when records cannot be written: reveals are refused with PT503 in bounded time and
//! hand out nothing, everything else goes on, and once the cause is gone all of it recovers by itself,
//! with no record lost or doubled.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::LazyLock;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use postgres::Client;
use serde_json::Value;
use support::{
    Cluster, Database, Failure, KEY_A, Prefix, RootKey, Shutdown, backend_pid, eventually,
    expect_error, run, signal,
};
use uuid::Uuid;

const WRITER: &str = "meshhook_secrets audit";
const LAUNCHER: &str = "meshhook_secrets launcher";
const AUDITOR: &str = "test_auditor";
const GET: &str = "SELECT meshhook_secrets.secret_get($1, 'TOKEN', purpose => $2)";
const PUT: &str = "SELECT version FROM meshhook_secrets.secret_put($1, $2, 'new')";
const VALUE: &str = "what must not be revealed unrecorded";
/// Beyond the timeout, for a machine that is busy.
const GRACE: Duration = Duration::from_millis(1500);

// --- tables that cannot be written ----------------------------------------------------------

#[test]
fn reveals_are_refused_while_the_tables_cannot_be_written() {
    let db = cluster().database();
    let mut readers = Readers::new(&db);
    let mut waiting = readers.connect("wait", 400);
    let mut not_waiting = readers.connect("nowait", 400);
    waiting.must_get();
    not_waiting.must_get();
    let partition = partition(&db);
    let bound =
        "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = $1::text::regclass";
    let mut superuser = db.superuser();
    let bound: String = superuser.query_one(bound, &[&partition]).unwrap().get(0);

    let lock = |table: &str| {
        let lock = format!("BEGIN; LOCK TABLE meshhook_secrets.{table} IN ACCESS EXCLUSIVE MODE");
        (lock, "ROLLBACK".to_owned())
    };
    for (cause, cure) in [
        (
            format!("ALTER TABLE {partition} ADD CONSTRAINT never CHECK (false) NOT VALID"),
            format!("ALTER TABLE {partition} DROP CONSTRAINT never"),
        ),
        (
            format!("ALTER TABLE meshhook_secrets.audit_log DETACH PARTITION {partition}"),
            format!("ALTER TABLE meshhook_secrets.audit_log ATTACH PARTITION {partition} {bound}"),
        ),
        lock("audit_log"),
        lock("audit_seals"),
        lock("audit_head"),
    ] {
        superuser.batch_execute(&cause).unwrap();
        waiting.must_be_refused();
        others_go_on(&db);
        // The session itself goes on as well, with what it had begun.
        let mut transaction = waiting.client.transaction().unwrap();
        transaction.execute("SELECT set_config('test.mark', 'kept', true)", &[]).unwrap();
        let mut inner = transaction.savepoint("reveal").unwrap();
        let refused = inner.query_one(GET, &[&waiting.project, &"inside"]);
        expect_error(refused, "PT503");
        inner.rollback().unwrap();
        let mark = transaction.query_one("SELECT current_setting('test.mark')", &[]).unwrap();
        assert_eq!(mark.get::<_, &str>(0), "kept");
        transaction.commit().unwrap();
        // It may be in the ring, if a writer is there; or not.
        let _ = not_waiting.try_get();
        superuser.batch_execute(&cure).unwrap();
        waiting.recovers();
    }
    not_waiting.recovers();
    readers.take([waiting, not_waiting]);
    readers.are_recorded();
    assert_verified(&db);
}

#[test]
fn a_partition_that_is_gone_is_made_anew_and_what_was_in_it_is_missed() {
    let db = cluster().database();
    let mut readers = Readers::new(&db);
    let mut reader = readers.connect("wait", 5000);
    reader.must_get();
    assert_verified(&db);
    db.superuser().batch_execute(&format!("DROP TABLE {}", partition(&db))).unwrap();
    reader.must_get();
    reader.must_get();
    let row = verification(&db);
    assert!(!row.0 && row.1.iter().any(|problem| problem.contains("0 are there")), "{row:?}");
    let recorded = recorded(&db);
    for tag in &reader.given[1..] {
        assert_eq!(recorded.get(tag), Some(&1), "{tag}");
    }
}

#[test]
fn reveals_are_refused_while_the_disk_is_full() {
    let cluster = Cluster::builder().create();
    let small = cluster.dir().join("small");
    if let Err(cause) = start_with_small_disk(&cluster, &small) {
        // Not by a macro: those are shown of failed tests only.
        let told = format!(
            "\nSKIPPED: reveals_are_refused_while_the_disk_is_full: nothing can be mounted here \
             (neither as root nor in a user namespace): {cause}\n"
        );
        std::io::stderr().write_all(told.as_bytes()).unwrap();
        return;
    }
    let db = cluster.database();
    make_auditor(&cluster);
    let mut readers = Readers::new(&db);
    let mut reader = readers.connect("wait", 400);
    reader.must_get();
    let place = small.to_str().unwrap();
    let mut superuser = db.superuser();
    superuser.batch_execute(&format!("CREATE TABLESPACE small LOCATION '{place}'")).unwrap();
    let partition = partition(&db);
    superuser.batch_execute(&format!("ALTER TABLE {partition} SET TABLESPACE small")).unwrap();
    reader.must_get();
    let shell = |client: &mut Client, command: &str| {
        client.batch_execute(&format!("COPY (SELECT 1) TO PROGRAM '{command}'")).unwrap();
    };
    shell(&mut superuser, &format!("dd if=/dev/zero of={place}/filler bs=1k 2>&- || true"));
    // The last page has room for some more.
    let full = (0..200).any(|_| reader.try_get().is_err());
    assert!(full && cluster.log().contains("No space left on device"));
    reader.must_be_refused();
    others_go_on(&db);
    reader.must_be_refused();
    shell(&mut superuser, &format!("rm {place}/filler"));
    reader.recovers();
    readers.take([reader]);
    readers.are_recorded();
    assert_verified(&db);
}

/// Starts a server that has a file system of two megabytes of its own at `place`, which vanishes
/// with it. Its programs see it, we do not.
fn start_with_small_disk(cluster: &Cluster, place: &std::path::Path) -> Result<(), String> {
    fs::create_dir(place).unwrap();
    let owner = fs::metadata(cluster.data_dir()).unwrap();
    let (uid, gid) = (owner.uid(), owner.gid());
    let mount = "mount -t tmpfs -o size=2m,mode=0700,\"$0\"";
    let place = place.to_str().unwrap();
    let own = fs::metadata("/proc/self").unwrap().uid() == uid;
    let mut start = Command::new("unshare");
    if own {
        // Root in a namespace of ours, to mount; then nobody special in another one, for PostgreSQL.
        let then = format!("exec unshare --user --map-user={uid} --map-group={gid} \"$@\"");
        start.args(["--map-root-user", "--mount", "sh", "-c"]);
        start.arg(format!("{mount} tmpfs {place} && {then}")).arg("uid=0,gid=0");
    } else {
        let then = format!("exec setpriv --reuid={uid} --regid={gid} --clear-groups \"$@\"");
        start.args(["--mount", "sh", "-c"]);
        start.arg(format!("{mount} tmpfs {place} && {then}")).arg(format!("uid={uid},gid={gid}"));
    }
    start.arg(Prefix::get().program("pg_ctl")).args(["start", "-w", "-D"]).arg(cluster.data_dir());
    start.arg("-l").arg(cluster.dir().join("log")).current_dir(cluster.dir());
    let output = start.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output();
    let output = output.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said + &cluster.log()) }
}

// --- a writer that does not write ---------------------------------------------------------------

#[test]
fn stopped_writer_fills_the_ring_and_then_reveals_are_refused() {
    let cluster = own();
    let db = cluster.database();
    let mut readers = Readers::new(&db);
    let mut waiting = readers.connect("wait", 400);
    let mut not_waiting = readers.connect("nowait", 400);
    waiting.must_get();
    not_waiting.must_get();
    let writer = idle_writer(&db);
    signal(writer, "STOP");

    assert_eq!(
        waiting.must_be_refused().detail,
        "The audit writer has not committed the record in time."
    );
    let room = (0..10_000).take_while(|_| not_waiting.try_get().is_ok()).count();
    assert!((1000..10_000).contains(&room), "room for {room} records");
    let refused = not_waiting.must_be_refused();
    assert_eq!(refused.detail, "The queue of audit records is full.");
    waiting.must_be_refused();
    // What only looks is refused too; what changes has its record in its own transaction.
    let list = "SELECT meshhook_secrets.secret_list($1)";
    expect_error(not_waiting.client.query(list, &[&not_waiting.project]), "PT503");
    not_waiting.client.query(PUT, &[&not_waiting.project, &"PUT_MEANWHILE"]).unwrap();
    others_go_on(&db);
    // Failures wait for nobody: there is no room for them, so they are in the server log.
    let asked = Instant::now();
    let stranger = db.user(Uuid::new_v4()).query(GET, &[&waiting.project, &"stranger"]);
    expect_error(stranger, "42501");
    assert!(asked.elapsed() < GRACE, "{:?}", asked.elapsed());
    assert_eq!(logged(&cluster, "stranger"), 1);

    signal(writer, "CONT");
    waiting.recovers();
    not_waiting.recovers();
    let puts = "SELECT count(*) FROM meshhook_secrets.audit_search(name => 'PUT_MEANWHILE')";
    let puts: i64 = db.connect(AUDITOR).query_one(puts, &[]).unwrap().get(0);
    assert_eq!(puts, 1);
    assert_eq!(recorded(&db).get("stranger"), None, "once is enough");
    readers.take([waiting, not_waiting]);
    readers.are_recorded();
    assert_verified(&db);
}

#[test]
fn reveals_are_refused_while_no_worker_can_be_started() {
    // The root key's, the launcher, PostgreSQL's logical replication launcher, and one more; pg_cron, where
    // it is preloaded too, has one of its own.
    let preloads = |name: &str| std::env::var(name).is_ok_and(|list| list.contains("pg_cron"));
    let cron = preloads("TEST_PRELOAD_BEFORE") || preloads("TEST_PRELOAD_AFTER");
    let slots = if cron { "5" } else { "4" };
    let cluster = Cluster::builder().setting("max_worker_processes", slots).start();
    make_auditor(&cluster);
    let (first, second) = (cluster.database(), cluster.database());
    let (mut readers, mut others) = (Readers::new(&first), Readers::new(&second));
    let mut reader = readers.connect("wait", 400);
    reader.recovers();
    let mut other = others.connect("wait", 400);
    // Until the worker of the other database has left.
    eventually("the first one has the worker", || {
        reader.try_get().is_ok() && other.try_get().is_err()
    });
    other.must_be_refused();
    others_go_on(&second);
    reader.must_get();
    let warning = "no background worker slot is free for audit";
    eventually("the log says why", || cluster.log().contains(warning));

    readers.take([reader]);
    end_writer(&first);
    other.recovers();
    others.take([other]);
    others.are_recorded();
    assert_verified(&second);
    end_writer(&second);
    readers.are_recorded();
}

#[test]
fn reveals_are_refused_while_the_launcher_is_away() {
    let cluster = own();
    let db = cluster.database();
    let mut readers = Readers::new(&db);
    // With patience they notice nothing when it is started again.
    let mut patient = readers.connect("wait", 20_000);
    patient.must_get();
    for mode in ["wait", "nowait"] {
        end_writer_of_clients(&db);
        terminate(&cluster, process(&cluster, LAUNCHER, None).unwrap());
        patient = readers.connect(mode, 20_000);
        patient.must_get();
    }
    // Stopped, it starts nobody.
    end_writer_of_clients(&db);
    drop(patient);
    eventually("there is a launcher", || process(&cluster, LAUNCHER, None).is_some());
    let launcher = process(&cluster, LAUNCHER, None).unwrap();
    signal(launcher, "STOP");
    let mut waiting = readers.connect("wait", 400);
    let mut not_waiting = readers.connect("nowait", 400);
    for _ in 0..2 {
        waiting.must_be_refused();
        let refused = not_waiting.must_be_refused();
        assert_eq!(refused.detail, "The audit writer of this database does not run.");
    }
    others_go_on(&db);
    signal(launcher, "CONT");
    waiting.recovers();
    not_waiting.recovers();
    readers.take([waiting, not_waiting]);

    // Killed, it takes the server with it; that starts over.
    let mut witness = cluster.connect("postgres", "postgres");
    signal(process(&cluster, LAUNCHER, None).unwrap(), "KILL");
    eventually("the server noticed the crash", || witness.simple_query("SELECT 1").is_err());
    eventually("the server is back", || cluster.try_connect("postgres", "postgres").is_ok());
    let mut reader = readers.connect("wait", 20_000);
    reader.must_get();
    readers.take([reader]);
    readers.are_recorded();
    assert_verified(&db);
}

// --- a caller who does not want to wait -------------------------------------------------------------

#[test]
fn who_gives_up_waiting_is_let_go_without_the_value() {
    let db = cluster().database();
    let mut readers = Readers::new(&db);
    let mut reader = readers.connect("wait", 20_000);
    reader.must_get();
    let mut superuser = db.superuser();
    superuser.batch_execute("BEGIN; LOCK TABLE meshhook_secrets.audit_head").unwrap();
    let quickly =
        |what: &str, sqlstate: &str, result: Result<_, postgres::Error>, since: Instant| {
            expect_error(result, sqlstate).hides(VALUE);
            assert!(since.elapsed() < 2 * GRACE, "{what}: {:?}", since.elapsed());
        };
    // By its own timeout.
    reader.client.batch_execute("SET statement_timeout = '300ms'").unwrap();
    let asked = Instant::now();
    quickly("timeout", "57014", reader.try_get(), asked);
    reader.client.batch_execute("SET statement_timeout = '60s'").unwrap();
    reader.client.query("SELECT count(*) FROM public.projects", &[]).unwrap();

    // By being cancelled, and by being sent away (which the driver may see as the end of it only).
    for how in ["pg_cancel_backend", "pg_terminate_backend"] {
        let pid = backend_pid(&mut reader.client);
        let db = &db;
        scope(|scope| {
            let striker = scope.spawn(move || {
                let mut superuser = db.superuser();
                let waits = "SELECT count(*) FROM pg_stat_activity
                    WHERE pid = $1 AND wait_event_type = 'Extension'";
                eventually("it waits", || {
                    superuser.query_one(waits, &[&pid]).unwrap().get::<_, i64>(0) == 1
                });
                superuser.query(&format!("SELECT {how}($1)"), &[&pid]).unwrap();
                Instant::now()
            });
            let result = reader.try_get();
            let struck = striker.join().unwrap();
            match result {
                Err(error) if error.is_closed() && how == "pg_terminate_backend" => {}
                result if how == "pg_terminate_backend" => quickly(how, "57P01", result, struck),
                result => quickly(how, "57014", result, struck),
            }
        });
    }
    assert_eq!(reader.given.len(), 1);
    superuser.batch_execute("ROLLBACK").unwrap();
    readers.take([reader]);
    let mut reader = readers.connect("wait", 5000);
    reader.recovers();
    readers.take([reader]);
    readers.are_recorded();
    assert_verified(&db);
}

// --- stops of the server --------------------------------------------------------------------------------

#[test]
fn stops_lose_nothing_that_is_in_the_ring() {
    let cluster = own();
    let db = cluster.database();
    let mut readers = Readers::new(&db);
    for how in ["fast", "smart"] {
        let mut reader = readers.connect("nowait", 5000);
        reader.must_get();
        let writer = idle_writer(&db);
        // So that the stop finds them there.
        signal(writer, "STOP");
        (0..500).for_each(|_| reader.must_get());
        let mut stop = cluster.command("pg_ctl");
        stop.args(["stop", "-w", "-t", "60", "-m", how, "-D"]).arg(cluster.data_dir());
        let stop = scope(|scope| {
            let stop = scope.spawn(move || run(&mut stop));
            match how {
                "fast" => eventually("the client is sent away", || {
                    reader.client.simple_query("SELECT 1").is_err()
                }),
                _ => eventually("nobody is let in any more", || {
                    cluster.try_connect(db.name(), "authenticator").is_err()
                }),
            }
            readers.take([reader]);
            signal(writer, "CONT");
            stop.join()
        });
        stop.unwrap();
        cluster.start();
        readers.are_recorded();
        assert_verified(&db);
    }

    // Repeats of a denial are recorded as well, though their minute is not over.
    for lingers in [true, false] {
        let stranger = Uuid::new_v4();
        let tag = format!("denied {lingers}");
        for _ in 0..3 {
            expect_error(db.user(stranger).query(GET, &[&readers.project, &tag]), "42501");
        }
        if !lingers {
            end_writer(&db);
        }
        cluster.restart();
        assert_eq!(recorded(&db).get(&tag), Some(&3), "writer lingers: {lingers}");
    }

    // An immediate stop may lose what nobody waited for, and nothing else.
    let mut waiting = readers.connect("wait", 5000);
    (0..20).for_each(|_| waiting.must_get());
    let mut not_waiting = readers.connect("nowait", 5000);
    let writer = idle_writer(&db);
    signal(writer, "STOP");
    (0..100).for_each(|_| not_waiting.must_get());
    scope(|scope| {
        let stop = scope.spawn(|| cluster.stop(Shutdown::Immediate));
        eventually("the client is sent away", || {
            not_waiting.client.simple_query("SELECT 1").is_err()
        });
        signal(writer, "CONT");
        stop.join().unwrap();
    });
    cluster.start();
    let recorded = recorded(&db);
    let times = |tag| recorded.get(tag).copied().unwrap_or(0);
    assert!(not_waiting.given.iter().all(|tag| times(tag) <= 1), "doubled");
    readers.take([waiting]);
    readers.are_recorded();
    assert_verified(&db);
}

#[test]
fn what_a_stop_cannot_write_to_the_table_is_in_the_server_log() {
    let cluster = own();
    let db = cluster.database();
    let mut readers = Readers::new(&db);
    readers.connect("wait", 5000).must_get(); // so that there is a partition
    let mut reader = readers.connect("nowait", 5000);
    let break_it =
        format!("ALTER TABLE {} ADD CONSTRAINT never CHECK (false) NOT VALID", partition(&db));
    db.superuser().batch_execute(&break_it).unwrap();
    (0..5).for_each(|_| reader.must_get());
    cluster.restart();
    let repair = format!("ALTER TABLE {} DROP CONSTRAINT never", partition(&db));
    db.superuser().batch_execute(&repair).unwrap();
    let recorded = recorded(&db);
    for tag in &reader.given {
        let times = recorded.get(tag).copied().unwrap_or(0) + logged(&cluster, tag);
        assert_eq!(times, 1, "{tag} is in the table or in the server log");
    }
    assert_verified(&db);
}

#[test]
fn reveals_are_flushed_though_the_writer_is_told_not_to() {
    // So that nobody else flushes meanwhile.
    let cluster = Cluster::builder()
        .setting("wal_writer_delay", "10s")
        .setting("wal_writer_flush_after", "1GB")
        .start();
    make_auditor(&cluster);
    let db = cluster.database();
    let mut readers = Readers::new(&db);
    for round in 0..3 {
        let mut reader = readers.connect("wait", 20_000);
        reader.must_get();
        let mut superuser = db.superuser();
        for value in ["on", "off"] {
            let set = format!("ALTER SYSTEM SET synchronous_commit = {value}");
            superuser.batch_execute(&set).unwrap();
            cluster.reload();
            eventually("the setting is read again", || {
                let show = "SHOW synchronous_commit";
                superuser.query_one(show, &[]).unwrap().get::<_, &str>(0) == value
            });
        }
        // The writer, which lingers, reads it at its next look.
        let writer = idle_writer(&db);
        sleep(Duration::from_millis(500));
        assert_eq!(idle_writer(&db), writer, "round {round}: the same writer");
        (0..1 + 4 * round).for_each(|_| reader.must_get());
        cluster.stop(Shutdown::Immediate);
        cluster.start();
        readers.take([reader]);
        readers.are_recorded();
    }
    assert_verified(&db);
}

#[test]
fn a_synchronous_standby_that_is_away_keeps_nobody_but_reveals_waiting() {
    const SECONDS: Duration = Duration::from_secs(10);
    let cluster = own();
    let (db, doomed) = (cluster.database(), cluster.database());
    let (mut readers, mut others) = (Readers::new(&db), Readers::new(&doomed));
    let mut reader = readers.connect("wait", 400);
    let mut other = others.connect("wait", 400);
    reader.recovers();
    other.recovers();
    // Nobody else waits: PostgreSQL has whoever drops a database wait for those.
    eventually("the writer has left", || process(&cluster, WRITER, Some(db.name())).is_none());
    let set_standbys = |names: &str| {
        let mut admin = cluster.connect("postgres", "postgres");
        admin.batch_execute("SET synchronous_commit = local").unwrap();
        let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
        admin.batch_execute(&set).unwrap();
        cluster.reload();
        admin
    };
    let mut admin = set_standbys("nobody");
    let is_refused = |reader: &mut Reader| {
        eventually("commits wait for the standby", || reader.try_get().is_err());
        reader.must_be_refused();
        reader.must_be_refused();
    };
    is_refused(&mut other);
    let asked = Instant::now();
    admin.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", doomed.name())).unwrap();
    assert!(asked.elapsed() < SECONDS, "dropped after {:?}", asked.elapsed());

    // Something is to be written while it stops.
    is_refused(&mut reader);
    let asked = Instant::now();
    cluster.stop(Shutdown::Fast);
    assert!(asked.elapsed() < SECONDS, "stopped after {:?}", asked.elapsed());
    cluster.start();
    set_standbys("");
    readers.take([reader]);
    let mut reader = readers.connect("wait", 400);
    reader.recovers();
    readers.take([reader]);
    readers.are_recorded();
    assert_verified(&db);
}

// --- databases that come and go -------------------------------------------------------------------------

#[test]
fn lingering_writer_keeps_nobody_from_dropping_or_copying_its_database() {
    let cluster = own();
    let mut admin = cluster.connect("postgres", "postgres");
    let seed = |db: &Database<'_>| {
        let mut readers = Readers::new(db);
        let mut reader = readers.connect("wait", 5000);
        reader.must_get();
        readers.take([reader]);
        assert!(process(&cluster, WRITER, Some(db.name())).is_some(), "the writer lingers");
        (readers.alice, readers.project)
    };
    for statement in ["DROP DATABASE", "DROP DATABASE", "ALTER DATABASE"] {
        let db = cluster.database();
        seed(&db);
        let rest = if statement == "ALTER DATABASE" { "RENAME TO renamed" } else { "" };
        admin.batch_execute(&format!("{statement} {} {rest}", db.name())).unwrap();
    }
    let db = cluster.database();
    seed(&db);
    admin.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", db.name())).unwrap();

    // A copy has its log, which goes on by itself.
    let db = cluster.database();
    let (alice, project) = seed(&db);
    admin.batch_execute(&format!("CREATE DATABASE copied TEMPLATE {}", db.name())).unwrap();
    for name in [db.name(), "copied"] {
        let mut client = cluster.connect(name, "postgres");
        client.query(GET, &[&project, &name]).unwrap();
        let mut auditor = cluster.connect(name, AUDITOR);
        let found = "SELECT purpose FROM meshhook_secrets.audit_search(action => 'secret_get')";
        let rows = auditor.query(found, &[]).unwrap();
        let purposes: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(purposes.len(), 2, "{purposes:?}: its own, and the one of before");
        assert_eq!(purposes[0], name);
        let verified = "SELECT ok, problems FROM meshhook_secrets.audit_verify()";
        let row = auditor.query_one(verified, &[]).unwrap();
        assert!(row.get::<_, bool>(0), "{name}: {:?}", row.get::<_, Vec<String>>(1));
    }
    assert_ne!(alice, project);
}

#[test]
fn more_databases_than_queues_are_refused_at_worst() {
    const QUEUES: usize = 32;
    const DATABASES: usize = 34;
    let cluster = own();
    let db = cluster.database();
    db.superuser()
        .batch_execute(&format!(
            "ALTER DATABASE {} SET meshhook_secrets.audit_timeout = '400ms'",
            db.name()
        ))
        .unwrap();
    let project = Readers::new(&db).project;
    let mut admin = cluster.connect("postgres", "postgres");
    let mut make = |name: &str| {
        let make = format!(
            "CREATE DATABASE {name} TEMPLATE {};
             ALTER DATABASE {name} SET meshhook_secrets.audit_timeout = '1s'",
            db.name()
        );
        make.split(';').for_each(|statement| admin.batch_execute(statement).unwrap());
    };
    let names: Vec<String> = (0..DATABASES).map(|number| format!("many_{number}")).collect();
    names.iter().for_each(|name| make(name));
    let get = |name: &String| {
        let mut client = cluster.connect(name, "postgres");
        let asked = Instant::now();
        let result = client.query_one(GET, &[&project, name]);
        assert!(asked.elapsed() < Duration::from_secs(1) + GRACE, "{:?}", asked.elapsed());
        match result {
            Ok(row) => {
                assert_eq!(row.get::<_, &str>(0), VALUE);
                true
            }
            Err(error) => {
                expect_error::<()>(Err(error), "PT503").hides(VALUE);
                client.query("SELECT count(*) FROM public.projects", &[]).unwrap();
                false
            }
        }
    };
    let all_at_once = || -> Vec<&String> {
        scope(|scope| {
            let ask = |name| scope.spawn(move || (name, get(name)));
            let all: Vec<_> = names.iter().map(ask).collect();
            let all = all.into_iter().map(|it| it.join().unwrap());
            all.filter(|(_, given)| !given).map(|(name, _)| name).collect()
        })
    };
    // Not all workers are there at once.
    all_at_once();
    let refused = all_at_once();
    assert!(refused.len() <= DATABASES - QUEUES, "{refused:?}");
    // Those that found no room find it when others have left theirs.
    eventually("each gets its turn", || refused.iter().all(|name| get(name)));

    // The queues of databases that are gone are free again, whatever was in them.
    scope(|scope| {
        for name in &names {
            let cluster = &cluster;
            scope.spawn(move || {
                let drop = format!("DROP DATABASE {name} WITH (FORCE)");
                cluster.connect("postgres", "postgres").batch_execute(&drop).unwrap();
            });
        }
    });
    for number in 0..4 {
        let name = format!("later_{number}");
        make(&name);
        assert!(get(&name), "{name}");
    }
}

#[test]
fn strangers_errors_take_no_queue_from_a_database_that_needs_one() {
    const DATABASES: usize = 36; // more than queues
    let cluster = own();
    let (idle, unused) = (cluster.database(), cluster.database());
    let mut idle_readers = Readers::new(&idle);
    let mut unused_readers = Readers::new(&unused);
    let mut reader = idle_readers.connect("wait", 5000);
    reader.must_get();
    idle_readers.take([reader]);
    end_writer_of_clients(&idle);
    end_writer_of_clients(&unused);
    let mut admin = cluster.connect("postgres", "postgres");
    admin.batch_execute("CREATE ROLE mallory LOGIN").unwrap();
    for number in 0..DATABASES {
        let name = format!("strange_{number}");
        admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).unwrap();
        let mut stranger = cluster.connect(&name, "mallory");
        stranger
            .batch_execute(
                "CREATE FUNCTION pg_temp.secret_get() RETURNS int LANGUAGE sql AS 'SELECT 1';
                 REVOKE ALL ON FUNCTION pg_temp.secret_get() FROM PUBLIC, mallory",
            )
            .unwrap();
        for _ in 0..3 {
            let refused = stranger.query("SELECT pg_temp.secret_get()", &[]);
            expect_error(refused, "42501").message("permission denied for function secret_get");
        }
    }
    for readers in [&mut idle_readers, &mut unused_readers] {
        let mut reader = readers.connect("wait", 5000);
        (0..3).for_each(|_| reader.must_get());
        readers.take([reader]);
        readers.are_recorded();
        assert_verified(readers.db);
    }
}

// --- the extension under a running writer -----------------------------------------------------------------

#[test]
fn extension_is_dropped_and_made_again_under_a_running_writer() {
    let cluster = own();
    let db = cluster.database();
    let drop = "DROP EXTENSION meshhook_secrets CASCADE";
    let create = "CREATE EXTENSION meshhook_secrets";
    // In two transactions, and in one, in which the writer never sees it gone.
    for statements in [vec![drop, create], vec!["BEGIN", drop, create, "COMMIT"]] {
        let mut readers = Readers::new(&db);
        let mut reader = readers.connect("wait", 20_000);
        reader.must_get();
        readers.take([reader]);
        readers.are_recorded();
        let writer = process(&cluster, WRITER, Some(db.name()));
        assert!(writer.is_some(), "a writer is there");
        let mut superuser = db.superuser();
        let asked = Instant::now();
        // Nothing that it could be updated to, but the writer is in nobody's way.
        superuser.batch_execute("ALTER EXTENSION meshhook_secrets UPDATE").unwrap();
        for statement in statements {
            superuser.batch_execute(statement).unwrap();
        }
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        let attach = "SELECT meshhook_secrets.attach_projects('public.projects',
                member_function => 'public.user_project_ids()');
            SELECT meshhook_secrets.setup_supabase(users_may_reveal => true)";
        superuser.batch_execute(attach).unwrap();
        let mut readers = Readers::new(&db);
        let mut reader = readers.connect("wait", 20_000);
        reader.must_get();
        readers.take([reader]);
        readers.are_recorded();
        assert_verified(&db);
    }
}

// --- what the writer does by itself -----------------------------------------------------------------------

#[test]
fn what_another_session_commits_is_sealed_without_being_asked_for() {
    let cluster = Cluster::builder().setting("max_prepared_transactions", "5").start();
    make_auditor(&cluster);
    let db = cluster.database();
    let mut readers = Readers::new(&db);
    let mut reader = readers.connect("wait", 5000);
    reader.must_get();
    let mut superuser = db.superuser();
    let pending = "SELECT count(*) FROM meshhook_secrets.audit_pending";
    for (round, writer_lingers) in [true, false, true].into_iter().enumerate() {
        let name = format!("PREPARED_{round}");
        reader.client.batch_execute("BEGIN").unwrap();
        reader.client.query(PUT, &[&reader.project, &name]).unwrap();
        reader.client.batch_execute(&format!("PREPARE TRANSACTION '{name}'")).unwrap();
        // Whoever was told of it has seen that there is nothing.
        reader.must_get();
        idle_writer(&db);
        if !writer_lingers {
            let writer = || process(&cluster, WRITER, Some(db.name()));
            eventually("the writer has left", || writer().is_none());
        }
        superuser.batch_execute(&format!("COMMIT PREPARED '{name}'")).unwrap();
        reader.must_get();
        let committed = Instant::now();
        eventually("it is sealed", || {
            superuser.query_one(pending, &[]).unwrap().get::<_, i64>(0) == 0
        });
        let took = committed.elapsed();
        assert!(took < Duration::from_secs(1) + GRACE, "{name} is sealed after {took:?}");
        let sealed = "SELECT count(*) FROM meshhook_secrets.audit_log WHERE name = $1";
        let sealed: i64 = superuser.query_one(sealed, &[&name]).unwrap().get(0);
        assert_eq!(sealed, 1, "{name}");
    }
    readers.take([reader]);
    readers.are_recorded();
    assert_verified(&db);
}

#[test]
fn seals_that_the_server_log_tells_of_are_in_the_table() {
    let cluster = own();
    let databases = [cluster.database(), cluster.database()];
    let mut readers = databases.each_ref().map(Readers::new);
    // Each database tells of the first one after a start.
    for start in 1..=2 {
        for readers in &mut readers {
            let mut reader = readers.connect("wait", 5000);
            reader.recovers();
            readers.take([reader]);
        }
        for db in &databases {
            eventually("the log tells of it", || seals_told(&cluster, db.name()).len() == start);
        }
        cluster.restart();
    }
    for db in &databases {
        for (seal_id, mac) in seals_told(&cluster, db.name()) {
            let find = "SELECT count(*) FROM meshhook_secrets.audit_seals
                WHERE seal_id = $1 AND encode(mac, 'hex') = $2";
            let found = db.superuser().query_one(find, &[&seal_id, &mac]).unwrap();
            assert_eq!(found.get::<_, i64>(0), 1, "seal {seal_id}");
        }
    }
    databases.iter().for_each(assert_verified);
}

// --- standby --------------------------------------------------------------------------------------------------

#[test]
fn standby_logs_what_it_reveals_and_records_once_promoted() {
    let primary = own();
    let db = primary.database();
    let mut readers = Readers::new(&db);
    let mut reader = readers.connect("wait", 5000);
    reader.must_get();
    let standby =
        Cluster::builder().standby_of(&primary).root_key(RootKey::File(KEY_A.into())).start();
    reader.must_get();
    let project = readers.project;
    let mut there = standby.connect(db.name(), "postgres");
    let same = "SELECT count(*) FROM meshhook_secrets.audit_log";
    let here: i64 = db.superuser().query_one(same, &[]).unwrap().get(0);
    eventually("the standby has the log", || {
        there.query_one(same, &[]).unwrap().get::<_, i64>(0) >= here
    });
    // The record is in the server log before the value comes.
    for tag in ["standby one", "standby two"] {
        let row = there.query_one(GET, &[&project, &tag]).unwrap();
        assert_eq!(logged(&standby, tag), 1, "{tag}");
        assert_eq!(row.get::<_, &str>(0), VALUE);
    }
    let many = "SELECT value FROM meshhook_secrets.secret_get_many($1, purpose => 'standby many')";
    assert_eq!(there.query(many, &[&project]).unwrap().len(), 1);
    assert_eq!(logged(&standby, "standby many"), 1);
    let refused = there.query_one(GET, &[&Uuid::new_v4(), &"standby refused"]);
    assert!(refused.is_err());
    assert_eq!(logged(&standby, "standby refused"), 1);
    // Where it cannot be logged it is refused.
    there.batch_execute("SET log_min_messages = 'fatal'").unwrap();
    let refused = there.query_one(GET, &[&project, &"standby unlogged"]);
    expect_error(refused, "PT503").detail("log_min_messages").hides(VALUE);
    assert_eq!(logged(&standby, "standby unlogged"), 0);
    there.batch_execute("SET log_min_messages = 'log'").unwrap();
    there.query_one(GET, &[&project, &"standby three"]).unwrap();
    assert_eq!(logged(&standby, "standby three"), 1);
    // It can be read and checked there.
    let mut auditor = standby.connect(db.name(), AUDITOR);
    let verify = "SELECT ok, last_seal, problems FROM meshhook_secrets.audit_verify()";
    let row = auditor.query_one(verify, &[]).unwrap();
    assert!(row.get::<_, bool>(0), "{:?}", row.get::<_, Vec<String>>(2));
    let before: i64 = row.get(1);

    standby.promote();
    eventually("it writes its own records", || {
        there.query_one(GET, &[&project, &"promoted"]).is_ok() && {
            let found = "SELECT count(*) FROM meshhook_secrets.audit_search()
                WHERE purpose = 'promoted' AND id IS NOT NULL";
            auditor.query_one(found, &[]).unwrap().get::<_, i64>(0) > 0
        }
    });
    let row = auditor.query_one(verify, &[]).unwrap();
    assert!(row.get::<_, bool>(0), "{:?}", row.get::<_, Vec<String>>(2));
    assert!(row.get::<_, i64>(1) > before, "the chain went on");
    let old = "SELECT purpose FROM meshhook_secrets.audit_search(action => 'secret_get')";
    let purposes: Vec<Option<String>> =
        auditor.query(old, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    for tag in &reader.given {
        let times = purposes.iter().filter(|it| it.as_ref() == Some(tag)).count();
        assert_eq!(times, 1, "{tag}, from before the promotion");
    }
    assert!(!purposes.iter().flatten().any(|purpose| purpose.starts_with("standby")));
}

// --- who reads, and what the log must say about it --------------------------------------------------------------

/// A project with one secret, and everybody who reads it.
struct Readers<'d> {
    db: &'d Database<'d>,
    alice: Uuid,
    project: Uuid,
    connected: usize,
    /// Tags of reveals that came, and of those that did not.
    given: Vec<String>,
    refused: Vec<String>,
}

/// A client; each of its calls has a tag of its own.
struct Reader {
    client: Client,
    project: Uuid,
    name: String,
    timeout: Duration,
    given: Vec<String>,
    refused: Vec<String>,
}

impl<'d> Readers<'d> {
    fn new(db: &'d Database<'d>) -> Self {
        let alice = Uuid::new_v4();
        let project = db.project(alice);
        let put = "SELECT meshhook_secrets.secret_put($1, 'TOKEN', $2)";
        db.user(alice).query(put, &[&project, &VALUE]).unwrap();
        Self { db, alice, project, connected: 0, given: Vec::new(), refused: Vec::new() }
    }

    /// Another client, with these settings, in milliseconds.
    fn connect(&mut self, mode: &str, timeout: u64) -> Reader {
        let set = format!(
            "ALTER DATABASE {db} SET meshhook_secrets.audit_mode = '{mode}';
             ALTER DATABASE {db} SET meshhook_secrets.audit_timeout = {timeout}",
            db = self.db.name()
        );
        self.db.superuser().batch_execute(&set).unwrap();
        self.connected += 1;
        Reader {
            client: self.db.user(self.alice),
            project: self.project,
            name: format!("{mode}-{}-{}", self.project.simple(), self.connected),
            timeout: Duration::from_millis(timeout),
            given: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Takes over what they noted; they leave.
    fn take<const N: usize>(&mut self, readers: [Reader; N]) {
        for reader in readers {
            self.given.extend(reader.given);
            self.refused.extend(reader.refused);
        }
    }

    /// What was given is recorded once. What was not may be: it was in the ring already.
    fn are_recorded(&self) {
        assert!(!self.given.is_empty());
        let recorded = recorded(self.db);
        for tag in &self.given {
            assert_eq!(recorded.get(tag), Some(&1), "{tag} was revealed");
        }
        for tag in &self.refused {
            let times = recorded.get(tag).copied().unwrap_or(0);
            assert!(times <= 1, "{tag} is recorded {times} times");
        }
    }
}

impl Reader {
    fn try_get(&mut self) -> Result<(), postgres::Error> {
        let tag = format!("{}-{}", self.name, self.given.len() + self.refused.len());
        match self.client.query_one(GET, &[&self.project, &tag]) {
            Ok(row) => {
                assert_eq!(row.get::<_, &str>(0), VALUE);
                self.given.push(tag);
                Ok(())
            }
            Err(error) => {
                self.refused.push(tag);
                Err(error)
            }
        }
    }

    #[track_caller]
    fn must_get(&mut self) {
        if let Err(error) = self.try_get() {
            panic!("{}: {error:?}", self.name);
        }
    }

    /// With PT503, not before its time and not long after.
    #[track_caller]
    fn must_be_refused(&mut self) -> Failure {
        let asked = Instant::now();
        let failure = expect_error(self.try_get(), "PT503").message("audit record").hides(VALUE);
        let took = asked.elapsed();
        assert!(self.timeout <= took && took < self.timeout + GRACE, "{took:?}: {failure:?}");
        failure
    }

    /// By itself, in a while.
    #[track_caller]
    fn recovers(&mut self) {
        eventually("reveals work again", || match self.try_get() {
            Ok(()) => true,
            Err(error) => {
                expect_error::<()>(Err(error), "PT503");
                false
            }
        });
        self.must_get();
    }
}

/// Statements that are none of ours do not wait for anybody.
#[track_caller]
fn others_go_on(db: &Database<'_>) {
    let asked = Instant::now();
    let mut client = db.superuser();
    client
        .batch_execute(
            "BEGIN; INSERT INTO public.projects (owner) VALUES (gen_random_uuid());
             UPDATE public.projects SET name = 'other'; COMMIT; SELECT * FROM public.projects",
        )
        .unwrap();
    assert!(asked.elapsed() < GRACE, "{:?}", asked.elapsed());
}

/// How often each purpose is in the log of the database, once all of it is sealed.
fn recorded(db: &Database<'_>) -> BTreeMap<String, i64> {
    let mut auditor = db.connect(AUDITOR);
    let waits = "SELECT count(*) FROM meshhook_secrets.audit_search() WHERE id IS NULL";
    eventually("all is sealed", || auditor.query_one(waits, &[]).unwrap().get::<_, i64>(0) == 0);
    let page = "SELECT id, purpose, times FROM meshhook_secrets.audit_search(after => $1, page_size => 1000)";
    let mut found = BTreeMap::new();
    let mut after: Option<i64> = Some(i64::MAX);
    loop {
        let rows = auditor.query(page, &[&after]).unwrap();
        for row in &rows {
            after = row.get(0);
            if let Some(purpose) = row.get::<_, Option<String>>(1) {
                *found.entry(purpose).or_default() += i64::from(row.get::<_, i32>(2));
            }
        }
        if rows.len() < 1000 {
            return found;
        }
    }
}

/// How often a purpose is in the server log.
fn logged(cluster: &Cluster, purpose: &str) -> i64 {
    let log = cluster.log();
    let records = log.lines().filter_map(|line| line.split_once("meshhook_secrets audit: "));
    let records = records.filter_map(|(_, json)| serde_json::from_str::<Value>(json).ok());
    let records = records.filter(|record| record["purpose"] == purpose);
    records.map(|record| record["times"].as_i64().unwrap_or(1)).sum()
}

/// The seals, with their MACs, that are in the server log.
fn seals_told(cluster: &Cluster, database: &str) -> Vec<(i64, String)> {
    let log = cluster.log();
    let seals = log.lines().filter_map(|line| line.split_once("meshhook_secrets audit seal: "));
    let seals = seals.map(|(_, json)| serde_json::from_str::<Value>(json).unwrap());
    let seals = seals.filter(|seal| seal["database"] == database);
    let text = |mac: &Value| mac.as_str().unwrap().to_owned();
    seals.map(|seal| (seal["seal_id"].as_i64().unwrap(), text(&seal["mac"]))).collect()
}

fn verification(db: &Database<'_>) -> (bool, Vec<String>) {
    let verify = "SELECT ok, problems FROM meshhook_secrets.audit_verify()";
    let row = db.connect(AUDITOR).query_one(verify, &[]).unwrap();
    (row.get(0), row.get(1))
}

#[track_caller]
fn assert_verified(db: &Database<'_>) {
    let (ok, problems) = verification(db);
    assert!(ok && problems.is_empty(), "{problems:?}");
}

/// The partition of this month, which is there.
fn partition(db: &Database<'_>) -> String {
    let name = "SELECT to_char(now() AT TIME ZONE 'UTC', '\"meshhook_secrets.audit_log_\"YYYY_MM')";
    db.superuser().query_one(name, &[]).unwrap().get(0)
}

// --- servers and their processes -----------------------------------------------------------------------------------

/// The server for faults of single databases.
fn cluster() -> &'static Cluster {
    static CLUSTER: LazyLock<Cluster> = LazyLock::new(own);
    &CLUSTER
}

fn own() -> Cluster {
    let cluster = Cluster::builder().start();
    make_auditor(&cluster);
    cluster
}

fn make_auditor(cluster: &Cluster) {
    // Its role is made by the extension.
    drop(cluster.database());
    let make = format!(
        "CREATE ROLE {AUDITOR} LOGIN BYPASSRLS; GRANT meshhook_secrets_auditor TO {AUDITOR}"
    );
    cluster.connect("postgres", "postgres").batch_execute(&make).unwrap();
}

/// The process of this kind, of a database or of none.
fn process(cluster: &Cluster, kind: &str, database: Option<&str>) -> Option<i32> {
    let find = "SELECT pid FROM pg_stat_activity
        WHERE backend_type = $1 AND datname IS NOT DISTINCT FROM $2";
    let mut admin = cluster.connect("postgres", "postgres");
    admin.query_opt(find, &[&kind, &database]).unwrap().map(|row| row.get(0))
}

/// The database's writer, once it sleeps.
fn idle_writer(db: &Database<'_>) -> i32 {
    let idle = "SELECT pid FROM pg_stat_activity WHERE backend_type = $1 AND datname = $2
        AND wait_event = 'Extension'";
    let mut superuser = db.superuser();
    let mut found = None;
    eventually("the writer sleeps", || {
        let row = superuser.query_opt(idle, &[&WRITER, &db.name()]).unwrap();
        found = row.map(|row| row.get(0));
        found.is_some()
    });
    found.unwrap()
}

fn terminate(cluster: &Cluster, pid: i32) {
    let mut admin = cluster.connect("postgres", "postgres");
    admin.query("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    let gone = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
    eventually("it has ended", || admin.query_one(gone, &[&pid]).unwrap().get::<_, i64>(0) == 0);
}

/// Sends the writer of a database away in which nobody is left.
fn end_writer(db: &Database<'_>) {
    if let Some(pid) = process(db.cluster(), WRITER, Some(db.name())) {
        terminate(db.cluster(), pid);
    }
}

/// Sends the clients of a database away, and then its writer.
fn end_writer_of_clients(db: &Database<'_>) {
    let clients = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = $1 AND backend_type = 'client backend'";
    let mut admin = db.cluster().connect("postgres", "postgres");
    admin.query(clients, &[&db.name()]).unwrap();
    end_writer(db);
}
