//! `pg_upgrade` takes a server over as it is: keys in every state, a rotation in the middle, sealed
//! projects, months of the audit log, who may do what. `OLD_PG_CONFIG` names the older PostgreSQL to come
//! from (`make test-pg-upgrade`); without it both are of the same version, which `pg_upgrade` allows and
//! treats no differently.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use support::guards::GUARDS;
use support::restored_log::{audit_rows, quiet, records_of_two_months, verification};
use support::source::{Source, everything_is_there, lines, restore_custom, rows};
use support::{Cluster, Database, KEY_A, Prefix, RootKey, Shutdown, eventually, expect_error, run};
use uuid::Uuid;

#[test]
fn everything_survives_the_copying_of_files() {
    let old = old();
    let (from, to) = (old.files(), new_server());
    let next = next_transaction(&from);
    upgrade(&from, &to, &["--check"]);
    assert_eq!(next_transaction(&from), next, "looking writes nothing");
    upgrade(&from, &to, &[]);
    old.survived_in(&to);
}

#[test]
fn everything_survives_the_linking_of_files() {
    let old = old();
    let (from, to) = (old.files(), new_server());
    upgrade(&from, &to, &["--link"]);
    old.survived_in(&to);
    if Prefix::get().major() >= 18 {
        let (from, to) = (old.files(), new_server());
        upgrade(&from, &to, &["--swap"]);
        old.survived_in(&to);
    }
}

#[test]
fn a_server_that_pg_upgrade_starts_has_no_worker_that_would_write() {
    let server = old().files();
    let next = next_transaction(&server);
    // As pg_upgrade starts it.
    let mut start = server.command("pg_ctl");
    start.args(["start", "-w", "-o", "-b", "-D"]).arg(server.data_dir());
    run(start.arg("-l").arg(server.dir().join("log")));
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'meshhook%'";
    let mut superuser = server.connect("postgres", "postgres");
    assert_eq!(superuser.query_one(ours, &[]).unwrap().get::<_, i64>(0), 0);
    drop(superuser);
    server.stop(Shutdown::Fast);
    assert_eq!(next_transaction(&server), next, "nobody took a transaction id");
}

#[test]
fn a_dump_of_the_older_server_by_the_newer_program_is_restored_in_the_newer_server() {
    let from = Cluster::builder().prefix(Prefix::old()).start();
    let source = Source::in_database(from.database());
    let to = Cluster::builder().start();
    let dump = to.dir().join("dump");
    let mut pg_dump = to.command("pg_dump");
    pg_dump.env("PGHOST", from.dir()).args(["--format=custom", "--file"]).arg(&dump);
    run(pg_dump.arg(source.db.name()));
    let target = to.empty_database();
    restore_custom(&target, &dump, &[]);
    let fresh = to.database();
    for (what, query) in GUARDS {
        assert_same(what, &without_months(&target, query), &without_months(&fresh, query));
    }
    everything_is_there(&source, &target);
}

// --- the older server -----------------------------------------------------------------------------

const KEKS: [(i32, &str); 8] = [
    (1, "destroyed"),
    (2, "disabled"),
    (3, "compromised"),
    (4, "destroy_scheduled"),
    (5, "retired"),
    (6, "retiring"),
    (7, "active"),
    (8, "pending"),
];

/// A server with all there can be, its files when it was stopped, and what was in them.
struct Old {
    source: Source<'static>,
    sealed_project: Uuid,
    data: PathBuf,
    rows: Vec<String>,
    audit_rows: Vec<String>,
    findings: Vec<String>,
}

fn old() -> &'static Old {
    static OLD: LazyLock<Old> = LazyLock::new(Old::new);
    &OLD
}

impl Old {
    fn new() -> Self {
        static CLUSTER: LazyLock<Cluster> =
            LazyLock::new(|| Cluster::builder().prefix(Prefix::old()).start());
        let cluster: &'static Cluster = &CLUSTER;
        let source = Source::in_database(cluster.database());
        let db = &source.db;
        let mut superuser = db.superuser();
        let mut service = db.service();
        let put = "SELECT meshhook_secrets.secret_put($1, 'TOKEN', 'sealed')";
        let mut project = None;
        // Something to rewrap for a while.
        for _ in 0..6 {
            let new = db.project(source.eve);
            service.query(put, &[&new]).unwrap();
            project = Some(new);
        }
        let sealed_project = project.unwrap();
        superuser.query("SELECT meshhook_secrets.seal($1)", &[&sealed_project]).unwrap();
        superuser.batch_execute("SELECT meshhook_secrets.kek_configure('90 days')").unwrap();

        let mut call = |what: &str| {
            superuser.query_one(&format!("SELECT meshhook_secrets.{what}"), &[]).unwrap();
        };
        for kek in 1..=5 {
            call("kek_rotate()");
            has_kek(db, kek, "retired");
            match kek {
                1 => call("kek_destroy(1, '1', '0')"),
                2 => call("kek_disable(2)"),
                3 => call("kek_mark_compromised(3)"),
                4 => call("kek_destroy(4, '4', '7 days')"),
                _ => {}
            }
        }
        has_kek(db, 1, "destroyed");
        // The worker pauses in the middle of the rotation.
        cluster.set("meshhook_secrets.rewrap_batch_size", "1");
        cluster.set("meshhook_secrets.rewrap_pause", "60s");
        cluster.restart();
        let mut superuser = db.superuser();
        let mut call = |what: &str| {
            superuser.query_one(&format!("SELECT meshhook_secrets.{what}"), &[]).unwrap();
        };
        call("kek_rotate()");
        call("kek_generate()");
        eventually("the worker pauses", || {
            !lines(db, "SELECT kek_id::text FROM meshhook_secrets.data_keys WHERE kek_id = 7")
                .is_empty()
        });
        records_of_two_months(&source);
        let findings = findings(db);
        quiet(db);
        let (rows, audit_rows) = (rows(db), audit_rows(db));
        for (kek, status) in KEKS {
            has_kek(db, kek, status);
        }
        // The harness's own; pg_upgrade refuses databases that nobody may connect to.
        let drop = "DROP DATABASE IF EXISTS host";
        cluster.connect("postgres", "postgres").batch_execute(drop).unwrap();
        cluster.stop(Shutdown::Fast);
        let data = cluster.dir().join("stopped");
        let mut copy = Command::new("cp");
        run(copy.arg("-a").arg(cluster.data_dir()).arg(&data));
        // It is asked later what it answers.
        cluster.start();
        Self { source, sealed_project, data, rows, audit_rows, findings }
    }

    /// The stopped server once more.
    fn files(&self) -> Cluster {
        Cluster::builder().prefix(Prefix::old()).backup(&self.data).create()
    }

    fn survived_in(&self, to: &Cluster) {
        to.start();
        let db = to.restored_database(self.source.db.name());
        // What no worker changes is there, byte for byte.
        let rows = rows(&db);
        let changing = |row: &&String| {
            !row.starts_with("kek_storage")
                && !row.starts_with("data_keys")
                && !row.starts_with("settings (last_")
        };
        for row in self.rows.iter().filter(changing) {
            assert!(rows.contains(row), "{row} is not in {rows:#?}");
        }
        let now = audit_rows(&db);
        for row in &self.audit_rows {
            assert_eq!(now.iter().filter(|it| *it == row).count(), 1, "{row}");
        }

        // The rotation ends, all other KEKs are what they were.
        has_kek(&db, 6, "retired");
        for (kek, status) in KEKS.into_iter().filter(|(kek, _)| *kek != 6) {
            has_kek(&db, kek, status);
        }
        let bad = "SELECT v::text FROM meshhook_secrets.kek_verify(deep => true) v
            WHERE bad > 0 OR problem IS NOT NULL AND kek_id <> 1";
        assert_eq!(lines(&db, bad), Vec::<String>::new());

        // The log verifies and goes on.
        quiet(&db);
        let (ok, problems, records) = verification(&db);
        assert!(ok, "{problems:?}");
        self.source.get(&mut db.user(self.source.alice), "TOKEN", None).unwrap();
        quiet(&db);
        let (ok, problems, more) = verification(&db);
        assert!(ok && more > records, "{more} after {records} records, {problems:?}");
        let doubled =
            "SELECT id::text FROM meshhook_secrets.audit_log GROUP BY id HAVING count(*) > 1";
        assert_eq!(lines(&db, doubled), Vec::<String>::new());

        // Whoever was sealed is, and can be unsealed.
        let get = "SELECT meshhook_secrets.secret_get($1, 'TOKEN')";
        let mut eve = db.user(self.source.eve);
        expect_error(eve.query(get, &[&self.sealed_project]), "PT503");
        let unseal = "SELECT meshhook_secrets.unseal($1)";
        db.superuser().query(unseal, &[&self.sealed_project]).unwrap();
        let value = eve.query_one(get, &[&self.sealed_project]).unwrap();
        assert_eq!(value.get::<_, &str>(0), "sealed");

        // Everything is as a fresh installation makes it: grants and what they are compared with, members.
        let fresh = to.database();
        for (what, query) in GUARDS.iter().chain(INSTALLED) {
            let (upgraded, fresh) = (without_months(&db, query), without_months(&fresh, query));
            assert!(!fresh.is_empty(), "no {what}");
            assert_same(what, &upgraded, &fresh);
        }
        let new: Vec<_> =
            findings(&db).into_iter().filter(|it| !self.findings.contains(it)).collect();
        assert_eq!(new, Vec::<String>::new(), "before: {:#?}", self.findings);

        // A grant that is none of ours is found.
        let grant = |what: &str| {
            let table = "ON meshhook_secrets.secret_versions";
            db.superuser()
                .batch_execute(&format!(
                    "{what} SELECT {table} {}",
                    match what {
                        "GRANT" => "TO anon",
                        _ => "FROM anon",
                    }
                ))
                .unwrap();
            findings(&db).into_iter().filter(|it| !self.findings.contains(it)).count()
        };
        assert_eq!((grant("GRANT"), grant("REVOKE")), (1, 0));

        db.superuser().query("SELECT meshhook_secrets.kek_rotate()", &[]).unwrap();
        has_kek(&db, 7, "retired");
        // The other projects go, so that what is left can be counted.
        let others = "DELETE FROM public.projects WHERE owner = $1";
        db.superuser().execute(others, &[&self.source.eve]).unwrap();
        everything_is_there(&self.source, &db);
    }
}

/// What else an installation makes.
const INSTALLED: &[(&str, &str)] = &[
    (
        "initial privileges of others than the owner",
        "SELECT format('%s: %s', pg_describe_object(i.classoid, i.objoid, i.objsubid),
                (SELECT string_agg(format('%s %s', a.grantee::regrole, a.privilege_type), ', '
                                   ORDER BY a.grantee::regrole::text, a.privilege_type)
                 FROM aclexplode(i.initprivs) a))
         FROM pg_init_privs i
         WHERE i.privtype = 'e' AND EXISTS (SELECT FROM aclexplode(i.initprivs) a WHERE a.grantee <> a.grantor)
           AND EXISTS (
            SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
            WHERE d.refclassid = 'pg_extension'::regclass AND e.extname = 'meshhook_secrets'
              AND d.classid = i.classoid AND d.objid = i.objoid)",
    ),
    (
        "columns",
        "SELECT format('%s.%s %s %s %s %s', attrelid::regclass, attname, atttypid::regtype, attnotnull, attstorage,
                pg_get_expr(d.adbin, d.adrelid))
         FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         JOIN pg_class c ON c.oid = a.attrelid
         WHERE c.relnamespace = 'meshhook_secrets'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
           AND c.relkind IN ('r', 'p', 'c')",
    ),
    (
        "constraints",
        "SELECT format('%s %s %s %s', conrelid::regclass, conname, convalidated, pg_get_constraintdef(oid))
         FROM pg_constraint WHERE connamespace = 'meshhook_secrets'::regnamespace",
    ),
    ("indexes", "SELECT indexdef FROM pg_indexes WHERE schemaname = 'meshhook_secrets'"),
    (
        "what is dumped",
        "SELECT c::regclass::text FROM pg_extension, unnest(extconfig) c WHERE extname = 'meshhook_secrets'",
    ),
    (
        "options",
        "SELECT format('%s %s', oid::regclass, reloptions)
         FROM pg_class WHERE relnamespace = 'meshhook_secrets'::regnamespace AND relkind IN ('r', 'p')",
    ),
];

/// Months of the audit log are made when something happens in them.
fn without_months(db: &Database<'_>, query: &str) -> Vec<String> {
    lines(db, query).into_iter().filter(|line| !line.contains("audit_log_2")).collect()
}

#[track_caller]
fn assert_same(what: &str, upgraded: &[String], fresh: &[String]) {
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|it| !those.contains(it)).cloned().collect()
    };
    let differences = (only(upgraded, fresh), only(fresh, upgraded));
    assert_eq!(differences, Default::default(), "{what}: only upgraded, only fresh");
}

fn has_kek(db: &Database<'_>, kek: i32, status: &str) {
    let is = format!(
        "SELECT kek_id::text FROM meshhook_secrets.kek_storage WHERE kek_id = {kek} AND status = '{status}'"
    );
    eventually(&format!("KEK {kek} is {status}"), || !lines(db, &is).is_empty());
}

/// What `doctor()` finds, without numbers and times.
fn findings(db: &Database<'_>) -> Vec<String> {
    lines(db, "SELECT format('%s %s', severity, finding) FROM meshhook_secrets.doctor()")
}

// --- the upgrade ------------------------------------------------------------------------------------

fn new_server() -> Cluster {
    Cluster::builder().root_key(RootKey::File(KEY_A.into())).create()
}

#[track_caller]
fn upgrade(from: &Cluster, to: &Cluster, options: &[&str]) {
    let mut upgrade = to.command("pg_upgrade");
    upgrade.arg("-b").arg(Prefix::old().program("")).arg("-B").arg(Prefix::get().program(""));
    upgrade.arg("-d").arg(from.data_dir()).arg("-D").arg(to.data_dir());
    let output = upgrade.args(["-U", "postgres"]).args(options).output().unwrap();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        panic!(
            "pg_upgrade {options:?}: {said}\n{}",
            logs(&to.data_dir().join("pg_upgrade_output.d"))
        );
    }
}

/// All logs and lists below, which pg_upgrade leaves where it fails.
fn logs(dir: &Path) -> String {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let text = |path: PathBuf| match path.is_dir() {
        true => logs(&path),
        false if path.extension().is_some_and(|it| it == "log" || it == "txt") => {
            format!("{path:?}:\n{}", fs::read_to_string(&path).unwrap_or_default())
        }
        false => String::new(),
    };
    entries.map(|entry| text(entry.path())).collect()
}

fn next_transaction(stopped: &Cluster) -> String {
    let data = run(stopped.command("pg_controldata").arg(stopped.data_dir()));
    let line = data.lines().find(|line| line.contains("NextXID")).expect("control data has it");
    line.to_owned()
}
