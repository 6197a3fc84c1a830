//! The days between two versions: servers, standbys and databases that are not upgraded at the same moment,
//! with the library that was released, built from the history. Whatever the order, nothing is lost, what
//! was there goes on working, and what does not yet work says what to do.

use std::fs;
use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use support::{Cluster, Database, Prefix, Shutdown, eventually, expect_error, walk};
use uuid::Uuid;

const UPDATE: &str = "ALTER EXTENSION meshhook_secrets UPDATE";

/// The last released version.
static OLD: LazyLock<String> = LazyLock::new(|| {
    let list = fs::read_to_string(Prefix::repository().join("sql/released/releases")).unwrap();
    list.lines().last().and_then(|line| line.split(' ').next()).unwrap().to_owned()
});

#[test]
fn a_server_is_upgraded_while_it_runs() {
    let Some(released) = released() else { return };
    let new = Prefix::version();
    let prefix = install(&released);
    let cluster = Cluster::builder().prefix(prefix).start();
    let db = cluster.database();
    let world = World::new(&db);
    assert_eq!(version(&db), *OLD);
    walk(&db);

    // The new package is installed, and the server not restarted: it still runs the old library.
    prefix.install(Prefix::repository());
    walk(&db);
    let refused = db.superuser().batch_execute(UPDATE);
    expect_error(refused, "55000").message("older library").detail(&new).hint("Restart the server");
    let other = cluster.empty_database();
    let refused = other.superuser().batch_execute("CREATE EXTENSION meshhook_secrets");
    expect_error(refused, "55000").message("older library").hint("Restart the server");
    let old = format!("CREATE EXTENSION meshhook_secrets VERSION '{}'", *OLD);
    other.superuser().batch_execute(&old).unwrap();
    assert_eq!(version(&db), *OLD);
    world.is_readable(&cluster);
    walk(&db);

    // Restarted: the new library serves the old functions.
    cluster.restart();
    world.is_readable(&cluster);
    walk(&db);
    let doctor = "SELECT remedy FROM meshhook_secrets.doctor() WHERE finding = 'update_needed'";
    let remedy: String = db.auditor().client.query_one(doctor, &[]).unwrap().get(0);
    for db in [&db, &other] {
        db.superuser().batch_execute(&remedy).unwrap();
        assert_eq!(version(db), new);
    }
    world.is_readable(&cluster);
    walk(&db);

    // And back, in an emergency: the old package again, on functions that are new.
    prefix.uninstall();
    prefix.install(&released);
    cluster.restart();
    world.is_readable(&cluster);
    let put = "SELECT meshhook_secrets.secret_put($1, 'LATER', 'value')";
    db.user(world.user).query(put, &[&world.project]).unwrap();
    db.user(world.user)
        .query("SELECT meshhook_secrets.secret_purge($1, 'LATER', 'LATER')", &[&world.project])
        .unwrap();
    let left = "SELECT FROM meshhook_secrets.secret_versions v WHERE NOT EXISTS (
        SELECT FROM meshhook_secrets.project_secrets s WHERE (s.project_id, s.id) = (v.project_id, v.secret_id))";
    assert_eq!(db.superuser().query(left, &[]).unwrap().len(), 0, "versions without a secret");
    if *OLD == "0.1.0" {
        let missing = db.superuser().query("SELECT meshhook_secrets.library_version()", &[]);
        expect_error(missing, "42883").message("meshhook_secrets_library_version");
    }
}

#[test]
fn a_standby_of_the_old_version_follows_an_updated_primary() {
    let Some(released) = released() else { return };
    let new = Prefix::version();
    let primary = Cluster::builder()
        .extension(&format!("CREATE EXTENSION meshhook_secrets VERSION '{}'", *OLD))
        .start();
    let db = primary.database();
    let world = World::new(&db);
    let prefix = install(&released);
    let standby = Cluster::builder().prefix(prefix).standby_of(&primary).start();
    world.is_readable(&standby);
    db.superuser().batch_execute(UPDATE).unwrap();
    let follows = || {
        let mut there = standby.connect(db.name(), "postgres");
        let version = "SELECT extversion FROM pg_extension WHERE extname = 'meshhook_secrets'";
        there.query_one(version, &[]).unwrap().get::<_, &str>(0) == new
    };
    eventually("the standby follows", follows);
    world.is_readable(&standby);
    let health = "SELECT state FROM meshhook_secrets.health()";
    let mut there = standby.connect(db.name(), "postgres");
    assert_eq!(there.query_one(health, &[]).unwrap().get::<_, &str>(0), "ok");

    // It is upgraded, and knows all of it.
    prefix.install(Prefix::repository());
    standby.restart();
    world.is_readable(&standby);
    let mut there = standby.connect(db.name(), "postgres");
    let library = "SELECT meshhook_secrets.library_version()";
    assert_eq!(there.query_one(library, &[]).unwrap().get::<_, &str>(0), new);
}

#[test]
fn a_standby_of_the_new_version_follows_an_old_primary() {
    let Some(released) = released() else { return };
    let primary = Cluster::builder().prefix(install(&released)).start();
    let db = primary.database();
    let world = World::new(&db);
    let standby = Cluster::builder().standby_of(&primary).start();
    world.is_readable(&standby);
    let mut there = standby.connect(db.name(), "postgres");
    let doctor = "SELECT remedy FROM meshhook_secrets.doctor() WHERE finding = 'update_needed'";
    let remedy: String = there.query_one(doctor, &[]).unwrap().get(0);
    assert!(remedy.contains("On the primary"), "{remedy}");

    // It takes over, and is updated.
    primary.stop(Shutdown::Fast);
    standby.promote();
    eventually("it is the primary", || {
        let standby = "SELECT pg_is_in_recovery()";
        !there.query_one(standby, &[]).unwrap().get::<_, bool>(0)
    });
    there.batch_execute(UPDATE).unwrap();
    world.is_readable(&standby);
}

#[test]
fn a_library_refuses_the_functions_of_a_later_version() {
    let prefix = Prefix::own();
    let cluster = Cluster::builder().prefix(prefix).start();
    let db = cluster.database();
    // The scripts of today under the name of a version to come, whose library is not loaded yet.
    let script = |name: String| prefix.extensions().join(format!("meshhook_secrets--{name}.sql"));
    let today = fs::read_to_string(script(Prefix::version())).unwrap();
    fs::write(script("10.0.0".into()), today).unwrap();
    let check = Prefix::repository().join("sql/install/11_library.sql");
    let check = fs::read_to_string(check).unwrap();
    let check = check.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION");
    fs::write(script(format!("{}--10.0.0", Prefix::version())), check).unwrap();

    let update = db.superuser().batch_execute(&format!("{UPDATE} TO '10.0.0'"));
    let create = "CREATE EXTENSION meshhook_secrets VERSION '10.0.0'";
    let create = cluster.empty_database().superuser().batch_execute(create);
    for refused in [update, create] {
        expect_error(refused, "55000")
            .message("older library")
            .detail("10.0.0")
            .hint("Restart the server");
    }
    assert_eq!(version(&db), Prefix::version());
    walk(&db);
}

/// A package that is newer than what runs is told also when both know of it.
#[test]
fn doctor_says_to_restart_when_a_later_package_is_installed() {
    let (new, prefix) = (Prefix::version(), Prefix::own());
    let cluster = Cluster::builder().prefix(prefix).start();
    let db = cluster.database();
    let found = || {
        let doctor = "SELECT detail || remedy FROM meshhook_secrets.doctor() WHERE finding = $1";
        let row = db.auditor().client.query_opt(doctor, &[&"restart_needed"]).unwrap();
        row.map(|row| row.get::<_, String>(0))
    };
    assert_eq!(found(), None);
    let control = prefix.extensions().join("meshhook_secrets.control");
    let text = fs::read_to_string(&control).unwrap();
    fs::write(&control, text.replace(&new, "10.0.0")).unwrap();
    let said = found().unwrap();
    assert!(said.contains("10.0.0") && said.contains(&new) && said.contains("Restart"), "{said}");
    fs::write(&control, text).unwrap();
    assert_eq!(found(), None);
}

// --- helpers ---------------------------------------------------------------------------------------

/// The tree of the old version; without the history of the repository there is none, and nothing to test.
fn released() -> Option<PathBuf> {
    let mut script = Command::new(Prefix::repository().join("scripts/released"));
    let output = script.arg(&*OLD).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(3) {
        // Not by eprintln: of a test that passes nobody would see it.
        let line = format!("NOT RUN, for want of {}: {}\n", *OLD, said.trim());
        stderr().write_all(line.as_bytes()).unwrap();
        return None;
    }
    assert!(output.status.success(), "{said}");
    Some(String::from_utf8_lossy(&output.stdout).trim().into())
}

/// An installation that has this version alone.
fn install(released: &Path) -> &'static Prefix {
    let prefix = Prefix::own();
    prefix.uninstall();
    prefix.install(released);
    prefix
}

fn version(db: &Database<'_>) -> String {
    let version = "SELECT extversion FROM pg_extension WHERE extname = 'meshhook_secrets'";
    db.superuser().query_one(version, &[]).unwrap().get(0)
}

/// A user with a secret.
struct World {
    database: String,
    user: Uuid,
    project: Uuid,
}

impl World {
    fn new(db: &Database<'_>) -> Self {
        let user = Uuid::new_v4();
        let world = World { database: db.name().into(), user, project: db.project(user) };
        let put = "SELECT meshhook_secrets.secret_put($1, 'TOKEN', 'value')";
        db.user(user).query(put, &[&world.project]).unwrap();
        world
    }

    /// The secret can be revealed, as the application's server does it.
    fn is_readable(&self, cluster: &Cluster) {
        let mut service = None;
        eventually("the server has it", || {
            service = cluster.try_connect(&self.database, "authenticator").ok();
            service.is_some()
        });
        let mut service = service.unwrap();
        service.batch_execute("SET ROLE service_role").unwrap();
        let get = "SELECT meshhook_secrets.secret_get($1, 'TOKEN')";
        // A standby may still have to replay it.
        eventually("it is revealed", || match service.query_one(get, &[&self.project]) {
            Ok(row) => row.get::<_, &str>(0) == "value",
            Err(error) => {
                let code = error.code().map(|code| code.code().to_owned());
                assert!(matches!(code.as_deref(), Some("PT404" | "42501")), "{error:?}");
                false
            }
        });
    }
}
