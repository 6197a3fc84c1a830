//! A database with secrets, what must be of it wherever it is restored, and how that is done.

use std::path::{Path, PathBuf};
use std::process::Command;

use postgres::Client;
use uuid::Uuid;

use crate::{Cluster, Database, expect_error, run};

/// A database with secrets of Alice's: TOKEN in two versions, BEFORE_NOON, DELETED, and one in
/// another project of hers. Eve is a stranger, Bob a member.
pub struct Source<'c> {
    /// Where it is.
    pub db: Database<'c>,
    /// The owner of both projects.
    pub alice: Uuid,
    /// A member of the first.
    pub bob: Uuid,
    /// A stranger.
    pub eve: Uuid,
    /// Has all secrets but one.
    pub project: Uuid,
    /// Has BINARY.
    pub other_project: Uuid,
    /// TOKEN.
    pub value: String,
    /// TOKEN's first version.
    pub old_value: String,
    /// BEFORE_NOON.
    pub other_value: String,
    /// DELETED.
    pub deleted: String,
}

impl Source<'static> {
    /// In a database of the shared server.
    pub fn shared() -> Self {
        Self::in_database(Cluster::shared().database())
    }
}

impl<'c> Source<'c> {
    /// In a database made for it.
    pub fn in_database(db: Database<'c>) -> Self {
        let [alice, bob, eve] = [(); 3].map(|()| Uuid::new_v4());
        let (project, other_project) = (db.project(alice), db.project(alice));
        db.add_member(project, bob);
        let random = || format!("plain-{}", Uuid::new_v4().simple());
        let source = Self {
            db,
            alice,
            bob,
            eve,
            project,
            other_project,
            value: random(),
            old_value: random(),
            other_value: random(),
            deleted: random(),
        };
        let mut client = source.db.user(alice);
        for (name, value) in [
            ("TOKEN", &source.old_value),
            ("TOKEN", &source.value),
            ("BEFORE_NOON", &source.other_value),
            ("DELETED", &source.deleted),
        ] {
            let put = "SELECT meshhook_secrets.secret_put($1, $2, $3, description => 'dumped',
                expires_at => now() + interval '1 year', metadata => '{\"a\": [1, null]}')";
            client.query(put, &[&project, &name, value]).unwrap();
        }
        let put = "SELECT meshhook_secrets.secret_put_bytes($1, 'BINARY', '\\x00ff00')";
        client.query(put, &[&other_project]).unwrap();
        let delete = "SELECT meshhook_secrets.secret_delete($1, 'DELETED')";
        client.query(delete, &[&project]).unwrap();
        source
    }

    /// Dumps the database to a file.
    pub fn dump(&self, options: &[&str]) -> PathBuf {
        let cluster = self.db.cluster();
        let file = cluster.dir().join(format!("{}.dump", Uuid::new_v4()));
        let mut dump = cluster.command("pg_dump");
        run(dump.args(options).arg("--file").arg(&file).arg(self.db.name()));
        file
    }

    /// A reveal of the first project's.
    pub fn get(
        &self,
        client: &mut Client,
        name: &str,
        version: Option<i32>,
    ) -> Result<String, postgres::Error> {
        let get = "SELECT meshhook_secrets.secret_get($1, $2, $3)";
        client.query_one(get, &[&self.project, &name, &version]).map(|row| row.get(0))
    }

    /// The sealed value of a secret, in hexadecimal.
    pub fn sealed(&self, name: &str) -> String {
        let query = "SELECT encode(value, 'hex') FROM meshhook_secrets.secret_versions v
            JOIN meshhook_secrets.project_secrets s ON s.id = v.secret_id
            WHERE s.name = $1 AND v.version = s.current_version";
        self.db.superuser().query_one(query, &[&name]).unwrap().get(0)
    }
}

/// Restores with psql, which must neither fail nor complain.
pub fn restore_plain(target: &Database<'_>, dump: &Path) {
    let mut psql = target.cluster().command("psql");
    psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname", target.name()]);
    succeeds_silently(psql.arg("--file").arg(dump));
}

/// Restores with pg_restore, which must neither fail nor complain.
pub fn restore_custom(target: &Database<'_>, dump: &Path, options: &[&str]) {
    let mut restore = target.cluster().command("pg_restore");
    restore.args(["--exit-on-error", "--dbname", target.name()]).args(options);
    succeeds_silently(restore.arg(dump));
}

/// Neither fails nor complains.
pub fn succeeds_silently(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{command:?}: {said}");
}

/// Nothing is lost, and everybody may do what they might before, and no more. Nobody has called
/// `attach_projects` or `setup_supabase` in the target.
pub fn everything_is_there(source: &Source<'_>, target: &Database<'_>) {
    let (project, get) = (source.project, "SELECT meshhook_secrets.secret_get($1, $2)");
    for mut member in [target.user(source.alice), target.user(source.bob), target.service()] {
        assert_eq!(source.get(&mut member, "TOKEN", None).unwrap(), source.value);
        assert_eq!(source.get(&mut member, "TOKEN", Some(2)).unwrap(), source.value);
        assert_eq!(source.get(&mut member, "TOKEN", Some(1)).unwrap(), source.old_value);
        assert_eq!(source.get(&mut member, "BEFORE_NOON", None).unwrap(), source.other_value);
        expect_error(source.get(&mut member, "DELETED", None), "PT410");
        expect_error(source.get(&mut member, "NEVER", None), "PT404");
    }
    let mut alice = target.user(source.alice);
    let bytes = "SELECT meshhook_secrets.secret_get_bytes($1, 'BINARY')";
    let row = alice.query_one(bytes, &[&source.other_project]).unwrap();
    assert_eq!(row.get::<_, &[u8]>(0), [0, 255, 0]);
    let describe = "SELECT d::text FROM meshhook_secrets.secret_describe($1, 'TOKEN') d";
    let described =
        |mut client: Client| -> String { client.query_one(describe, &[&project]).unwrap().get(0) };
    assert_eq!(described(target.user(source.alice)), described(source.db.user(source.alice)));

    alice.query("SELECT meshhook_secrets.secret_undelete($1, 'DELETED')", &[&project]).unwrap();
    assert_eq!(source.get(&mut alice, "DELETED", None).unwrap(), source.deleted);
    let put = "SELECT version FROM meshhook_secrets.secret_put($1, 'TOKEN', 'after')";
    assert_eq!(alice.query_one(put, &[&project]).unwrap().get::<_, i32>(0), 3);
    assert_eq!(source.get(&mut alice, "TOKEN", None).unwrap(), "after");

    // The binding: strangers, visitors, projects that do not exist, and deletion.
    for mut stranger in [target.user(source.eve), target.anon()] {
        expect_error(source.get(&mut stranger, "TOKEN", None), "42501").hides(&source.value);
        let list = "SELECT meshhook_secrets.secret_list($1)";
        expect_error(stranger.query(list, &[&project]), "42501");
    }
    let other_member = target.user(source.bob).query(get, &[&source.other_project, &"BINARY"]);
    expect_error(other_member, "42501");
    let put = "SELECT meshhook_secrets.secret_put($1, 'TOKEN', 'value')";
    expect_error(target.service().query(put, &[&Uuid::new_v4()]), "23503");
    expect_error(target.user(source.alice).query(put, &[&Uuid::new_v4()]), "42501");

    let mut superuser = target.superuser();
    let keys = "SELECT count(*) FROM meshhook_secrets.data_keys";
    assert_eq!(superuser.query_one(keys, &[]).unwrap().get::<_, i64>(0), 2);
    target.delete_project(project);
    let left = "SELECT (SELECT count(*) FROM meshhook_secrets.project_secrets),
        (SELECT count(*) FROM meshhook_secrets.secret_versions),
        (SELECT count(*) FROM meshhook_secrets.data_keys)";
    let row = superuser.query_one(left, &[]).unwrap();
    assert_eq!([row.get::<_, i64>(0), row.get(1), row.get(2)], [1, 1, 1]);
    expect_error(target.service().query(get, &[&project, &"TOKEN"]), "42501");
}

/// The rows of all our tables, each after the name of its table.
pub fn rows(db: &Database<'_>) -> Vec<String> {
    ["kek_storage", "data_keys", "project_secrets", "secret_versions", "settings"]
        .iter()
        .flat_map(|table| {
            let query = format!("SELECT '{table} ' || t::text FROM meshhook_secrets.{table} t");
            lines(db, &query)
        })
        .collect()
}

/// The one text column of a query's rows, sorted.
pub fn lines(db: &Database<'_>, query: &str) -> Vec<String> {
    let rows = db.superuser().query(query, &[]).unwrap();
    let mut lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    lines.sort();
    lines
}

/// How many rows one of our tables has.
pub fn count(client: &mut Client, table: &str) -> i64 {
    let count = format!("SELECT count(*) FROM meshhook_secrets.{table}");
    client.query_one(&count, &[]).unwrap().get(0)
}
