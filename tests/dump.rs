//! A database with secrets survives `pg_dump` and restore into another server. With the same root
//! key everything is readable, and everything that guards it is in force again; with another one it
//! is sealed and says which key it needs. The dump itself holds no plaintext and no key, restoring
//! encrypts nothing anew, and who is no superuser cannot dump what is sealed.

use std::fs;
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::Duration;

use memchr::memmem;
use support::guards::GUARDS;
use support::restored_log::{
    PARTITIONS, assert_restored, make_partitions, quiet, records_of_two_months,
    the_log_is_there_and_goes_on, verification,
};
use support::source::{
    Source, count, everything_is_there, lines, restore_custom, restore_plain, rows,
};
use support::{Cluster, Database, KEY_A, KEY_B, RootKey, eventually, expect_error, run};
use uuid::Uuid;

// --- all of it comes back ---------------------------------------------------------------

#[test]
fn a_plain_dump_restores_everything() {
    let source = Source::shared();
    let target = target().empty_database();
    restore_plain(&target, &source.dump(&["--format=plain"]));
    everything_is_there(&source, &target);
}

#[test]
fn a_custom_dump_restores_everything() {
    let source = Source::shared();
    let target = target().empty_database();
    restore_custom(&target, &source.dump(&["--format=custom"]), &[]);
    everything_is_there(&source, &target);
}

#[test]
fn schema_and_data_restored_apart_are_everything() {
    let source = Source::shared();
    let target = target().empty_database();
    restore_plain(&target, &source.dump(&["--schema-only"]));
    assert_eq!(count(&mut target.superuser(), "project_secrets"), 0);
    restore_plain(&target, &source.dump(&["--data-only"]));
    everything_is_there(&source, &target);
}

#[test]
fn our_data_alone_can_be_restored_into_a_fresh_extension() {
    let source = Source::shared();
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
    let source = Source::shared();
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
    let source = Source::shared();
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

#[test]
fn losing_the_binding_locks_out() {
    let source = Source::shared();
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
    let source = Source::shared();
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
    let source = Source::shared();
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
    let source = Source::shared();
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
    let source = Source::shared();
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

// --- with another root key -------------------------------------------------------------

#[test]
fn with_another_root_key_it_is_sealed_until_the_right_one_is_added() {
    let source = Source::shared();
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
    let source = Source::shared();
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
    let source = Source::shared();
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

// --- target ------------------------------------------------

/// Where dumps are restored: another server with the same root key.
fn target() -> &'static Cluster {
    static TARGET: LazyLock<Cluster> = LazyLock::new(|| Cluster::builder().start());
    &TARGET
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
