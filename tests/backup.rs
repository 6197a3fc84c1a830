//! Physical backups: taken of a server at work and in the middle of a rotation, restored with the log
//! that is archived to this moment or that. What was there then is there again, with the keys of then.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::thread::scope;

use postgres::Client;
use support::restored_log::{quiet, verification};
use support::source::{Source, everything_is_there, lines};
use support::{
    Account, Cluster, ClusterBuilder, Database, KEY_A, KEY_B, Prefix, RootKey, eventually,
    expect_error, run,
};
use uuid::Uuid;

const PUT: &str = "SELECT meshhook_secrets.secret_put($1, $2, $3)";
const GET: &str = "SELECT meshhook_secrets.secret_get($1, $2)";

// --- backups ----------------------------------------------------------------------------------------

#[test]
fn a_base_backup_under_load_in_the_middle_of_a_rotation_is_whole() {
    let server = slow().setting("meshhook_secrets.rewrap_pause", "500ms").start();
    let source = Source::in_database(server.database());
    fill(&source.db);
    let (acknowledged, ends) = (AtomicI64::new(0), AtomicBool::new(false));
    let backup = server.dir().join("backup");
    let before = scope(|scope| {
        scope.spawn(|| {
            let mut client = source.db.user(source.alice);
            for number in 0..i64::MAX {
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                let value = number.to_string();
                client.query(PUT, &[&source.project, &"NUMBER", &value]).unwrap();
                client.query(GET, &[&source.project, &"NUMBER"]).unwrap();
                acknowledged.store(number, Ordering::Relaxed);
            }
        });
        let _ending = AtEnd(&ends);
        eventually("it is at work", || acknowledged.load(Ordering::Relaxed) > 3);
        in_the_middle(&source.db);
        let before = acknowledged.load(Ordering::Relaxed);
        base_backup(&server, &backup, &[]);
        assert!(is_rotating(&source.db), "the rotation outlasts the backup");
        before
    });
    run(server.command("pg_verifybackup").arg(&backup));
    let quick = Cluster::builder().setting("meshhook_secrets.rewrap_pause", "1ms");
    let restored = quick.backup(&backup).start();
    let db = restored.restored_database(source.db.name());
    let number: String = db.service().query_one(GET, &[&source.project, &"NUMBER"]).unwrap().get(0);
    assert!(number.parse::<i64>().unwrap() >= before, "{number} after {before}");
    goes_on(&db);
    let purge = "SELECT meshhook_secrets.secret_purge($1, 'NUMBER', 'NUMBER')";
    db.user(source.alice).query(purge, &[&source.project]).unwrap();
    forget_filled(&db);
    everything_is_there(&source, &db);
}

#[test]
fn an_incremental_backup_holds_what_came_after_the_full_one() {
    if Prefix::get().major() < 17 {
        // The older server says so itself.
        let help = run(Cluster::shared().command("pg_basebackup").arg("--help"));
        assert!(!help.contains("--incremental"), "{help}");
        return;
    }
    let server = slow().setting("summarize_wal", "on").start();
    let source = Source::in_database(server.database());
    fill(&source.db);
    let [full, increment, combined] =
        ["full", "increment", "combined"].map(|name| server.dir().join(name));
    base_backup(&server, &full, &[]);
    in_the_middle(&source.db);
    let late = "SELECT meshhook_secrets.secret_put($1, 'LATE', 'later')";
    source.db.user(source.alice).query(late, &[&source.project]).unwrap();
    let manifest = full.join("backup_manifest");
    base_backup(&server, &increment, &["--incremental", manifest.to_str().unwrap()]);
    let mut combine = server.command("pg_combinebackup");
    run(combine.arg(&full).arg(&increment).arg("--output").arg(&combined));
    run(server.command("pg_verifybackup").arg(&combined));
    let restored = slow().backup(&combined).start();
    let db = restored.restored_database(source.db.name());
    let value = db.service().query_one(GET, &[&source.project, &"LATE"]).unwrap();
    assert_eq!(value.get::<_, &str>(0), "later");
    goes_on(&db);
    let purge = "SELECT meshhook_secrets.secret_purge($1, 'LATE', 'LATE')";
    db.user(source.alice).query(purge, &[&source.project]).unwrap();
    forget_filled(&db);
    everything_is_there(&source, &db);
}

// --- points in time ---------------------------------------------------------------------------------

#[test]
fn a_moment_in_the_middle_of_a_rotation_can_be_looked_at_and_taken() {
    let history = history();
    let (source, name) = (&history.source, history.source.db.name());
    let middle = history.at("recovery_target_name", "middle", "pause", KEY_A);
    eventually("it pauses there", || {
        let paused = "SELECT pg_get_wal_replay_pause_state() = 'paused'";
        middle.connect(name, "postgres").query_one(paused, &[]).unwrap().get(0)
    });
    let mut paused = middle.connect(name, "postgres");
    let value = paused.query_one(GET, &[&source.project, &"TOKEN"]).unwrap();
    assert_eq!(value.get::<_, &str>(0), source.value);
    expect_error(paused.query(PUT, &[&source.project, &"TOKEN", &"v"]), "25006");
    let db = middle.restored_database(name);
    assert!(is_rotating(&db), "in the middle");
    paused.batch_execute("SELECT pg_wal_replay_resume()").unwrap();
    in_use(&middle);
    goes_on(&db);
    forget_filled(&db);
    everything_is_there(source, &db);
}

#[test]
fn before_their_removal_a_kek_a_secret_and_a_project_are_there_again() {
    let history = history();
    let (source, name) = (&history.source, history.source.db.name());
    let before = history.at("recovery_target_time", &history.before_removals, "promote", KEY_A);
    in_use(&before);
    let db = before.restored_database(name);
    assert_eq!(lines(&db, KEK_1), ["retired"]);
    let get = source.get(&mut db.user(source.alice), "PURGED", None);
    assert_eq!(get.unwrap(), "purged later");
    let gone = db.service().query_one(GET, &[&history.gone, &"TOKEN"]).unwrap();
    assert_eq!(gone.get::<_, &str>(0), "of a project that goes");
    goes_on(&db);
}

#[test]
fn before_the_rotation_of_the_root_key_the_old_one_is_needed_and_named() {
    let history = history();
    let (source, name) = (&history.source, history.source.db.name());
    let older = history.at("recovery_target_xid", &history.before_root_key, "promote", KEY_B);
    in_use(&older);
    let db = older.restored_database(name);
    let mut alice = db.user(source.alice);
    let sealed = expect_error(source.get(&mut alice, "TOKEN", None), "PT503");
    sealed.detail(&history.root_key).hint(&history.root_key);
    older.write_root_key(&format!("{KEY_B}\n{KEY_A}"));
    older.reload();
    eventually("the old key helps", || source.get(&mut alice, "TOKEN", None).is_ok());
    db.superuser().query("SELECT meshhook_secrets.root_key_rotate()", &[]).unwrap();
    older.write_root_key(KEY_B);
    older.reload();
    let loaded = "SELECT root_key_id FROM meshhook_secrets.root_key_status() WHERE is_loaded";
    eventually("the old key is no longer loaded", || lines(&db, loaded).len() == 1);
    assert_eq!(source.get(&mut alice, "TOKEN", None).unwrap(), source.value);
    is_whole(&db);
}

#[test]
fn at_the_end_of_the_archive_everything_is_as_it_was_last() {
    let history = history();
    let (source, name) = (&history.source, history.source.db.name());
    let end = history.to_the_end(KEY_B);
    let db = end.restored_database(name);
    assert_eq!(lines(&db, KEK_1), ["destroyed"]);
    expect_error(source.get(&mut db.user(source.alice), "PURGED", None), "PT404");
    is_whole(&db);
    forget_filled(&db);
    everything_is_there(source, &db);
}

const KEK_1: &str = "SELECT status FROM meshhook_secrets.kek_storage WHERE kek_id = 1";

/// A server whose log is archived, a backup of its beginning, and what happened since.
struct History {
    source: Source<'static>,
    archive: PathBuf,
    backup: PathBuf,
    gone: Uuid,
    before_removals: String,
    before_root_key: String,
    root_key: String,
}

fn history() -> &'static History {
    static HISTORY: LazyLock<History> = LazyLock::new(History::new);
    &HISTORY
}

impl History {
    fn new() -> Self {
        let archive = support::new_dir();
        let keep = format!("test ! -f {0}/%f && cp %p {0}/%f", archive.display());
        static SERVER: OnceLock<Cluster> = OnceLock::new();
        let archiving = slow().setting("archive_mode", "on").setting("archive_command", &keep);
        let server = SERVER.get_or_init(|| archiving.start());
        let source = Source::in_database(server.database());
        let db = &source.db;
        let backup = server.dir().join("backup");
        base_backup(server, &backup, &[]);
        let mut superuser = db.superuser();
        fill(db);
        in_the_middle(db);
        superuser.query("SELECT pg_create_restore_point('middle')", &[]).unwrap();
        is_retired(db, 1);

        let mut alice = db.user(source.alice);
        alice.query(PUT, &[&source.project, &"PURGED", &"purged later"]).unwrap();
        let gone = db.project(source.alice);
        alice.query(PUT, &[&gone, &"TOKEN", &"of a project that goes"]).unwrap();
        let now = "SELECT clock_timestamp()::text";
        let before_removals = superuser.query_one(now, &[]).unwrap().get(0);
        // Times are compared with those of commits: the next one is later.
        let purge = "SELECT meshhook_secrets.secret_purge($1, 'PURGED', 'PURGED')";
        alice.query(purge, &[&source.project]).unwrap();
        db.delete_project(gone);
        let destroy = "SELECT meshhook_secrets.kek_destroy(1, '1', '0')";
        superuser.query(destroy, &[]).unwrap();
        let destroyed = "SELECT 'x' FROM meshhook_secrets.kek_storage WHERE status = 'destroyed'";
        eventually("KEK 1 is destroyed", || !lines(db, destroyed).is_empty());

        let current = "SELECT root_key_id FROM meshhook_secrets.root_key_status() WHERE is_current";
        let root_key = superuser.query_one(current, &[]).unwrap().get(0);
        server.write_root_key(&format!("{KEY_B}\n{KEY_A}"));
        server.reload();
        let loaded = "SELECT root_key_id FROM meshhook_secrets.root_key_status() WHERE is_loaded";
        eventually("both root keys are loaded", || lines(db, loaded).len() == 2);
        let marker = "CREATE TABLE public.marker AS SELECT pg_current_xact_id()::text";
        superuser.batch_execute(marker).unwrap();
        let xid = superuser.query_one("SELECT * FROM public.marker", &[]).unwrap();
        superuser.query("SELECT meshhook_secrets.root_key_rotate()", &[]).unwrap();
        quiet(db);
        let switch = "SELECT pg_walfile_name(pg_switch_wal())";
        let last: String = superuser.query_one(switch, &[]).unwrap().get(0);
        eventually("the last segment is archived", || archive.join(&last).exists());
        let before_root_key = xid.get(0);
        Self { source, archive, backup, gone, before_removals, before_root_key, root_key }
    }

    /// A server at this moment, with this root key.
    fn at(&self, target: &str, value: &str, action: &str, root_key: &str) -> Cluster {
        let restored = self
            .restoring(root_key)
            .setting(target, value)
            .setting("recovery_target_action", action)
            .create();
        recover(&restored);
        restored
    }

    fn to_the_end(&self, root_key: &str) -> Cluster {
        let restored = self.restoring(root_key).create();
        recover(&restored);
        in_use(&restored);
        restored
    }

    fn restoring(&self, root_key: &str) -> ClusterBuilder<'static> {
        slow()
            .backup(&self.backup)
            .root_key(RootKey::File(root_key.into()))
            .setting("archive_mode", "off")
            .setting("restore_command", &format!("cp {}/%f %p", self.archive.display()))
    }
}

fn recover(restored: &Cluster) {
    let signal = restored.data_dir().join("recovery.signal");
    fs::write(&signal, "").unwrap();
    Account::of_server().own(&signal);
    restored.start();
}

/// Waits until the server has ended its recovery.
fn in_use(server: &Cluster) {
    let mut superuser = server.connect("postgres", "postgres");
    let ended = "SELECT NOT pg_is_in_recovery()";
    eventually("it is promoted", || superuser.query_one(ended, &[]).unwrap().get(0));
}

// --- what README says -------------------------------------------------------------------------------

#[test]
fn the_commands_of_the_readme_do_what_it_says() {
    let readme = fs::read_to_string(Prefix::repository().join("README.md")).unwrap();
    let section = readme.split("\n## Backup and restore\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let commands: Vec<&str> =
        section.split("```sh\n").skip(1).map(|it| it.split("```").next().unwrap()).collect();
    assert!(commands.len() >= 2, "{section}");

    let server = Cluster::builder().start();
    let source = Source::in_database(server.database());
    let name = source.db.name();
    for (script, databases) in commands.iter().zip([&["restored", "secrets_only"][..], &[]]) {
        let mut sh = server.command("psql");
        let path =
            format!("{}:/usr/bin:/bin", Path::new(sh.get_program()).parent().unwrap().display());
        let script = script.replace(" app\n", &format!(" {name}\n"));
        sh = Command::new("sh");
        sh.args(["-euxc", &script]).current_dir(server.dir()).env_clear().env("PATH", path);
        sh.env("PGHOST", server.dir()).env("PGUSER", "postgres");
        run(Account::of_server().run_as(&mut sh));
        let databases: Vec<_> = databases.iter().map(|it| server.restored_database(it)).collect();
        for db in &databases {
            let rows = "SELECT name FROM meshhook_secrets.project_secrets";
            assert_eq!(lines(db, rows), lines(&source.db, rows), "{db:?}");
            let (ok, problems, _) = verification(db);
            assert!(ok, "{db:?}: {problems:?}");
        }
        if let [whole, _] = &databases[..] {
            everything_is_there(&source, whole);
        } else {
            let restored = Cluster::builder().backup(&server.dir().join("backup")).start();
            everything_is_there(&source, &restored.restored_database(name));
        }
    }
}

// --- helpers ----------------------------------------------------------------------------------------

const FILLED: i32 = 40;

/// A server that rewraps ten data keys a second.
fn slow() -> ClusterBuilder<'static> {
    Cluster::builder()
        .setting("meshhook_secrets.rewrap_batch_size", "1")
        .setting("meshhook_secrets.rewrap_pause", "100ms")
}

fn base_backup(server: &Cluster, to: &Path, options: &[&str]) {
    let mut backup = server.command("pg_basebackup");
    run(backup
        .args(["--checkpoint=fast", "--wal-method=stream", "--pgdata"])
        .arg(to)
        .args(options));
}

/// Projects of nobody's, so that a rotation takes its time.
fn fill(db: &Database<'_>) {
    let insert = "INSERT INTO public.projects (owner, name)
        SELECT gen_random_uuid(), 'filled' FROM generate_series(1, $1)";
    db.superuser().execute(insert, &[&FILLED]).unwrap();
    let put = "SELECT count(meshhook_secrets.secret_put(id, 'TOKEN', 'value of ' || id))
        FROM public.projects WHERE name = 'filled'";
    db.service().query(put, &[]).unwrap();
}

fn forget_filled(db: &Database<'_>) {
    db.superuser().batch_execute("DELETE FROM public.projects WHERE name = 'filled'").unwrap();
}

fn is_rotating(db: &Database<'_>) -> bool {
    let keys =
        "SELECT count(*) FILTER (WHERE kek_id = 1) > 0 AND count(*) FILTER (WHERE kek_id = 2) > 1
        FROM meshhook_secrets.data_keys";
    db.superuser().query_one(keys, &[]).unwrap().get(0)
}

/// Starts a rotation, and waits until some but not all is done.
fn in_the_middle(db: &Database<'_>) {
    db.superuser().batch_execute("SELECT meshhook_secrets.kek_rotate()").unwrap();
    eventually("it is in the middle", || is_rotating(db));
}

fn is_retired(db: &Database<'_>, kek: i32) {
    let is = format!(
        "SELECT status FROM meshhook_secrets.kek_storage WHERE kek_id = {kek} AND status = 'retired'"
    );
    eventually("the rotation ends", || !lines(db, &is).is_empty());
}

/// The rotation ends by itself, and nothing is missing.
fn goes_on(db: &Database<'_>) {
    is_retired(db, 1);
    is_whole(db);
}

/// All values are there, the log verifies and goes on, the next rotation ends.
fn is_whole(db: &Database<'_>) {
    let running =
        "SELECT job_id::text FROM meshhook_secrets.rotation_jobs WHERE finished_at IS NULL";
    eventually("the job is finished", || lines(db, running).is_empty());
    let bad = "SELECT v::text FROM meshhook_secrets.kek_verify(deep => true) v
        WHERE bad > 0 OR good <> wraps";
    assert_eq!(lines(db, bad), Vec::<String>::new());
    let right = "SELECT count(*) FROM public.projects
        WHERE name = 'filled' AND meshhook_secrets.secret_get(id, 'TOKEN') = 'value of ' || id";
    let count: i64 = db.service().query_one(right, &[]).unwrap().get(0);
    assert_eq!(count, i64::from(FILLED));
    log_goes_on(db);
    db.superuser().batch_execute("SELECT meshhook_secrets.kek_rotate()").unwrap();
    eventually("the next rotation ends, too", || lines(db, running).is_empty());
}

/// The log verifies, and what happens now gets ids after all that there were.
fn log_goes_on(db: &Database<'_>) {
    let last = |client: &mut Client| -> i64 {
        let last = "SELECT max(id) FROM meshhook_secrets.audit_log";
        client.query_one(last, &[]).unwrap().get(0)
    };
    let mut superuser = db.superuser();
    quiet(db);
    let (ok, problems, records) = verification(db);
    assert!(ok, "{problems:?}");
    let before = last(&mut superuser);
    db.superuser().batch_execute("SELECT meshhook_secrets.kek_generate()").unwrap();
    quiet(db);
    let (ok, problems, more) = verification(db);
    assert!(ok && more > records, "{more} after {records}: {problems:?}");
    assert!(last(&mut superuser) > before);
    let doubled = "SELECT id::text FROM meshhook_secrets.audit_log GROUP BY id HAVING count(*) > 1";
    assert_eq!(lines(db, doubled), Vec::<String>::new());
}

/// Says stop also when its thread panics.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
