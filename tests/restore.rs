//! However a dump is taken, in whatever moment, and however it is restored: all is there, the audit log
//! verifies and goes on, a rotation in the middle ends. What a dump of a part holds, and what happens
//! where there is something already.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;

use memchr::memmem;
use support::restored_log::{
    audit_rows, records_of_two_months, the_log_is_there_and_goes_on, verification,
};
use support::source::{
    Source, count, everything_is_there, lines, restore_custom, restore_plain, rows,
};
use support::{Cluster, Database, Prefix, eventually, expect_error, run};
use uuid::Uuid;

// --- ways to dump and to restore ------------------------------------------------------------------

#[test]
fn every_way_to_dump_and_to_restore_brings_everything() {
    let source = Source::shared();
    records_of_two_months(&source);
    let ways: [(&[&str], &[&str]); 6] = [
        (&["--format=directory", "--jobs=2"], &["--jobs=2"]),
        (&["--format=directory"], &["--exit-on-error"]),
        (&["--format=tar"], &["--exit-on-error"]),
        (&["--format=custom"], &["--jobs=2"]),
        (&["--format=custom"], &["--single-transaction"]),
        (&["--format=custom", "--inserts"], &["--exit-on-error"]),
    ];
    for (dumping, restoring) in ways {
        println!("pg_dump {dumping:?}, pg_restore {restoring:?}");
        let target = target().empty_database();
        let dump = source.dump(dumping);
        let said = pg_restore(&target, &dump, restoring);
        assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
        the_log_is_there_and_goes_on(&source, &target);
        everything_is_there(&source, &target);
    }
    let target = target().empty_database();
    let mut psql = target.cluster().command("psql");
    psql.args(["-qX", "--single-transaction", "--set=ON_ERROR_STOP=1", "-d", target.name(), "-f"]);
    run(psql.arg(source.dump(&["--format=plain"])));
    the_log_is_there_and_goes_on(&source, &target);
    everything_is_there(&source, &target);
}

#[test]
fn a_restore_with_clean_puts_the_older_state_in_the_place_of_the_newer() {
    for format in ["--format=custom", "--format=plain"] {
        let cluster = Cluster::builder().start();
        let source = Source::in_database(cluster.database());
        records_of_two_months(&source);
        let db = &source.db;
        let clean = ["--clean", "--if-exists"];
        let custom = format == "--format=custom";
        let dump = source.dump(&[&[format][..], if custom { &[] } else { &clean }].concat());
        let (before, log_before) = (rows(db), audit_rows(db));
        // What happens here from now on is lost: that is what a restore is for.
        let put = "SELECT meshhook_secrets.secret_put($1, 'TOKEN', 'newer')";
        db.user(source.alice).query(put, &[&source.project]).unwrap();
        db.superuser().batch_execute("SELECT meshhook_secrets.kek_rotate()").unwrap();

        if custom {
            restore_custom(db, &dump, &clean);
        } else {
            restore_plain(db, &dump);
        }
        assert_eq!(rows(db), before);
        let log = audit_rows(db);
        assert!(log_before.iter().all(|row| log.contains(row)));
        // The server knows that this is another installation: it is no tampering.
        let (ok, problems, records) = verification(db);
        assert!(ok && records > 8, "{problems:?}");
        // As its own target: nothing but what it said before is expected of it.
        everything_is_there(&source, db);
        let (ok, problems, more) = verification(db);
        assert!(ok && more > records, "{more} after {records} records: {problems:?}");
    }
}

#[test]
fn a_dump_of_all_databases_brings_roles_settings_and_secrets() {
    let from = Cluster::builder().start();
    let source = Source::in_database(from.database());
    let setting = "ALTER ROLE service_role SET meshhook_secrets.audit_mode = 'nowait'";
    source.db.superuser().batch_execute(setting).unwrap();
    let second = from.database();
    let carol = Uuid::new_v4();
    let other = second.project(carol);
    let put = "SELECT meshhook_secrets.secret_put($1, 'TOKEN', 'of the second database')";
    second.user(carol).query(put, &[&other]).unwrap();

    let file = from.dir().join("all.sql");
    run(from.command("pg_dumpall").arg("--file").arg(&file));
    // Its own superuser is there, which is all that goes wrong.
    let to = Cluster::builder().start();
    let restored =
        to.command("psql").args(["-qX", "-f"]).arg(&file).arg("postgres").output().unwrap();
    let errors = String::from_utf8_lossy(&restored.stderr).into_owned();
    let errors: Vec<_> = errors.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains(r#"role "postgres" already exists"#), "{errors:?}");

    let target = to.restored_database(source.db.name());
    let mode =
        "SELECT setconfig::text FROM pg_db_role_setting WHERE setrole = 'service_role'::regrole";
    assert_eq!(lines(&target, mode), ["{meshhook_secrets.audit_mode=nowait}"]);
    everything_is_there(&source, &target);
    let second = to.restored_database(second.name());
    let get = "SELECT meshhook_secrets.secret_get($1, 'TOKEN')";
    let value = second.user(carol).query_one(get, &[&other]).unwrap();
    assert_eq!(value.get::<_, &str>(0), "of the second database");
    for db in [&target, &second] {
        let (ok, problems, _) = verification(db);
        assert!(ok, "{problems:?}");
    }
}

// --- moments ----------------------------------------------------------------------------------------

#[test]
fn a_dump_in_the_middle_of_everything_is_one_moment() {
    let from = slow();
    let source = Source::in_database(from.database());
    let (db, ends) = (&source.db, AtomicBool::new(false));
    fill(db, 40);
    let dumps: Vec<PathBuf> = scope(|scope| {
        for number in 0..3 {
            let (source, ends) = (&source, &ends);
            scope.spawn(move || {
                let put = "SELECT meshhook_secrets.secret_put($1, $2, $3)";
                let mut client = source.db.user(source.alice);
                let name = format!("BUSY_{number}");
                for round in 0.. {
                    if ends.load(Ordering::Relaxed) {
                        break;
                    }
                    let value = format!("busy {number} {round}");
                    client.query(put, &[&source.project, &name, &value]).unwrap();
                    source.get(&mut client, &name, None).unwrap();
                    source.get(&mut client, "NEVER", None).unwrap_err();
                }
            });
        }
        let _ending = AtEnd(&ends);
        eventually("they are at work", || count(&mut db.superuser(), "audit_log") > 50);
        in_the_middle(db);
        let dumps = [&["--format=custom"][..], &["--format=directory", "--jobs=2"]];
        let dumps = dumps.map(|it| source.dump(it)).into();
        assert!(is_rotating(db), "the rotation outlasts the dumps");
        dumps
    });
    for dump in dumps {
        let target = target().empty_database();
        let said = pg_restore(&target, &dump, &["--jobs=2"]);
        assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
        goes_on(&target);
        let values = "SELECT count(*) FROM meshhook_secrets.secret_get_many($1)
            WHERE name LIKE 'BUSY%' AND value ~ '^busy . [0-9]+$'";
        let busy: i64 = target.service().query_one(values, &[&source.project]).unwrap().get(0);
        assert_eq!(busy, 3);
        // They have counted as secrets and versions that nobody else expects.
        let mut alice = target.user(source.alice);
        for number in 0..3 {
            let purge = "SELECT meshhook_secrets.secret_purge($1, $2, $2)";
            alice.query(purge, &[&source.project, &format!("BUSY_{number}")]).unwrap();
        }
        forget_filled(&target);
        everything_is_there(&source, &target);
    }
}

#[test]
fn a_dump_of_a_standby_is_as_good() {
    let primary = slow();
    let source = Source::in_database(primary.database());
    fill(&source.db, 40);
    let standby = Cluster::builder().standby_of(&primary).start();
    in_the_middle(&source.db);
    let there = standby.restored_database(source.db.name());
    let moved = "SELECT kek_id::text FROM meshhook_secrets.data_keys WHERE kek_id = 2";
    eventually("the standby sees the rotation", || !lines(&there, moved).is_empty());
    let dump = standby.dir().join("dump");
    let mut pg_dump = standby.command("pg_dump");
    run(pg_dump.args(["--format=custom", "--file"]).arg(&dump).arg(there.name()));
    let target = target().empty_database();
    restore_custom(&target, &dump, &[]);
    goes_on(&target);
    forget_filled(&target);
    everything_is_there(&source, &target);
}

/// A server that rewraps ten data keys a second.
fn slow() -> Cluster {
    Cluster::builder()
        .setting("meshhook_secrets.rewrap_batch_size", "1")
        .setting("meshhook_secrets.rewrap_pause", "500ms")
        .start()
}

/// Projects of nobody's, so that a rotation takes its time.
fn fill(db: &Database<'_>, projects: i32) {
    let insert = "INSERT INTO public.projects (owner, name)
        SELECT gen_random_uuid(), 'filled' FROM generate_series(1, $1)";
    db.superuser().execute(insert, &[&projects]).unwrap();
    let put = "SELECT count(meshhook_secrets.secret_put(id, 'TOKEN', 'value of ' || id))
        FROM public.projects WHERE name = 'filled'";
    db.service().query(put, &[]).unwrap();
}

fn forget_filled(db: &Database<'_>) {
    db.superuser().batch_execute("DELETE FROM public.projects WHERE name = 'filled'").unwrap();
}

/// Starts a rotation, and waits until some but not all is done.
fn in_the_middle(db: &Database<'_>) {
    db.superuser().batch_execute("SELECT meshhook_secrets.kek_rotate()").unwrap();
    eventually("it is in the middle", || is_rotating(db));
}

fn is_rotating(db: &Database<'_>) -> bool {
    let keys =
        "SELECT count(*) FILTER (WHERE kek_id = 1) > 0 AND count(*) FILTER (WHERE kek_id = 2) > 1
        FROM meshhook_secrets.data_keys";
    db.superuser().query_one(keys, &[]).unwrap().get(0)
}

/// The rotation ends by itself, all values are there, the log verifies and goes on.
fn goes_on(db: &Database<'_>) {
    let mut superuser = db.superuser();
    let ends = "SELECT bool_and(status = CASE kek_id WHEN 2 THEN 'active' ELSE 'retired' END)
            AND NOT EXISTS (SELECT FROM meshhook_secrets.rotation_jobs WHERE finished_at IS NULL)
        FROM meshhook_secrets.kek_storage";
    eventually("the rotation ends", || superuser.query_one(ends, &[]).unwrap().get(0));
    let bad = "SELECT v::text FROM meshhook_secrets.kek_verify(deep => true) v
        WHERE bad > 0 OR good <> wraps OR problem IS NOT NULL";
    assert_eq!(lines(db, bad), Vec::<String>::new());
    let right = "SELECT count(*), count(*) FILTER (
            WHERE meshhook_secrets.secret_get(id, 'TOKEN') = 'value of ' || id)
        FROM public.projects WHERE name = 'filled'";
    let row = db.service().query_one(right, &[]).unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (40, 40));
    let (ok, problems, records) = verification(db);
    assert!(ok && records > 40, "{records} records: {problems:?}");
}

// --- parts ------------------------------------------------------------------------------------------

#[test]
fn our_schema_and_extension_alone_are_all_secrets_without_the_application() {
    let source = Source::shared();
    records_of_two_months(&source);
    let ours = ["--format=custom", "--extension=meshhook_secrets", "--schema=meshhook_secrets"];
    let target = target().empty_database();
    restore_custom(&target, &source.dump(&ours), &[]);
    assert_eq!(rows(&target), rows(&source.db));
    let (ok, problems, records) = verification(&target);
    assert!(ok && records >= 8, "{problems:?}");
    // The binding names a table that is not there: nobody is a member of anything.
    target.superuser().batch_execute("SELECT meshhook_secrets.setup_supabase(true)").unwrap();
    expect_error(source.get(&mut target.user(source.alice), "TOKEN", None), "42501");

    // The application's part may come later, into the same database.
    let rest = source.dump(&["--format=custom", "--exclude-schema=meshhook_secrets"]);
    let without_extension = contents_without(&target, &rest, " EXTENSION ");
    restore_custom(&target, &rest, &["--use-list", without_extension.to_str().unwrap()]);
    everything_is_there(&source, &target);
}

#[test]
fn without_our_schema_a_dump_holds_no_secret_and_restores_beside_a_fresh_extension() {
    let source = Source::shared();
    let (sealed, target) = (source.sealed("TOKEN"), target().empty_database());
    target.superuser().batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();
    let mut without = vec!["--format=plain", "--exclude-schema=meshhook_secrets"];
    if Prefix::get().major() >= 17 {
        without.push("--exclude-extension=meshhook_secrets");
    }
    let dump = source.dump(&without);
    let bytes = fs::read(&dump).unwrap();
    assert!(memmem::find(&bytes, b"public.project_members").is_some());
    for absent in [sealed.as_bytes(), b"BEFORE_NOON"] {
        assert!(memmem::find(&bytes, absent).is_none());
    }
    restore_plain(&target, &dump);
    assert_eq!(rows(&target), Vec::<String>::new());
    // Nothing is bound yet: that locks out.
    let mut superuser = target.superuser();
    superuser.batch_execute("SELECT meshhook_secrets.setup_supabase(true)").unwrap();
    let put = "SELECT meshhook_secrets.secret_put($1, 'TOKEN', 'anew')";
    let mut alice = target.user(source.alice);
    expect_error(alice.query(put, &[&source.project]), "42501");
    let attach = "SELECT meshhook_secrets.attach_projects('public.projects',
        member_function => 'public.user_project_ids()')";
    superuser.batch_execute(attach).unwrap();
    alice.query(put, &[&source.project]).unwrap();
    assert_eq!(source.get(&mut alice, "TOKEN", None).unwrap(), "anew");
}

#[test]
fn our_schema_without_the_extension_is_refused_at_once_where_there_is_none() {
    let source = Source::shared();
    let target = target().empty_database();
    let dump = source.dump(&["--format=custom", "--schema=meshhook_secrets"]);
    let said = pg_restore(&target, &dump, &["--single-transaction"]);
    assert!(!said.status.success());
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains(r#"relation "meshhook_secrets.audit_log" does not exist"#), "{said}");
    target.superuser().batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();
}

// --- where there is something already ---------------------------------------------------------------

#[test]
fn restoring_over_other_secrets_is_an_error_and_loses_nothing() {
    let theirs = Source::shared();
    let ours = Source::in_database(target().database());
    records_of_two_months(&ours);
    let (before, log_before) = (secrets(&ours.db), audit_rows(&ours.db));
    for (dumping, restoring) in [
        (&["--format=custom"][..], &["--single-transaction"][..]),
        (&["--format=custom"], &["--single-transaction", "--data-only"]),
    ] {
        let said = pg_restore(&ours.db, &theirs.dump(dumping), restoring);
        assert!(!said.status.success(), "{restoring:?}: {said:?}");
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains("already exists") || said.contains("duplicate key"), "{said}");
        assert_eq!(secrets(&ours.db), before, "{restoring:?}");
        let log = audit_rows(&ours.db);
        assert!(log_before.iter().all(|row| log.contains(row)), "{restoring:?}");
        let (ok, problems, _) = verification(&ours.db);
        assert!(ok, "{restoring:?}: {problems:?}");
    }
    everything_is_there(&ours, &ours.db);
}

#[test]
fn a_restore_that_goes_on_after_errors_mixes_no_keys_and_is_noticed() {
    let theirs = Source::shared();
    let ours = Source::in_database(target().database());
    records_of_two_months(&ours);
    let before = rows(&ours.db);
    let said =
        pg_restore(&ours.db, &theirs.dump(&["--format=custom", "--data-only"]), &["--data-only"]);
    assert!(!said.status.success());
    // Ours are what they were, theirs came without the key that they need.
    let after = rows(&ours.db);
    assert!(before.iter().all(|row| after.contains(row)));
    let mut alice = ours.db.user(ours.alice);
    assert_eq!(ours.get(&mut alice, "TOKEN", None).unwrap(), ours.value);
    let get = theirs.get(&mut ours.db.service(), "TOKEN", None);
    assert!(get.is_err(), "{get:?}");
    let (ok, problems, _) = verification(&ours.db);
    assert!(!ok, "{problems:?}");
}

/// All rows but those that remember when something was last done.
fn secrets(db: &Database<'_>) -> Vec<String> {
    rows(db).into_iter().filter(|row| !row.starts_with("settings (last_")).collect()
}

// --- helpers ----------------------------------------------------------------------------------------

/// Where dumps are restored: another server with the same root key.
fn target() -> &'static Cluster {
    static TARGET: LazyLock<Cluster> = LazyLock::new(|| Cluster::builder().start());
    &TARGET
}

fn pg_restore(target: &Database<'_>, dump: &Path, options: &[&str]) -> Output {
    let mut restore: Command = target.cluster().command("pg_restore");
    restore.args(["--dbname", target.name()]).args(options).arg(dump).output().unwrap()
}

/// A table of contents for `--use-list` without the entries that contain this.
fn contents_without(target: &Database<'_>, dump: &Path, without: &str) -> PathBuf {
    let list = run(target.cluster().command("pg_restore").arg("--list").arg(dump));
    let file = target.cluster().dir().join(format!("{}.list", Uuid::new_v4()));
    let kept: Vec<_> = list.lines().filter(|line| !line.contains(without)).collect();
    assert!(kept.len() < list.lines().count(), "nothing was left out");
    fs::write(&file, kept.join("\n")).unwrap();
    file
}

/// Says stop also when its thread panics.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
