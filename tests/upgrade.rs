//! A database of an older version becomes, by `ALTER EXTENSION … UPDATE`, what a new one is: to the last
//! object, right and comment, with all its data and what the host made of it. An update that does not come
//! to its end changes nothing, and clients only wait for it. Released scripts never change.

use std::fs;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;

use postgres::Client;
use serde_json::Value;
use support::{
    Cluster, ClusterBuilder, Database, Prefix, backend_pid, eventually, expect_error, run, signal,
    walk,
};
use uuid::Uuid;

mod upgrade {
    pub mod data;
}
use upgrade::data::World;

const UPDATE: &str = "ALTER EXTENSION meshhook_secrets UPDATE";
const OLDEST: &str = "0.1.0";

// --- released scripts --------------------------------------------------------------------------

#[test]
fn released_scripts_never_change() {
    let sql = Prefix::repository().join("sql");
    run(Command::new("sha256sum")
        .args(["--check", "--strict", "--quiet", "SHA256SUMS"])
        .current_dir(&sql));
    let sums = fs::read_to_string(sql.join("SHA256SUMS")).unwrap();
    let current = Prefix::version();
    for folder in ["released", "upgrade"] {
        for file in fs::read_dir(sql.join(folder)).unwrap().flatten() {
            let name = file.file_name().into_string().unwrap();
            // meshhook_secrets--VERSION.sql, meshhook_secrets--FROM--TO.sql
            let Some(name) = name.strip_suffix(".sql") else { continue };
            let to = name.rsplit("--").next().unwrap();
            let frozen = sums.contains(&format!("  {folder}/{name}.sql"));
            assert!(frozen || (folder == "upgrade" && to == current), "{name}: not in SHA256SUMS");
        }
    }
    // What is installed for an old version is the frozen file.
    for version in released() {
        let name = format!("meshhook_secrets--{version}.sql");
        let installed = fs::read(Prefix::get().extensions().join(&name)).unwrap();
        assert_eq!(installed, fs::read(sql.join("released").join(&name)).unwrap(), "{name}");
    }
}

#[test]
fn the_package_has_one_version_and_every_older_one_can_be_updated() {
    let root = Prefix::repository();
    let says = |file: &str, before: &str| -> bool {
        let text = fs::read_to_string(root.join(file)).unwrap();
        text.lines().any(|line| line.starts_with(&format!("{before}{}", Prefix::version())))
    };
    assert!(says("Cargo.toml", "version = \""));
    assert!(says("core/Cargo.toml", "version = \""));
    assert!(says("CHANGELOG.md", "## "));
    meta_is_what_pgxn_wants();
    let db = Cluster::shared().database();
    let mut superuser = db.superuser();
    let paths = "SELECT source, path IS NOT NULL FROM pg_extension_update_paths('meshhook_secrets') WHERE target = $1";
    let rows = superuser.query(paths, &[&Prefix::version()]).unwrap();
    for version in released() {
        let row = rows.iter().find(|row| row.get::<_, &str>(0) == version);
        assert!(row.is_some_and(|row| row.get(1)), "no path from {version}");
    }
    assert_eq!(text(superuser, "SELECT meshhook_secrets.library_version()"), Prefix::version());
}

/// META.json, by PGXN's meta specification 1.0.0.
fn meta_is_what_pgxn_wants() {
    let root = Prefix::repository();
    let meta: Value = serde_json::from_slice(&fs::read(root.join("META.json")).unwrap()).unwrap();
    for required in ["name", "abstract", "version", "license"] {
        assert!(meta[required].as_str().is_some_and(|text| !text.is_empty()), "{required}");
    }
    assert!(!meta["maintainer"].as_array().unwrap().is_empty());
    assert_eq!(meta["meta-spec"]["version"], "1.0.0");
    let provided = meta["provides"].as_object().unwrap();
    assert_eq!(provided.keys().collect::<Vec<_>>(), ["meshhook_secrets"]);
    for about in [&meta, &provided["meshhook_secrets"]] {
        assert_eq!(about["version"], Prefix::version());
    }
    for file in ["file", "docfile"] {
        let file = provided["meshhook_secrets"][file].as_str().unwrap();
        assert!(root.join(file).is_file(), "{file}");
    }
    // Its client calls this, then `install`.
    run(Command::new("make").args(["--dry-run", "all"]).current_dir(root));
}

// --- it becomes what a new one is ---------------------------------------------------------------

#[test]
fn an_updated_database_is_what_a_new_one_is() {
    let (fresh, updated) = (Cluster::shared().empty_database(), old().empty_database());
    let create = "CREATE EXTENSION meshhook_secrets";
    fresh.superuser().batch_execute(create).unwrap();
    let create = format!("{create} VERSION '{OLDEST}'; {UPDATE}");
    updated.superuser().batch_execute(&create).unwrap();
    assert_same(&fresh, &updated);
    let lines = catalog(&fresh);
    for kind in ["extension", "function", "column", "rights", "policy", "trigger", "dumped", "role"]
    {
        assert!(lines.iter().any(|line| line.starts_with(kind)), "no {kind}");
    }
}

#[test]
fn what_the_host_made_of_it_stays() {
    let (fresh, updated) = (Cluster::shared().database(), old().database());
    for db in [&fresh, &updated] {
        support::audit::make_role(db.cluster(), "own_app", "LOGIN");
        db.superuser().batch_execute(HOST).unwrap();
    }
    update(&updated);
    // Rights on new functions come as the documentation says.
    let setup = "SELECT meshhook_secrets.setup_supabase(users_may_reveal => true)";
    updated.superuser().batch_execute(setup).unwrap();
    assert_same(&fresh, &updated);
    for db in [&fresh, &updated] {
        let (user, mut superuser) = (Uuid::new_v4(), db.superuser());
        let project = db.project(user);
        let put = "SELECT public.store_key($1, 'kept')";
        db.user(user).query_one(put, &[&project]).unwrap();
        let shown = "SELECT count(*) FROM public.notes";
        superuser.execute("INSERT INTO public.notes VALUES ($1)", &[&project]).unwrap();
        assert_eq!(db.user(user).query_one(shown, &[]).unwrap().get::<_, i64>(0), 1);
        assert_eq!(db.user(Uuid::new_v4()).query_one(shown, &[]).unwrap().get::<_, i64>(0), 0);
        let own = "SET ROLE own_app; SELECT meshhook_secrets.health()";
        superuser.batch_execute(own).unwrap();
    }
}

/// Grants of the host's own on our objects, a wrapper, a policy and a view on our functions.
const HOST: &str = "
    GRANT USAGE ON SCHEMA meshhook_secrets TO own_app;
    GRANT EXECUTE ON FUNCTION meshhook_secrets.health() TO own_app;
    GRANT EXECUTE ON FUNCTION meshhook_secrets.secret_get(uuid, text, integer, text) TO own_app WITH GRANT OPTION;
    GRANT SELECT (name) ON meshhook_secrets.project_secrets TO own_app;
    REVOKE EXECUTE ON FUNCTION meshhook_secrets.metrics() FROM meshhook_secrets_kek_admin;
    CREATE FUNCTION public.store_key(project uuid, value text) RETURNS integer LANGUAGE sql
      BEGIN ATOMIC SELECT version FROM meshhook_secrets.secret_put(project, 'KEY', value); END;
    CREATE TABLE public.notes (project_id uuid);
    ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
    GRANT SELECT ON public.notes TO authenticated;
    CREATE POLICY members ON public.notes USING (project_id = ANY (meshhook_secrets.member_projects()));
    CREATE VIEW public.health AS SELECT * FROM meshhook_secrets.health();";

#[test]
fn default_privileges_give_nobody_rights_on_what_comes() {
    let (fresh, updated) = (Cluster::shared().empty_database(), old().empty_database());
    let defaults = "ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO anon, authenticated;
        ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO anon WITH GRANT OPTION;
        ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO anon;
        ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO service_role";
    fresh.superuser().batch_execute(defaults).unwrap();
    fresh.superuser().batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();
    let mut superuser = updated.superuser();
    superuser
        .batch_execute(&format!("CREATE EXTENSION meshhook_secrets VERSION '{OLDEST}'"))
        .unwrap();
    superuser.batch_execute(defaults).unwrap();
    superuser.batch_execute(UPDATE).unwrap();
    assert_same(&fresh, &updated);

    // To our own roles, where it could not be told from what the extension grants.
    let refused = old().database();
    let mut superuser = refused.superuser();
    let defaults = "ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO meshhook_secrets_reader";
    superuser.batch_execute(defaults).unwrap();
    expect_error(superuser.batch_execute(UPDATE), "42501").message("default privileges");
    assert_eq!(version_of(&refused), OLDEST);
}

#[test]
fn what_comes_belongs_to_the_owner_whoever_updates() {
    let databases = [Cluster::shared().empty_database(), old().empty_database()];
    for db in &databases {
        support::audit::make_role(db.cluster(), "boss", "SUPERUSER LOGIN");
    }
    let [fresh, updated] = &databases;
    let create = "CREATE EXTENSION meshhook_secrets";
    fresh.connect("boss").batch_execute(create).unwrap();
    updated.connect("boss").batch_execute(&format!("{create} VERSION '{OLDEST}'")).unwrap();
    update(updated);
    assert_same(fresh, updated);
}

// --- with its data ---------------------------------------------------------------------------------

#[test]
fn all_data_is_there_in_the_middle_of_a_rotation() {
    let cluster = slow_rotation().start();
    let db = cluster.database();
    let world = World::new(&db);
    let before = world.rows();
    update(&db);
    assert_eq!(world.rows(), before);
    world.is_whole();
    // What the rotation still has to do, it does.
    cluster.set("meshhook_secrets.rewrap_pause", "0");
    cluster.reload();
    eventually("the rotation is finished", || {
        let running =
            "SELECT count(*) FROM meshhook_secrets.rotation_jobs WHERE finished_at IS NULL";
        db.superuser().query_one(running, &[]).unwrap().get::<_, i64>(0) == 0
    });
    world.is_whole();
    db.auditor().assert_good();
    walk(&db);
}

#[test]
fn an_updated_database_can_be_dumped_and_restored() {
    let cluster = slow_rotation().start();
    let db = cluster.database();
    let world = World::new(&db);
    // Also the way without ALTER EXTENSION: a dump of the old version, restored.
    for (name, version) in [("old", OLDEST.to_owned()), ("updated", Prefix::version())] {
        if name == "updated" {
            update(&db);
        }
        assert_eq!(version_of(&db), version);
        let file = cluster.dir().join(name);
        run(cluster
            .command("pg_dump")
            .args(["--format=custom", "--file"])
            .arg(&file)
            .arg(db.name()));
        let restored = cluster.empty_database();
        let mut restore = cluster.command("pg_restore");
        run(restore.args(["--exit-on-error", "--dbname", restored.name()]).arg(&file));
        assert_eq!(version_of(&restored), Prefix::version());
        world.is_whole_in(&restored);
        if name == "updated" {
            let ours = |line: &String| !line.starts_with("extension");
            let same = |db| catalog(db).into_iter().filter(ours).collect::<Vec<_>>();
            assert_eq!(same(&db), same(&restored));
        }
    }
}

// --- it happens wholly or not at all ----------------------------------------------------------------

#[test]
fn who_may_not_update_hears_it_from_postgresql() {
    let db = old().empty_database();
    for (role, options) in [("was_super", "SUPERUSER LOGIN"), ("stranger", "LOGIN")] {
        support::audit::make_role(db.cluster(), role, options);
    }
    let create = format!("CREATE EXTENSION meshhook_secrets VERSION '{OLDEST}'");
    db.connect("was_super").batch_execute(&create).unwrap();
    db.superuser().batch_execute("ALTER ROLE was_super NOSUPERUSER").unwrap();
    expect_error(db.connect("was_super").batch_execute(UPDATE), "42501")
        .message("permission denied to update extension")
        .hint("superuser");
    expect_error(db.connect("stranger").batch_execute(UPDATE), "42501").message("must be owner");
    assert_eq!(version_of(&db), OLDEST);
    update(&db);
}

#[test]
fn an_update_that_is_rolled_back_leaves_the_old_version_whole() {
    let db = old().database();
    let before = catalog(&db);
    db.superuser().batch_execute(&format!("BEGIN; {UPDATE}; ROLLBACK")).unwrap();
    let mut superuser = db.superuser();
    let fails = format!("BEGIN; {UPDATE}; SELECT 1 / 0");
    expect_error(superuser.batch_execute(&fails), "22012");
    superuser.batch_execute("ROLLBACK").unwrap();
    assert_eq!(catalog(&db), before);
    walk(&db);
    update(&db);
    walk(&db);
}

#[test]
fn a_backend_killed_in_the_middle_leaves_the_old_version_whole() {
    let cluster = of_oldest(Cluster::builder()).start();
    let db = cluster.database();
    let mut superuser = db.superuser();
    // The update stops behind the first function that it makes.
    superuser
        .batch_execute(
            "CREATE FUNCTION public.stop() RETURNS event_trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_advisory_xact_lock(1); END $$;
             CREATE EVENT TRIGGER stop ON ddl_command_end WHEN TAG IN ('CREATE FUNCTION')
                EXECUTE FUNCTION public.stop();",
        )
        .unwrap();
    let before = catalog(&db);
    for how in ["TERM", "KILL"] {
        let mut holder = db.superuser();
        holder.batch_execute("SELECT pg_advisory_lock(1)").unwrap();
        let mut updating = db.superuser();
        let pid = backend_pid(&mut updating);
        scope(|scope| {
            let update = scope.spawn(move || updating.batch_execute(UPDATE));
            let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)";
            let mut watcher = db.superuser();
            eventually("the update stops", || watcher.query_one(waits, &[&pid]).unwrap().get(0));
            signal(pid, how);
            assert!(update.join().unwrap().is_err());
        });
        if how == "KILL" {
            eventually("the server knows", || cluster.log().contains("terminated by signal 9"));
        }
        eventually("the server is back", || cluster.try_connect(db.name(), "postgres").is_ok());
        assert_eq!(catalog(&db), before, "{how}");
    }
    db.superuser().batch_execute("DROP EVENT TRIGGER stop").unwrap();
    walk(&db);
    update(&db);
    walk(&db);
}

#[test]
fn clients_only_wait_while_it_updates() {
    const ROLLED_BACK: usize = 20;
    let cluster = slow_rotation().setting("meshhook_secrets.rewrap_pause", "5ms").start();
    let db = cluster.database();
    let stop = AtomicBool::new(false);
    scope(|scope| {
        let mut clients = Vec::new();
        for number in 0..3 {
            let user = Uuid::new_v4();
            let projects: Vec<Uuid> = (0..40).map(|_| db.project(user)).collect();
            let (mut client, stop) = (db.user(user), &stop);
            clients.push(scope.spawn(move || {
                let mut rounds = 0_usize;
                while !stop.load(Ordering::Relaxed) {
                    let (project, value) = (projects[rounds % 40], format!("{number} {rounds}"));
                    let put = "SELECT meshhook_secrets.secret_put($1, 'KEY', $2)";
                    client.query(put, &[&project, &value]).unwrap();
                    let get = "SELECT meshhook_secrets.secret_get($1, 'KEY')";
                    let got: String = client.query_one(get, &[&project]).unwrap().get(0);
                    assert_eq!(got, value);
                    rounds += 1;
                }
                rounds
            }));
        }
        // Ends the clients also when something here fails.
        let ending = Ending(&stop);
        let count = "SELECT count(*) FROM meshhook_secrets.data_keys";
        eventually("all projects have a key", || {
            db.superuser().query_one(count, &[]).unwrap().get::<_, i64>(0) == 120
        });
        let mut operator = db.member_of("meshhook_secrets_kek_admin");
        let mut superuser = db.superuser();
        for round in 0..=ROLLED_BACK {
            operator.batch_execute("SELECT meshhook_secrets.kek_rotate()").unwrap();
            let end = if round == ROLLED_BACK { "COMMIT" } else { "ROLLBACK" };
            superuser.batch_execute(&format!("BEGIN; {UPDATE}; {end}")).unwrap();
            let rewrapped = remaining(&mut operator);
            // The rotation went on, or had ended.
            eventually("the rotation goes on", || {
                let now = remaining(&mut operator);
                now == 0 || now < rewrapped
            });
        }
        drop(ending);
        for client in clients {
            assert!(client.join().unwrap() > 20, "it worked all the time");
        }
    });
    assert_eq!(version_of(&db), Prefix::version());
    let log = cluster.log();
    assert!(!log.contains("deadlock"), "{log}");
    let records = db.auditor().outcomes("action => 'secret_get'");
    assert!(records.len() > 60 && records.iter().all(|it| it.ends_with(" ok")), "{records:?}");
    db.auditor().assert_good();
}

struct Ending<'s>(&'s AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn remaining(operator: &mut Client) -> i64 {
    let status = "SELECT coalesce(sum(remaining), 0)::bigint FROM meshhook_secrets.kek_status()";
    operator.query_one(status, &[]).unwrap().get(0)
}

// --- the new library on the old functions --------------------------------------------------------

#[test]
fn before_the_update_everything_of_the_old_version_works_and_doctor_says_to_update() {
    let db = old().database();
    walk(&db);
    let found = finding(&db, "update_needed").unwrap();
    assert!(found["detail"].as_str().unwrap().contains(OLDEST), "{found}");
    let remedy = found["remedy"].as_str().unwrap();
    db.superuser().batch_execute(remedy).unwrap();
    assert_eq!(finding(&db, "update_needed"), None);
    walk(&db);
}

#[test]
fn doctor_says_when_the_library_is_too_old_for_the_functions() {
    let db = Cluster::shared().database();
    let set = |version: &str| {
        let set = "UPDATE pg_extension SET extversion = $1 WHERE extname = 'meshhook_secrets'";
        db.superuser().execute(set, &[&version]).unwrap();
    };
    let version = Prefix::version();
    let (minor, patch) = version.rsplit_once('.').unwrap();
    let next = format!("{minor}.{}", patch.parse::<u32>().unwrap() + 1);
    for later in [next.as_str(), "0.100.0", "10.0.0"] {
        set(later);
        let found = finding(&db, "library_too_old").unwrap();
        assert_eq!(found["severity"], "critical");
        assert!(found["detail"].as_str().unwrap().contains(later), "{found}");
        assert!(found["remedy"].as_str().unwrap().contains("Install version"), "{found}");
    }
    set(&Prefix::version());
    assert_eq!(finding(&db, "library_too_old"), None);
}

// --- helpers -----------------------------------------------------------------------------------------

/// A server whose databases are of the oldest version, on the library of today.
fn old() -> &'static Cluster {
    static OLD: LazyLock<Cluster> = LazyLock::new(|| of_oldest(Cluster::builder()).start());
    &OLD
}

fn of_oldest(builder: ClusterBuilder<'_>) -> ClusterBuilder<'_> {
    builder.extension(&format!("CREATE EXTENSION meshhook_secrets VERSION '{OLDEST}'"))
}

/// One that rewraps a single data key in ten seconds, so that a rotation stays unfinished.
fn slow_rotation<'p>() -> ClusterBuilder<'p> {
    of_oldest(Cluster::builder())
        .setting("meshhook_secrets.rewrap_batch_size", "1")
        .setting("meshhook_secrets.rewrap_pause", "10s")
}

fn update(db: &Database<'_>) {
    assert_eq!(version_of(db), OLDEST);
    db.superuser().batch_execute(UPDATE).unwrap();
    assert_eq!(version_of(db), Prefix::version());
}

/// All that the extension is in this database, a line for each thing.
fn catalog(db: &Database<'_>) -> Vec<String> {
    let rows = db.superuser().query(include_str!("upgrade/catalog.sql"), &[]).unwrap();
    let line = |row: &postgres::Row| -> Vec<String> {
        (0..3).map(|column| row.get::<_, Option<String>>(column).unwrap_or_default()).collect()
    };
    rows.iter().map(|row| line(row).join(": ")).collect()
}

#[track_caller]
fn assert_same(fresh: &Database<'_>, updated: &Database<'_>) {
    let (fresh, updated) = (catalog(fresh), catalog(updated));
    let only = |here: &[String], there: &[String]| -> Vec<String> {
        here.iter().filter(|line| !there.contains(line)).cloned().collect()
    };
    let (missing, extra) = (only(&fresh, &updated), only(&updated, &fresh));
    assert!(
        fresh == updated,
        "the upgrade script does not make what sql/install makes\nonly in a new database: {missing:#?}\n\
         only in an updated one: {extra:#?}"
    );
}

/// What doctor says under this name.
fn finding(db: &Database<'_>, name: &str) -> Option<Value> {
    let doctor = "SELECT to_jsonb(d) FROM meshhook_secrets.doctor() d WHERE finding = $1";
    let mut auditor = db.auditor().client;
    auditor.query_opt(doctor, &[&name]).unwrap().map(|row| row.get(0))
}

fn released() -> Vec<String> {
    let list = fs::read_to_string(Prefix::repository().join("sql/released/releases")).unwrap();
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
}

fn version_of(db: &Database<'_>) -> String {
    let version = "SELECT extversion FROM pg_extension WHERE extname = 'meshhook_secrets'";
    text(db.superuser(), version)
}

fn text(mut client: Client, sql: &str) -> String {
    client.query_one(sql, &[]).unwrap().get(0)
}
