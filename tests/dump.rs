//! A database with secrets survives `pg_dump` and restore into another server. With the same root
//! key everything is readable, and everything that guards it is in force again; with another one it
//! is sealed and says which key it needs. The dump itself holds no plaintext and no key, restoring
//! encrypts nothing anew, and who is no superuser cannot dump what is sealed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::Duration;

use memchr::memmem;
use meshhook_secrets_core::audit::{Outcome, Record};
use postgres::Client;
use support::{
    Cluster, Database, KEY_A, KEY_B, RootKey, backend_pid, eventually, expect_error, run,
};
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
    quiet(&source.db);
    make_partitions(&source, &target);
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

// --- the audit log --------------------------------------------------------------------------

#[test]
fn audit_records_of_two_months_are_restored_once_and_the_chain_goes_on() {
    let source = Source::new();
    records_of_two_months(&source);
    let here = Cluster::shared().empty_database();
    restore_plain(&here, &source.dump(&["--format=plain"]));
    let elsewhere = target().empty_database();
    restore_custom(&elsewhere, &source.dump(&["--format=custom"]), &[]);
    for target in [&here, &elsewhere] {
        the_log_is_there_and_goes_on(&source, target);
    }
}

#[test]
fn partitions_are_guarded_after_a_restore_as_before() {
    let source = Source::new();
    records_of_two_months(&source);
    let target = target().empty_database();
    restore_custom(&target, &source.dump(&["--format=custom"]), &[]);
    for (what, query, least) in PARTITION_GUARDS {
        let (before, after) = (lines(&source.db, query), lines(&target, query));
        assert!(before.len() >= *least, "{what}: {before:?}");
        assert_eq!(before, after, "{what}");
    }
    let partitions = lines(&target, PARTITIONS);
    for partition in &partitions {
        let select = format!("SELECT * FROM meshhook_secrets.{partition}");
        for mut client in [target.service(), target.user(source.alice)] {
            expect_error(client.query(&select, &[]), "42501");
        }
        // Not even whom somebody grants it.
        let grant = format!("GRANT ALL ON meshhook_secrets.{partition} TO service_role");
        target.superuser().batch_execute(&grant).unwrap();
        let delete = format!("DELETE FROM meshhook_secrets.{partition}");
        expect_error(target.service().execute(&delete, &[]), "42501").message("directly");
    }
}

/// At least so many lines for the two months with records and the one made ahead.
const PARTITION_GUARDS: &[(&str, &str, usize)] = &[
    (
        "row-level security",
        "SELECT format('%s %s %s %s', c.relname, c.relrowsecurity, c.relforcerowsecurity, c.relowner::regrole)
         FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid
         WHERE i.inhparent = 'meshhook_secrets.audit_log'::regclass AND c.relrowsecurity AND c.relforcerowsecurity",
        3,
    ),
    (
        "triggers",
        "SELECT format('%s %s', t.tgenabled, pg_get_triggerdef(t.oid))
         FROM pg_trigger t JOIN pg_inherits i ON i.inhrelid = t.tgrelid
         WHERE i.inhparent = 'meshhook_secrets.audit_log'::regclass AND NOT t.tgisinternal",
        3,
    ),
    (
        "grants to others, of which there are none, and bounds",
        "SELECT format('%s %s %s', c.relname, pg_get_expr(c.relpartbound, c.oid),
                (SELECT string_agg(a::text, ',') FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner))
         FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid
         WHERE i.inhparent = 'meshhook_secrets.audit_log'::regclass",
        3,
    ),
    (
        "indexes",
        "SELECT indexdef FROM pg_indexes
         WHERE schemaname = 'meshhook_secrets' AND tablename LIKE 'audit\\_log\\_2%'",
        6,
    ),
];

#[test]
fn audit_records_restored_apart_from_their_tables_are_whole() {
    let source = Source::new();
    let months = records_of_two_months(&source);
    // Nobody may use the target in between: the chain would begin there.
    let apart = target().empty_database();
    restore_plain(&apart, &source.dump(&["--schema-only"]));
    assert_eq!(count(&mut apart.superuser(), "audit_log"), 0);
    restore_plain(&apart, &source.dump(&["--data-only"]));
    the_log_is_there_and_goes_on(&source, &apart);

    // A fresh extension has no partitions for what happened elsewhere: they are to be made first.
    let fresh = target().empty_database();
    fresh.superuser().batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();
    make_partitions(&source, &fresh);
    let dump = source.dump(&["--format=custom", "--data-only"]);
    restore_custom(&fresh, &dump, &["--data-only", "--schema=meshhook_secrets"]);
    assert_restored(&source, &fresh);
    let (ok, problems, records) = verification(&fresh);
    assert!(ok && records >= months.iter().map(|(_, count)| count).sum(), "{problems:?}");
}

#[test]
fn a_slow_restore_is_not_taken_for_tampering() {
    let source = Source::new();
    records_of_two_months(&source);
    let dump = source.dump(&["--format=custom"]);
    let mut list = target().command("pg_restore");
    let list = run(list.arg("--list").arg(&dump));
    // The parts of the log as they are loaded, one after the other; a long log takes its time, and
    // parallel jobs (-j) load in another order.
    let is =
        |line: &&str, part: &str| line.contains(&format!("TABLE DATA meshhook_secrets {part}"));
    let parts = ["audit_head", "audit_keys", "audit_log_", "audit_pending", "audit_seals"];
    for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]] {
        let target = target().empty_database();
        let restore = |lines: Vec<&str>| {
            let file = target.cluster().dir().join(format!("{}.list", Uuid::new_v4()));
            fs::write(&file, lines.join("\n")).unwrap();
            restore_custom(&target, &dump, &["--use-list", file.to_str().unwrap()]);
        };
        let of_data = |line: &&str| parts.iter().any(|part| is(line, part));
        restore(list.lines().filter(|line| !of_data(line)).collect());
        for part in order {
            restore(list.lines().filter(|line| is(line, parts[part])).collect());
            // Nothing shall happen, so there is nothing to wait for.
            sleep(Duration::from_millis(700));
        }
        the_log_is_there_and_goes_on(&source, &target);
        let alarm =
            "SELECT count(*) FROM meshhook_secrets.audit_log WHERE action = 'audit_tampered'";
        assert_eq!(target.superuser().query_one(alarm, &[]).unwrap().get::<_, i64>(0), 0);
    }
}

/// Partitions are no members of the extension: without the schema of the dump there are none.
fn make_partitions(source: &Source, target: &Database<'_>) {
    let mut superuser = target.superuser();
    for partition in lines(&source.db, PARTITIONS) {
        let month = partition.trim_start_matches("audit_log_").replace('_', "-");
        let make = format!("SELECT meshhook_secrets.audit_make_partition('{month}-01 00:00 UTC')");
        let made: String = superuser.query_one(&make, &[]).unwrap().get(0);
        assert_eq!(made, partition);
    }
}

const PARTITIONS: &str =
    "SELECT c.relname::text FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid
    WHERE i.inhparent = 'meshhook_secrets.audit_log'::regclass";

/// Has the source's log hold something of last month, and waits until all of it is sealed: then
/// nothing moves any more. The partitions that hold records, and how many.
fn records_of_two_months(source: &Source) -> Vec<(String, i64)> {
    let mut superuser = source.db.superuser();
    let last_month =
        "SELECT (extract(epoch FROM date_trunc('month', now(), 'UTC') - interval '1 day')
        - extract(epoch FROM '2000-01-01 00:00 UTC'::timestamptz))::bigint * 1000000";
    let time: i64 = superuser.query_one(last_month, &[]).unwrap().get(0);
    superuser.batch_execute("SET session_replication_role = replica").unwrap();
    for number in 0..5 {
        // As if it had waited for its seal since then.
        let mut record = Record::new(time + number, "secret_get", Outcome::Ok, "authenticator");
        record.project_id = Some(*source.project.as_bytes());
        record.purpose = Some(format!("last month {number}"));
        let insert = "INSERT INTO meshhook_secrets.audit_pending (record) VALUES ($1)";
        superuser.execute(insert, &[&record.encode()]).unwrap();
    }
    for _ in 0..3 {
        source.get(&mut source.db.user(source.alice), "TOKEN", None).unwrap();
    }
    quiet(&source.db);
    let months = months_of(&source.db);
    assert_eq!(months.len(), 2, "{months:?}");
    assert_eq!(months[0].1, 5, "{months:?}");
    months
}

fn months_of(db: &Database<'_>) -> Vec<(String, i64)> {
    let months = "SELECT tableoid::regclass::text, count(*) FROM meshhook_secrets.audit_log
        WHERE application_name IS DISTINCT FROM 'after' GROUP BY 1 ORDER BY 1";
    let rows = db.superuser().query(months, &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Waits until all that has happened so far is sealed.
fn quiet(db: &Database<'_>) {
    let mut auditor = auditor(db);
    auditor.query("SELECT * FROM meshhook_secrets.audit_search(page_size => 1)", &[]).unwrap();
    let pid = backend_pid(&mut auditor);
    let name = format!("quiet {pid}");
    let set = format!("SET application_name = '{name}'");
    auditor.batch_execute(&set).unwrap();
    auditor.query("SELECT * FROM meshhook_secrets.audit_search(page_size => 1)", &[]).unwrap();
    // Its own record is the last.
    let mut superuser = db.superuser();
    let there = "SELECT (SELECT count(*) FROM meshhook_secrets.audit_pending) = 0
        AND EXISTS (SELECT FROM meshhook_secrets.audit_log WHERE application_name = $1)";
    eventually("all is sealed", || superuser.query_one(there, &[&name]).unwrap().get(0));
}

/// Row for row what was dumped; it verifies, and what happens now is added to the same chain.
fn the_log_is_there_and_goes_on(source: &Source, target: &Database<'_>) {
    let before = assert_restored(source, target);
    let (ok, problems, records) = verification(target);
    assert!(ok && records as usize >= 8, "{records} records, {problems:?}");
    let last = "SELECT max(seal_id) FROM meshhook_secrets.audit_seals";
    let last: i64 = source.db.superuser().query_one(last, &[]).unwrap().get(0);

    let mut alice = target.user(source.alice);
    alice.batch_execute("SET application_name = 'after'").unwrap();
    assert_eq!(source.get(&mut alice, "TOKEN", None).unwrap(), source.value);
    quiet(target);
    let next = "SELECT count(*) FROM meshhook_secrets.audit_seals WHERE previous_id = $1";
    let next: i64 = target.superuser().query_one(next, &[&last]).unwrap().get(0);
    assert_eq!(next, 1, "the next seal follows the last one of the dump");
    let found = "SELECT count(*) FROM meshhook_secrets.audit_search(name => 'TOKEN')
        WHERE application_name = 'after' AND outcome = 'ok'";
    let found: i64 = auditor(target).query_one(found, &[]).unwrap().get(0);
    assert_eq!(found, 1);
    let (ok, problems, after) = verification(target);
    assert!(ok && after > records, "{after} after {records} records, {problems:?}");
    let rows = audit_rows(target);
    assert!(before.iter().all(|row| rows.contains(row)), "nothing of the dump was changed");
}

/// What was dumped is there, once. All that may have been added is that the target loaded its root key.
fn assert_restored(source: &Source, target: &Database<'_>) -> Vec<String> {
    let (before, after) = (audit_rows(&source.db), audit_rows(target));
    for row in &before {
        assert_eq!(after.iter().filter(|it| *it == row).count(), 1, "{row}");
    }
    let added = after.iter().filter(|row| !before.contains(row));
    let mut added = added.filter(|row| row.starts_with("audit_log"));
    assert!(
        added.all(|row| row.contains(",root_key_load,")),
        "neither lost nor doubled: {after:?}"
    );
    before
}

/// The rows of the audit tables, each after the name of its table. The head is rewritten with every
/// seal: whether it is right, `audit_verify` says.
fn audit_rows(db: &Database<'_>) -> Vec<String> {
    let row = |table: &&str| {
        let query = format!("SELECT '{table} ' || t::text FROM meshhook_secrets.{table} t");
        lines(db, &query)
    };
    ["audit_keys", "audit_log", "audit_pending", "audit_seals"].iter().flat_map(row).collect()
}

fn verification(db: &Database<'_>) -> (bool, Vec<String>, i64) {
    let verify = "SELECT ok, problems, records FROM meshhook_secrets.audit_verify()";
    let row = auditor(db).query_one(verify, &[]).unwrap();
    (row.get(0), row.get(1), row.get(2))
}

/// Who may see the whole log, and nothing else.
fn auditor(db: &Database<'_>) -> Client {
    static MADE: LazyLock<()> = LazyLock::new(|| {
        for cluster in [Cluster::shared(), target()] {
            // The extension makes the role.
            drop(cluster.database());
            let make = "CREATE ROLE dump_auditor LOGIN BYPASSRLS IN ROLE meshhook_secrets_auditor";
            cluster.connect("postgres", "postgres").batch_execute(make).unwrap();
        }
    });
    LazyLock::force(&MADE);
    db.connect("dump_auditor")
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
