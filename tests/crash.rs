//! A crash at any moment loses nothing that was acknowledged and tears nothing in
//! two; keys survive the restart after it; and the core file that it may leave
//! behind holds no key.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use meshhook_secrets_core::dek_status::DekStatus;
use meshhook_secrets_core::identity::{DekIdentity, KekIdentity};
use meshhook_secrets_core::kek_status::KekStatus;
use meshhook_secrets_core::key::{Dek, Kek};
use meshhook_secrets_core::root_key;
use postgres::Client;
use support::{
    Cluster, ClusterBuilder, Database, KEY_A, KEY_B, RootKey, Shutdown, backend_pid, eventually,
    server_process, signal,
};
use uuid::Uuid;

const PUT: &str = "SELECT version FROM meshhook_secrets.secret_put($1, $2, $3)";
const GET: &str = "SELECT meshhook_secrets.secret_get($1, $2)";
const WRITERS: usize = 4;

// --- nothing is lost, nothing is torn -----------------------------------------------------

#[test]
fn killed_backend_loses_no_acknowledged_put_and_tears_no_secret() {
    let cluster = Cluster::builder().start();
    let db = cluster.database();
    let mut ledger = Ledger::new(&db);
    for round in 0..3 {
        ledger.write_until(Duration::from_millis(300 + 70 * round), |victims| {
            crash(&cluster, victims[round as usize % WRITERS]);
        });
        ledger.check();
    }
}

#[test]
fn immediate_stop_loses_no_acknowledged_put_and_tears_no_secret() {
    let cluster = Cluster::builder().start();
    let db = cluster.database();
    let mut ledger = Ledger::new(&db);
    for round in 0..2 {
        let moment = Duration::from_millis(300 + 110 * round);
        ledger.write_until(moment, |_| cluster.stop(Shutdown::Immediate));
        cluster.start();
        ledger.check();
    }
}

#[test]
fn backend_killed_while_it_makes_the_first_keys_leaves_a_whole_database() {
    let cluster = Cluster::builder().start();
    for delay in [0, 2, 5, 10] {
        let db = cluster.database();
        let alice = Uuid::new_v4();
        let project = db.project(alice);
        let mut member = db.user(alice);
        let pid = backend_pid(&mut member);
        scope(|scope| {
            scope.spawn(|| {
                let mut transaction = member.transaction().unwrap();
                let value = "never acknowledged";
                let _ = transaction.query(PUT, &[&project, &"TOKEN", &value]);
                while transaction.simple_query("SELECT 1").is_ok() {
                    sleep(Duration::from_millis(5));
                }
            });
            sleep(Duration::from_millis(delay));
            crash(&cluster, pid);
        });
        let mut superuser = db.superuser();
        for table in ["kek_storage", "data_keys", "project_secrets", "secret_versions"] {
            let count = format!("SELECT count(*) FROM meshhook_secrets.{table}");
            let count: i64 = superuser.query_one(&count, &[]).unwrap().get(0);
            assert_eq!(count, 0, "rows of an uncommitted put in {table}");
        }
        let mut member = db.user(alice);
        assert_eq!(put(&mut member, project, "TOKEN", "value").unwrap(), 1);
        assert_eq!(get(&mut member, project, "TOKEN"), "value");
    }
}

#[test]
fn keys_survive_the_restart_after_a_crash_even_if_their_source_is_gone() {
    let cluster = Cluster::builder().root_key(RootKey::Command(format!("echo {KEY_A}"))).start();
    let db = cluster.database();
    let (alice, project) = owner(&db);
    let mut member = db.user(alice);
    put(&mut member, project, "TOKEN", "value").unwrap();

    cluster.set("meshhook_secrets.root_key_command", "sleep 2; exit 1");
    crash(&cluster, backend_pid(&mut member));
    let asked = Instant::now();
    let mut member = db.user(alice);
    assert_eq!(get(&mut member, project, "TOKEN"), "value");
    assert!(asked.elapsed() < Duration::from_millis(1500), "waited {:?}", asked.elapsed());
    put(&mut member, project, "OTHER", "written after the crash").unwrap();
    // Nor does the worker take them away when it finds the source gone.
    sleep(Duration::from_secs(4));
    assert_eq!(get(&mut member, project, "TOKEN"), "value");
    assert_eq!(get(&mut member, project, "OTHER"), "written after the crash");

    // A stop is another matter: then keys are fetched anew.
    cluster.restart();
    support::expect_error(db.user(alice).query(GET, &[&project, &"TOKEN"]), "PT503")
        .detail("exit status: 1");
}

// --- core files -----------------------------------------------------------------------------

#[test]
fn core_of_a_backend_that_made_and_used_keys_holds_none() {
    let cluster = small().root_key(RootKey::File(format!("{KEY_A}\n{KEY_B}"))).start();
    let db = cluster.database();
    let (alice, project) = owner(&db);
    // This one makes the first KEK and the project's data key itself.
    let mut maker = db.user(alice);
    for version in 1..=5 {
        put(&mut maker, project, "TOKEN", &format!("value {version}")).unwrap();
        assert_eq!(get(&mut maker, project, "TOKEN"), format!("value {version}"));
    }
    let secrets = secrets_of(&db);
    assert_eq!(secrets.iter().filter(|secret| secret.what.starts_with("KEK")).count(), 1);
    examine(&cluster, &mut maker, &secrets);

    // This one finds the KEK in memory.
    let mut user = db.user(alice);
    for _ in 0..5 {
        get(&mut user, project, "TOKEN");
    }
    put(&mut user, project, "TOKEN", "another").unwrap();
    examine(&cluster, &mut user, &secrets);

    // This one unwraps the KEK with the root key, and wraps data keys anew.
    cluster.restart();
    let mut unwrapper = db.user(alice);
    assert_eq!(get(&mut unwrapper, project, "TOKEN"), "another");
    examine(&cluster, &mut unwrapper, &secrets);
    let mut keeper = db.superuser();
    for call in ["seal", "unseal"] {
        keeper.query(&format!("SELECT meshhook_secrets.{call}($1)"), &[&project]).unwrap();
    }
    examine(&cluster, &mut keeper, &secrets_of(&db));
}

#[test]
fn core_of_the_root_key_worker_holds_no_key() {
    for source in ["file", "command"] {
        let source = match source {
            "file" => RootKey::File(KEY_A.into()),
            // The command itself is a setting, which any process may hold.
            _ => RootKey::Command("cat ../printed.key".into()),
        };
        let cluster = small().root_key(source).create();
        fs::write(cluster.dir().join("printed.key"), KEY_A).unwrap();
        cluster.start();
        let db = cluster.database();
        let (alice, project) = owner(&db);
        put(&mut db.user(alice), project, "TOKEN", "value").unwrap();
        // Once more, by reload and by unseal().
        cluster.reload();
        db.superuser().query("SELECT meshhook_secrets.unseal()", &[]).unwrap();
        assert_eq!(get(&mut db.user(alice), project, "TOKEN"), "value");

        let worker = worker(&cluster);
        let core = core_of(&cluster, worker);
        assert!(contains(&core, b"meshhook_secrets root key"), "the core shows the process title");
        assert_holds_none(&core, &secrets_of(&db), "worker");
    }
}

#[test]
fn core_of_the_postmaster_holds_no_key() {
    let cluster = small().start();
    let db = cluster.database();
    let (alice, project) = owner(&db);
    put(&mut db.user(alice), project, "TOKEN", "value").unwrap();
    let core = core_of(&cluster, cluster.postmaster_pid());
    assert!(contains(&core, b"shared_preload_libraries"), "the core shows the settings");
    assert_holds_none(&core, &secrets_of(&db), "postmaster");
}

#[test]
fn environment_and_activity_of_processes_hold_no_key() {
    let cluster = Cluster::builder().start();
    let db = cluster.database();
    let (alice, project) = owner(&db);
    let mut member = db.user(alice);
    put(&mut member, project, "TOKEN", "value").unwrap();
    assert_eq!(get(&mut member, project, "TOKEN"), "value");

    let secrets = secrets_of(&db);
    let pids = [cluster.postmaster_pid(), worker(&cluster), backend_pid(&mut member)];
    for pid in pids {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        // Backends put their title in its place.
        let is_postmaster = pid == cluster.postmaster_pid();
        assert!(!is_postmaster || contains(&environment, b"PATH="), "the environment can be read");
        assert_holds_none(&environment, &secrets, "environment");
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(contains(&line, b"postgres"), "/proc/{pid}/cmdline can be read");
        assert_holds_none(&line, &secrets, "command line");
    }
    let activity = "SELECT string_agg(a::text, E'\\n') FROM pg_stat_activity a";
    let activity: String = db.superuser().query_one(activity, &[]).unwrap().get(0);
    assert!(activity.contains(db.name()), "the activity can be read");
    assert_holds_none(activity.as_bytes(), &secrets, "pg_stat_activity");
}

// --- what the writers were promised ---------------------------------------------------------

/// Writers, each with a secret of its own, and what was acknowledged to them.
struct Ledger<'d> {
    db: &'d Database<'d>,
    alice: Uuid,
    project: Uuid,
    /// Per writer: the values of its secret by version; number `i` is version `i + 1`.
    acknowledged: [Vec<String>; WRITERS],
    /// Secrets of one version, whose values are their names.
    created: Vec<String>,
    new_names: usize,
}

impl<'d> Ledger<'d> {
    fn new(db: &'d Database<'d>) -> Self {
        let (alice, project) = owner(db);
        // More versions than the test writes, so that all of them can be checked.
        let keep = "ALTER ROLE authenticator SET meshhook_secrets.max_versions = 1000";
        db.superuser().batch_execute(keep).unwrap();
        Self {
            db,
            alice,
            project,
            acknowledged: Default::default(),
            created: Vec::new(),
            new_names: 0,
        }
    }

    /// Lets the writers put for a moment, until `disaster`, which is told their
    /// processes, ends them.
    fn write_until(&mut self, moment: Duration, disaster: impl FnOnce(&[i32])) {
        let clients: Vec<Client> = (0..WRITERS).map(|_| self.db.user(self.alice)).collect();
        let (project, happened) = (self.project, AtomicBool::new(false));
        let first_new = self.new_names;
        let created = scope(|scope| {
            let mut pids = Vec::new();
            let mut writers = Vec::new();
            for (index, (mut client, values)) in
                clients.into_iter().zip(&mut self.acknowledged).enumerate()
            {
                pids.push(backend_pid(&mut client));
                let happened = &happened;
                writers.push(scope.spawn(move || {
                    let name = format!("WRITER_{index}");
                    let mut created = 0;
                    loop {
                        let value = format!("{name} {} {}", values.len(), "x".repeat(3000));
                        match put(&mut client, project, &name, &value) {
                            Ok(version) => {
                                // A put whose answer was lost in the crash may have happened.
                                while values.len() + 1 < version as usize {
                                    values.push(String::new());
                                }
                                values.push(value);
                            }
                            Err(_) => break,
                        }
                        // Some new secrets too.
                        let new = format!("NEW_{index}_{}", first_new + created);
                        match put(&mut client, project, &new, &new) {
                            Ok(version) => assert_eq!(version, 1),
                            Err(_) => break,
                        }
                        created += 1;
                    }
                    assert!(happened.load(Ordering::SeqCst), "a put failed before the disaster");
                    created
                }));
            }
            sleep(moment);
            happened.store(true, Ordering::SeqCst);
            disaster(&pids);
            writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<usize>>()
        });
        for (index, count) in created.iter().enumerate() {
            assert!(*count > 0, "writer {index} wrote something");
            let names = (first_new..first_new + count).map(|new| format!("NEW_{index}_{new}"));
            self.created.extend(names);
        }
        self.new_names += created.iter().max().unwrap() + 1;
    }

    /// Every acknowledged value is there, every secret and version can be read, and
    /// versions have no gaps.
    fn check(&self) {
        let mut member = self.db.user(self.alice);
        for (index, values) in self.acknowledged.iter().enumerate() {
            let name = format!("WRITER_{index}");
            let versions = versions(&mut member, self.project, &name);
            let expected: Vec<i32> = (1..=versions.len() as i32).rev().collect();
            assert_eq!(versions, expected, "{name}");
            let surplus = versions.len().checked_sub(values.len());
            assert!(matches!(surplus, Some(0 | 1)), "{name}: {surplus:?} unacknowledged versions");
            for version in 1..=versions.len() {
                let get = "SELECT meshhook_secrets.secret_get($1, $2, version => $3)";
                let row = member.query_one(get, &[&self.project, &name, &(version as i32)]);
                let value: String = row.unwrap().get(0);
                match values.get(version - 1) {
                    Some(known) if !known.is_empty() => {
                        assert!(*known == value, "{name} {version}")
                    }
                    // Unacknowledged, but whole.
                    _ => assert!(value.starts_with(&name) && value.ends_with("xxx"), "{name}"),
                }
            }
        }
        for name in &self.created {
            assert_eq!(get(&mut member, self.project, name), *name);
        }
        let page =
            "SELECT name FROM meshhook_secrets.secret_list($1, after => $2, page_size => 1000)";
        let mut listed: Vec<String> = Vec::new();
        loop {
            let rows = member.query(page, &[&self.project, &listed.last()]).unwrap();
            listed.extend(rows.iter().map(|row| row.get::<_, String>(0)));
            if rows.len() < 1000 {
                break;
            }
        }
        assert!(listed.len() >= WRITERS, "{} secrets", listed.len());
        let many = "SELECT name, status FROM meshhook_secrets.secret_get_many($1)";
        let read = member.query(many, &[&self.project]).unwrap();
        assert_eq!(read.len(), listed.len());
        for row in read {
            assert_eq!(row.get::<_, String>("status"), "ok", "{}", row.get::<_, String>("name"));
        }
        // No row without its other half.
        let halves = "SELECT
            (SELECT count(*) FROM meshhook_secrets.project_secrets s WHERE NOT EXISTS
                (SELECT FROM meshhook_secrets.secret_versions v
                 WHERE (v.project_id, v.secret_id, v.version) = (s.project_id, s.id, s.current_version)))
          + (SELECT count(*) FROM meshhook_secrets.secret_versions v WHERE NOT EXISTS
                (SELECT FROM meshhook_secrets.project_secrets s
                 WHERE (v.project_id, v.secret_id) = (s.project_id, s.id)))";
        let halves: i64 = self.db.superuser().query_one(halves, &[]).unwrap().get(0);
        assert_eq!(halves, 0);
    }
}

// --- what must not be found -------------------------------------------------------------------

/// Bytes that only protected memory may hold.
struct Secret {
    what: String,
    bytes: Vec<u8>,
}

/// The root keys, as bytes and as written in their source, and all KEKs and data
/// keys of a database. The first 32 bytes of an expanded AES-256 key are the key
/// itself, so these find expanded keys as well.
fn secrets_of(db: &Database<'_>) -> Vec<Secret> {
    let mut secrets = Vec::new();
    let mut keys = Vec::new();
    for (name, text) in [("A", KEY_A), ("B", KEY_B)] {
        let key = root_key::parse(text.as_bytes()).unwrap().remove(0);
        secrets.push(Secret { what: format!("root key {name}"), bytes: key.expose().to_vec() });
        secrets.push(Secret { what: format!("root key {name}, text"), bytes: text.into() });
        keys.push(key);
    }
    let mut superuser = db.superuser();
    let mut keks: Vec<(i32, Kek)> = Vec::new();
    for row in superuser.query("SELECT * FROM meshhook_secrets.kek_storage", &[]).unwrap() {
        let (kek_id, root_key_id): (i32, String) = (row.get("kek_id"), row.get("root_key_id"));
        let status: KekStatus = row.get::<_, String>("status").parse().unwrap();
        let identity = KekIdentity { kek_id, root_key_id: &root_key_id, status };
        let wrapped: Vec<u8> = row.get("kek_encrypted");
        let unwrapped = keys.iter().find_map(|key| key.unwrap(&wrapped, &identity).ok());
        let kek = unwrapped.expect("a known root key wraps it");
        secrets.push(Secret { what: format!("KEK {kek_id}"), bytes: kek.expose().to_vec() });
        keks.push((kek_id, kek));
    }
    for row in superuser.query("SELECT * FROM meshhook_secrets.data_keys", &[]).unwrap() {
        let kek_id: i32 = row.get("kek_id");
        let status: DekStatus = row.get::<_, String>("status").parse().unwrap();
        let project_id = *row.get::<_, Uuid>("project_id").as_bytes();
        let dek_version = row.get("dek_version");
        let identity = DekIdentity { project_id, dek_version, kek_id, status };
        let (_, kek) = keks.iter().find(|(id, _)| *id == kek_id).unwrap();
        let dek: Dek = kek.unwrap(row.get("dek_encrypted"), &identity).unwrap();
        secrets.push(Secret { what: "data key".into(), bytes: dek.expose().to_vec() });
    }
    assert!(secrets.len() >= 6, "two root keys in two forms, a KEK and a data key at least");
    secrets
}

/// Searches the core of the process behind a connection, after convincing itself
/// that this search finds what is there, and that key memory is what is left out.
fn examine(cluster: &Cluster, client: &mut Client, secrets: &[Secret]) {
    let pid = backend_pid(client);
    assert_key_memory_is_mapped(pid);
    // Like a key that somebody forgot to wipe: 32 random bytes in a buffer of the process.
    let bytes = [*Uuid::new_v4().as_bytes(), *Uuid::new_v4().as_bytes()].concat();
    client.query("SELECT $1::bytea", &[&bytes]).unwrap();
    let planted = Secret { what: "planted".into(), bytes };
    let core = core_of(cluster, pid);
    assert!(contains(&core, b"SELECT $1::bytea"), "the core shows the last query");
    assert_eq!(pieces_in(&core, &[planted]).len(), 32 / PIECE, "the search finds a key");
    assert_holds_none(&core, secrets, "backend");
}

/// Key memory is there and marked as no part of core files.
fn assert_key_memory_is_mapped(pid: i32) {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let secret = maps.lines().any(|line| line.contains("secretmem"));
    let undumped = maps.lines().any(|line| {
        line.starts_with("VmFlags:")
            && line.split(' ').any(|flag| flag == "dd")
            && line.split(' ').any(|flag| flag == "sh")
    });
    assert!(secret || undumped, "no key memory in {maps}");
}

/// Copies leave pieces behind, in registers and half-overwritten memory.
const PIECE: usize = 8;

fn assert_holds_none(haystack: &[u8], secrets: &[Secret], whose: &str) {
    let found = pieces_in(haystack, secrets);
    assert!(found.is_empty(), "{whose}: {found:?}");
}

/// Which pieces of these are in there. One pass for all of them: cores are large.
fn pieces_in(haystack: &[u8], secrets: &[Secret]) -> Vec<String> {
    let pieces: Vec<(&Secret, usize, &[u8])> = secrets
        .iter()
        .flat_map(|secret| {
            let pieces = secret.bytes.chunks_exact(PIECE).enumerate();
            pieces.map(move |(index, piece)| (secret, index, piece))
        })
        .collect();
    let mut begins = vec![false; 1 << 16];
    let begin = |bytes: &[u8]| usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    for (_, _, piece) in &pieces {
        begins[begin(piece)] = true;
    }
    let mut found = BTreeSet::new();
    for window in haystack.windows(PIECE).filter(|window| begins[begin(window)]) {
        for (secret, index, _) in pieces.iter().filter(|(_, _, piece)| *piece == window) {
            found.insert(format!("{}, piece {index}", secret.what));
        }
    }
    found.into_iter().collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(haystack, needle).is_some()
}

/// A server whose core files are small and quickly searched.
fn small() -> ClusterBuilder<'static> {
    Cluster::builder().setting("shared_buffers", "2MB").setting("max_connections", "10")
}

/// A core file of a running process, as gdb's `gcore` writes it.
fn core_of(cluster: &Cluster, pid: i32) -> Vec<u8> {
    let prefix = cluster.dir().join("core");
    let output = Command::new("gcore").arg("-o").arg(&prefix).arg(pid.to_string()).output();
    let output = output.unwrap_or_else(|error| {
        panic!("this test needs gcore of the package gdb (apt-get install gdb): {error}")
    });
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        output.status.success(),
        "gcore cannot look at a server process. As an ordinary user this needs ptrace of \
         processes that are no children: sysctl kernel.yama.ptrace_scope=0, or run the tests as \
         root; in a container, --cap-add=SYS_PTRACE.\n{said}"
    );
    let file = PathBuf::from(format!("{}.{pid}", prefix.display()));
    let core =
        fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}\n{said}", file.display()));
    fs::remove_file(file).unwrap();
    assert!(core.starts_with(b"\x7fELF") && core.len() > 1 << 20, "not a core file: {said}");
    core
}

// --- helpers ----------------------------------------------------------------------------------

fn owner(db: &Database<'_>) -> (Uuid, Uuid) {
    let alice = Uuid::new_v4();
    (alice, db.project(alice))
}

fn put(
    client: &mut Client,
    project: Uuid,
    name: &str,
    value: &str,
) -> Result<i32, postgres::Error> {
    Ok(client.query_one(PUT, &[&project, &name, &value])?.get(0))
}

fn get(client: &mut Client, project: Uuid, name: &str) -> String {
    client
        .query_one(GET, &[&project, &name])
        .unwrap_or_else(|error| panic!("{name}: {error:?}"))
        .get(0)
}

fn versions(client: &mut Client, project: Uuid, name: &str) -> Vec<i32> {
    let versions = "SELECT version FROM meshhook_secrets.secret_versions($1, $2)";
    let rows = client.query(versions, &[&project, &name]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Kills a server process; the server starts over.
fn crash(cluster: &Cluster, pid: i32) {
    let mut witness = cluster.connect("postgres", "postgres");
    signal(pid, "KILL");
    eventually("the server noticed the crash", || witness.simple_query("SELECT 1").is_err());
    eventually("the server is back", || cluster.try_connect("postgres", "postgres").is_ok());
}

/// The process id of the root key worker.
fn worker(cluster: &Cluster) -> i32 {
    server_process(cluster.postmaster_pid(), "meshhook_secrets root key").unwrap()
}
