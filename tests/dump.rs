//! A database with secrets survives `pg_dump` and restore into another server. With the same root
//! key everything is readable, and everything that guards it is in force again; with another one it
//! is sealed and says which key it needs. The dump itself holds no plaintext and no key, restoring
//! encrypts nothing anew, and who is no superuser cannot dump what is sealed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use memchr::memmem;
use postgres::Client;
use support::{Cluster, Database, KEY_A, KEY_B, RootKey, eventually, expect_error, run};
use uuid::Uuid;

// --- all of it comes back ---------------------------------------------------------------

#[test]
fn a_plain_dump_restores_everything() {
    let source = Source::new();
    let target = target().empty_database();
    restore_plain(&target, &source.dump(&["--format=plain"]));
    everything_is_there(&source, &target);
}

#[test]
fn a_custom_dump_restores_everything() {
    let source = Source::new();
    let target = target().empty_database();
    restore_custom(&target, &source.dump(&["--format=custom"]), &[]);
    everything_is_there(&source, &target);
}

#[test]
fn schema_and_data_restored_apart_are_everything() {
    let source = Source::new();
    let target = target().empty_database();
    restore_plain(&target, &source.dump(&["--schema-only"]));
    assert_eq!(count(&mut target.superuser(), "project_secrets"), 0);
    restore_plain(&target, &source.dump(&["--data-only"]));
    everything_is_there(&source, &target);
}

#[test]
fn our_data_alone_can_be_restored_into_a_fresh_extension() {
    let source = Source::new();
    let target = target().empty_database();
    target.superuser().batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();
    let dump = source.dump(&["--format=custom", "--data-only"]);
    restore_custom(&target, &dump, &["--data-only", "--schema=meshhook_secrets"]);
    assert_eq!(rows(&source.db), rows(&target));
    // The binding came along, but what it names is not there: that locks users out.
    target.superuser().batch_execute("SELECT meshhook_secrets.setup_supabase(true)").unwrap();
    let get = source.get(&mut target.user(source.alice), "TOKEN", None);
    expect_error(get, "42501");
    // A superuser, whom nothing binds, gets at the values: they are whole.
    let values = "SELECT string_agg(value, ',' ORDER BY name)
        FROM meshhook_secrets.secret_get_many($1)";
    let mut superuser = target.superuser();
    superuser.batch_execute("DELETE FROM meshhook_secrets.settings").unwrap();
    let values: String = superuser.query_one(values, &[&source.project]).unwrap().get(0);
    assert_eq!(values, format!("{},{}", source.other_value, source.value));
}

#[test]
fn restoring_encrypts_nothing_anew() {
    let source = Source::new();
    let target = target().empty_database();
    restore_plain(&target, &source.dump(&["--format=plain"]));
    let (before, after) = (rows(&source.db), rows(&target));
    assert_eq!(before, after);
    for bytes in ["kek_storage", "data_keys", "project_secrets", "secret_versions", "settings"] {
        assert!(before.iter().any(|row| row.starts_with(bytes)), "{bytes} is empty");
    }
}

#[test]
fn a_restored_database_is_guarded_like_the_original() {
    let source = Source::new();
    let target = target().empty_database();
    restore_custom(&target, &source.dump(&["--format=custom"]), &[]);
    for (what, query) in GUARDS {
        let (before, after) = (lines(&source.db, query), lines(&target, query));
        assert!(!before.is_empty(), "no {what}");
        assert_eq!(before, after, "{what}");
    }
    // Direct changes are refused like before, whatever the grants.
    let mut service = target.service();
    for table in ["kek_storage", "data_keys", "secret_versions", "settings"] {
        let delete = format!("DELETE FROM meshhook_secrets.{table}");
        expect_error(service.execute(&delete, &[]), "42501");
    }
    let update = "UPDATE meshhook_secrets.project_secrets SET description = 'forged'";
    expect_error(service.execute(update, &[]), "42501").message("directly");
    assert_eq!(count(&mut target.superuser(), "project_secrets"), 4);
}

/// What of the catalog decides who may do what.
const GUARDS: &[(&str, &str)] = &[
    (
        "privileges on functions",
        "SELECT format('%s %s %s', p.oid::regprocedure, a.grantee::regrole, a.privilege_type)
         FROM pg_proc p, aclexplode(p.proacl) a
         WHERE p.pronamespace = 'meshhook_secrets'::regnamespace",
    ),
    (
        "privileges on tables",
        "SELECT format('%s %s %s', c.oid::regclass, a.grantee::regrole, a.privilege_type)
         FROM pg_class c, aclexplode(c.relacl) a
         WHERE c.relnamespace = 'meshhook_secrets'::regnamespace",
    ),
    (
        "privileges on columns",
        "SELECT format('%s.%s %s %s', c.oid::regclass, t.attname, a.grantee::regrole, a.privilege_type)
         FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid, aclexplode(t.attacl) a
         WHERE c.relnamespace = 'meshhook_secrets'::regnamespace",
    ),
    (
        "privileges on the schema",
        "SELECT format('%s %s', a.grantee::regrole, a.privilege_type)
         FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'meshhook_secrets'",
    ),
    (
        "privileges on types",
        "SELECT format('%s %s %s', t.oid::regtype, a.grantee::regrole, a.privilege_type)
         FROM pg_type t, aclexplode(t.typacl) a
         WHERE t.typnamespace = 'meshhook_secrets'::regnamespace",
    ),
    (
        "row-level security",
        "SELECT format('%s %s %s', oid::regclass, relrowsecurity, relforcerowsecurity)
         FROM pg_class WHERE relnamespace = 'meshhook_secrets'::regnamespace AND relkind = 'r'",
    ),
    (
        "policies",
        "SELECT p::text FROM pg_policies p WHERE schemaname = 'meshhook_secrets'",
    ),
    (
        "triggers",
        "SELECT format('%s %s %s', tgenabled, tgrelid::regclass, pg_get_triggerdef(oid))
         FROM pg_trigger WHERE NOT tgisinternal",
    ),
    (
        "functions",
        "SELECT format('%s %s %s %s %s %s', oid::regprocedure, prosecdef, proconfig, provolatile,
                       proparallel, proisstrict)
         FROM pg_proc WHERE pronamespace = 'meshhook_secrets'::regnamespace",
    ),
    (
        "members of the extension",
        "SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend
         WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
           AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'meshhook_secrets')",
    ),
];

#[test]
fn losing_the_binding_locks_out() {
    let source = Source::new();
    let target = target().empty_database();
    restore_plain(&target, &source.dump(&["--format=plain"]));
    let mut alice = target.user(source.alice);
    assert_eq!(source.get(&mut alice, "TOKEN", None).unwrap(), source.value);

    target.superuser().execute("DELETE FROM meshhook_secrets.settings", &[]).unwrap();
    let project = source.project;
    for mut client in [alice, target.user(source.alice), target.user(source.eve)] {
        expect_error(source.get(&mut client, "TOKEN", None), "42501");
        for call in [
            "SELECT meshhook_secrets.secret_list($1)",
            "SELECT meshhook_secrets.secret_get_many($1)",
            "SELECT meshhook_secrets.secret_put($1, 'TOKEN', 'overwritten')",
            "SELECT meshhook_secrets.secret_put($1, 'NEW', 'value')",
            "SELECT meshhook_secrets.secret_delete($1, 'TOKEN')",
        ] {
            expect_error(client.query(call, &[&project]), "42501");
        }
    }
    assert_eq!(rows(&source.db).len(), rows(&target).len() + 1);

    let attach = "SELECT meshhook_secrets.attach_projects('public.projects',
        member_function => 'public.user_project_ids()')";
    target.superuser().batch_execute(attach).unwrap();
    let get = source.get(&mut target.user(source.alice), "TOKEN", None);
    assert_eq!(get.unwrap(), source.value);
}

// --- with another root key -------------------------------------------------------------

#[test]
fn with_another_root_key_it_is_sealed_until_the_right_one_is_added() {
    let source = Source::new();
    let needed = root_key_id(&source.db).unwrap();
    let cluster = Cluster::builder().root_key(RootKey::File(KEY_B.into())).start();
    let target = cluster.empty_database();
    restore_custom(&target, &source.dump(&["--format=custom"]), &[]);
    let loaded = root_key_id(&target).unwrap();
    assert_ne!(needed, loaded);

    let before = rows(&target);
    let mut alice = target.user(source.alice);
    for call in [
        "SELECT meshhook_secrets.secret_get($1, 'TOKEN')",
        "SELECT meshhook_secrets.secret_get_many($1)",
        "SELECT meshhook_secrets.secret_put($1, 'TOKEN', 'value')",
        "SELECT meshhook_secrets.secret_put($1, 'NEW', 'value')",
        "SELECT meshhook_secrets.secret_undelete($1, 'DELETED')",
    ] {
        expect_error(alice.query(call, &[&source.project]), "PT503")
            .detail(&needed)
            .detail(&loaded)
            .hint(&needed);
    }
    // A project without a data key is not started with the wrong root key either.
    let project = target.project(source.alice);
    let put = "SELECT meshhook_secrets.secret_put($1, 'NEW', 'value')";
    expect_error(alice.query(put, &[&project]), "PT503").detail(&needed);
    assert_eq!(rows(&target), before);
    // Looking around needs no key.
    let list = "SELECT count(*) FROM meshhook_secrets.secret_list($1)";
    assert_eq!(alice.query_one(list, &[&source.project]).unwrap().get::<_, i64>(0), 2);

    let status = "SELECT is_loaded, keks FROM meshhook_secrets.root_key_status()
        WHERE root_key_id = $1";
    let row = target.superuser().query_one(status, &[&needed]).unwrap();
    assert_eq!((row.get::<_, bool>(0), row.get::<_, i64>(1)), (false, 1));
    cluster.write_root_key(&format!("{KEY_B}\n# of the server that was dumped\n{KEY_A}"));
    cluster.reload();
    eventually("the second root key is loaded", || {
        target.superuser().query_one(status, &[&needed]).unwrap().get(0)
    });
    everything_is_there(&source, &target);
}

// --- what a dump holds -------------------------------------------------------------------

#[test]
fn a_dump_holds_no_plaintext_and_no_key() {
    let source = Source::new();
    for format in [&["--format=plain"][..], &["--format=plain", "--inserts"], &["--format=tar"]] {
        let dump = fs::read(source.dump(format)).unwrap();
        // It is a dump, and looking for text in it works.
        assert!(memmem::find(&dump, b"BEFORE_NOON").is_some());
        for plaintext in [&source.value, &source.old_value, &source.other_value, &source.deleted] {
            assert_absent(&dump, plaintext.as_bytes());
        }
        assert_absent(&dump, KEY_A.as_bytes());
        assert_absent(&dump, &from_hex(KEY_A));
    }
    let dump = fs::read(source.dump(&["--format=plain"])).unwrap();
    let sealed: String = source.sealed("TOKEN");
    assert!(memmem::find(&dump, sealed.as_bytes()).is_some(), "ciphertext is dumped");
}

#[test]
fn who_is_no_superuser_dumps_no_ciphertext() {
    let source = Source::new();
    let cluster = source.db.cluster();
    let mut superuser = source.db.superuser();
    let suffix = Uuid::new_v4().simple();
    let sealed = [source.sealed("TOKEN"), source.sealed("BEFORE_NOON")];
    let dump = |role: &str, options: &[&str]| {
        let output = cluster
            .command("pg_dump")
            .args(["--username", role])
            .args(options)
            .arg(source.db.name())
            .output()
            .unwrap();
        (output.status.success(), output.stdout)
    };
    // The superuser's own dump shows that the ciphertext would be found.
    let (done, everything) = dump("postgres", &[]);
    assert!(
        done && sealed.iter().all(|bytes| memmem::find(&everything, bytes.as_bytes()).is_some())
    );

    for granted in [
        "",
        "pg_read_all_data",
        "authenticated",
        "service_role",
        "meshhook_secrets_writer, meshhook_secrets_reader, meshhook_secrets_kek_admin",
        "pg_read_all_data, meshhook_secrets_writer, meshhook_secrets_reader",
    ] {
        let role = format!("dumper_{suffix}");
        let grant = if granted.is_empty() { String::new() } else { format!("IN ROLE {granted}") };
        superuser.batch_execute(&format!("CREATE ROLE {role} LOGIN INHERIT {grant}")).unwrap();
        let options: [&[&str]; 4] = [
            &[],
            &["--enable-row-security"],
            &["--data-only", "--enable-row-security"],
            &["--table=meshhook_secrets.*", "--enable-row-security"],
        ];
        for options in options {
            let (done, dumped) = dump(&role, options);
            for bytes in &sealed {
                assert_absent(&dumped, bytes.as_bytes());
            }
            if options.is_empty() {
                assert!(!done, "member of {granted:?} dumps without an error");
            }
        }
        superuser.batch_execute(&format!("DROP ROLE {role}")).unwrap();
    }
}

// --- source, target, and what must be in it ------------------------------------------------

/// Where dumps are restored: another server with the same root key.
fn target() -> &'static Cluster {
    static TARGET: LazyLock<Cluster> = LazyLock::new(|| Cluster::builder().start());
    &TARGET
}

/// A database with secrets of Alice's: TOKEN in two versions, BEFORE_NOON, DELETED, and one in
/// another project of hers. Eve is a stranger, Bob a member.
struct Source {
    db: Database<'static>,
    alice: Uuid,
    bob: Uuid,
    eve: Uuid,
    project: Uuid,
    other_project: Uuid,
    value: String,
    old_value: String,
    other_value: String,
    deleted: String,
}

impl Source {
    fn new() -> Self {
        let db = Cluster::shared().database();
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
    fn dump(&self, options: &[&str]) -> PathBuf {
        let cluster = self.db.cluster();
        let file = cluster.dir().join(format!("{}.dump", Uuid::new_v4()));
        let mut dump = cluster.command("pg_dump");
        run(dump.args(options).arg("--file").arg(&file).arg(self.db.name()));
        file
    }

    fn get(
        &self,
        client: &mut Client,
        name: &str,
        version: Option<i32>,
    ) -> Result<String, postgres::Error> {
        let get = "SELECT meshhook_secrets.secret_get($1, $2, $3)";
        client.query_one(get, &[&self.project, &name, &version]).map(|row| row.get(0))
    }

    /// The sealed value of a secret, in hexadecimal.
    fn sealed(&self, name: &str) -> String {
        let query = "SELECT encode(value, 'hex') FROM meshhook_secrets.secret_versions v
            JOIN meshhook_secrets.project_secrets s ON s.id = v.secret_id
            WHERE s.name = $1 AND v.version = s.current_version";
        self.db.superuser().query_one(query, &[&name]).unwrap().get(0)
    }
}

fn restore_plain(target: &Database<'_>, dump: &Path) {
    let mut psql = target.cluster().command("psql");
    psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname", target.name()]);
    succeeds_silently(psql.arg("--file").arg(dump));
}

fn restore_custom(target: &Database<'_>, dump: &Path, options: &[&str]) {
    let mut restore = target.cluster().command("pg_restore");
    restore.args(["--exit-on-error", "--dbname", target.name()]).args(options);
    succeeds_silently(restore.arg(dump));
}

/// Neither fails nor complains.
fn succeeds_silently(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{command:?}: {said}");
}

/// Nothing is lost, and everybody may do what they might before, and no more. Nobody has called
/// `attach_projects` or `setup_supabase` in the target.
fn everything_is_there(source: &Source, target: &Database<'_>) {
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
fn rows(db: &Database<'_>) -> Vec<String> {
    ["kek_storage", "data_keys", "project_secrets", "secret_versions", "settings"]
        .iter()
        .flat_map(|table| {
            let query = format!("SELECT '{table} ' || t::text FROM meshhook_secrets.{table} t");
            lines(db, &query)
        })
        .collect()
}

/// The one text column of a query's rows, sorted.
fn lines(db: &Database<'_>, query: &str) -> Vec<String> {
    let rows = db.superuser().query(query, &[]).unwrap();
    let mut lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    lines.sort();
    lines
}

fn count(client: &mut Client, table: &str) -> i64 {
    let count = format!("SELECT count(*) FROM meshhook_secrets.{table}");
    client.query_one(&count, &[]).unwrap().get(0)
}

fn root_key_id(db: &Database<'_>) -> Option<String> {
    let status = "SELECT root_key_id FROM meshhook_secrets.root_key_status() WHERE is_current";
    db.superuser().query_opt(status, &[]).unwrap().map(|row| row.get(0))
}

/// Not there as it is, and not in hexadecimal.
#[track_caller]
fn assert_absent(haystack: &[u8], needle: &[u8]) {
    let hex: String = needle.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(memmem::find(haystack, needle).is_none(), "found as it is");
    assert!(memmem::find(haystack, hex.as_bytes()).is_none(), "found in hexadecimal");
}

fn from_hex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
