//! Logical replication to a server of its own, by the commands of docs/replication.md.

use std::collections::BTreeMap;

use memchr::memmem;
use postgres::Client;
use support::{Cluster, ClusterBuilder, Database, KEY_A, KEY_B, eventually, expect_error};
use uuid::Uuid;

use crate::calls::{Does, make_all, make_roles, refused};
use crate::{documented, get, operate, project, put};

const TABLES: [&str; 5] =
    ["kek_storage", "data_keys", "project_secrets", "secret_versions", "rotation_jobs"];
const PROJECT: &str = "5709e000-0000-4000-8000-000000000001";

#[test]
fn a_subscriber_reveals_records_for_itself_and_changes_nothing() {
    let (here, elsewhere) = (publisher().start(), subscriber().start());
    let (db, there) = (here.database(), elsewhere.database());
    let alice = Uuid::new_v4();
    let project = project(&db, alice, &["TOKEN", "GONE"]);
    let delete = "SELECT FROM meshhook_secrets.secret_delete($1, 'GONE')";
    db.user(alice).query(delete, &[&project]).unwrap();
    publish(&db);
    // Decoding shows what travels.
    let slot = "SELECT pg_create_logical_replication_slot('look', 'pgoutput')";
    db.superuser().query(slot, &[]).unwrap();
    subscribe(&there, &here, &db);
    same(&db, &there);
    let mut reader = there.user(alice);
    assert_eq!(get(&mut reader, project, "TOKEN").unwrap(), "token");
    assert_eq!(get(&mut there.service(), project, "TOKEN").unwrap(), "token");

    // It follows, also through a rotation, which only the publisher does.
    put(&mut db.user(alice), project, "TOKEN", "a newer token").unwrap();
    let later = crate::project(&db, alice, &["LATER"]);
    operate(&db, "kek_rotate('published')").unwrap();
    is_finished(&db);
    same(&db, &there);
    assert_eq!(get(&mut reader, project, "TOKEN").unwrap(), "a newer token");
    expect_error(get(&mut reader, project, "GONE"), "PT410");
    // The host's own tables are the host's to replicate.
    expect_error(get(&mut reader, later, "LATER"), "42501");
    let peek = "SELECT data FROM pg_logical_slot_peek_binary_changes('look', NULL, NULL,
        'proto_version', '1', 'publication_names', 'secrets')";
    let decoded: Vec<u8> = db
        .superuser()
        .query(peek, &[])
        .unwrap()
        .iter()
        .flat_map(|row| row.get::<_, Vec<u8>>(0))
        .collect();
    assert!(memmem::find(&decoded, b"LATER").is_some(), "names are shown");
    // Bytes are sent as hexadecimal digits.
    for value in ["a newer token", &hex("a newer token"), "later", &hex("later")] {
        assert!(memmem::find(&decoded, value.as_bytes()).is_none(), "decoded: {value}");
    }
    db.superuser().query("SELECT pg_drop_replication_slot('look')", &[]).unwrap();

    // It changes nothing but what is its own.
    make_roles(&there);
    let before = contents(&there);
    let mut written = 0;
    make_all(&there, alice, project, |call, does, answer| match does {
        Does::Read | Does::Keep => drop(answer.unwrap_or_else(|error| panic!("{call}: {error:?}"))),
        Does::Write => {
            refused(call, answer).hint("DROP SUBSCRIPTION");
            written += 1;
        }
    });
    assert!(written > 20, "{written}");
    assert_eq!(contents(&there), before);
    // What somebody has put into its settings does not make it rotate by itself.
    let schedule = r#"INSERT INTO meshhook_secrets.settings VALUES ('kek', '{"auto_rotate_microseconds": 1}')"#;
    let visits = maintenance_visits(&elsewhere);
    there.superuser().batch_execute(schedule).unwrap();
    eventually("the worker looks", || maintenance_visits(&elsewhere) > visits);
    assert_eq!(contents(&there), before);

    let finding = "SELECT count(*) FROM meshhook_secrets.doctor() WHERE finding = 'subscription'";
    assert_eq!(there.superuser().query_one(finding, &[]).unwrap().get::<_, i64>(0), 1);

    // Its log is its own.
    let mut auditor = there.auditor();
    auditor.assert_good();
    assert_eq!(auditor.search("action => 'secret_put', outcome => 'ok'").len(), 0);
    assert!(auditor.search("action => 'secret_get', outcome => 'ok'").len() >= 3);
    // Not even tried.
    assert_eq!(auditor.search("action => 'kek_rotate', actor => 'system'").len(), 0);
    db.auditor().assert_good();

    // Not even a disabled subscription lets writers in.
    there.superuser().batch_execute("ALTER SUBSCRIPTION secrets DISABLE").unwrap();
    expect_error(put(&mut reader, project, "TOKEN", "x"), "25006");
    there.superuser().batch_execute("ALTER SUBSCRIPTION secrets ENABLE").unwrap();
    db.delete_project(project);
    same(&db, &there);
    expect_error(get(&mut reader, project, "TOKEN"), "PT404");
}

#[test]
fn a_subscriber_becomes_independent_and_has_root_keys_of_its_own() {
    let (here, elsewhere) = (publisher().start(), subscriber().start());
    let (db, there) = (here.database(), elsewhere.database());
    let alice = Uuid::new_v4();
    let project = project(&db, alice, &["TOKEN"]);
    publish(&db);
    subscribe(&there, &here, &db);
    same(&db, &there);
    let mut reader = there.user(alice);
    // The host's tables, by whatever way.
    let host = "INSERT INTO public.projects (id, owner) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    there.superuser().execute(host, &[&project, &alice]).unwrap();
    assert_eq!(get(&mut reader, project, "TOKEN").unwrap(), "token");

    // The publisher has another root key; the subscriber has not.
    let both = format!("{KEY_B}\n{KEY_A}");
    here.write_root_key(&both);
    here.reload();
    eventually("the publisher has both keys", || loaded(&mut db.superuser()) == 2);
    operate(&db, "root_key_rotate()").unwrap();
    same(&db, &there);
    let needed = "SELECT root_key_id FROM meshhook_secrets.kek_storage";
    let needed: String = there.superuser().query_one(needed, &[]).unwrap().get(0);
    expect_error(get(&mut reader, project, "TOKEN"), "PT503").detail(&needed).hint(&needed);
    elsewhere.write_root_key(&both);
    elsewhere.reload();
    eventually("the subscriber has both keys", || loaded(&mut there.superuser()) == 2);
    assert_eq!(get(&mut reader, project, "TOKEN").unwrap(), "token");
    // Its audit key is its own.
    let audit_key = "SELECT DISTINCT root_key_id FROM meshhook_secrets.audit_keys";
    let mut superuser = there.superuser();
    let mut audit_key = || superuser.query_one(audit_key, &[]).unwrap().get::<_, String>(0);
    assert_ne!(audit_key(), needed);
    operate(&there, "root_key_rotate()").unwrap();
    assert_eq!(audit_key(), needed);
    elsewhere.write_root_key(KEY_B);
    elsewhere.reload();
    eventually("the old one is gone", || loaded(&mut there.superuser()) == 1);
    assert_eq!(get(&mut reader, project, "TOKEN").unwrap(), "token");
    there.auditor().assert_good();
    same(&db, &there);

    // It takes over.
    let drop_it = documented("sql").pop().unwrap();
    assert!(drop_it.starts_with("DROP SUBSCRIPTION"), "{drop_it}");
    there.superuser().batch_execute(&drop_it).unwrap();
    put(&mut reader, project, "TOKEN", "its own").unwrap();
    operate(&there, "kek_rotate('independent')").unwrap();
    is_finished(&there);
    assert_eq!(get(&mut reader, project, "TOKEN").unwrap(), "its own");
    assert_eq!(get(&mut db.user(alice), project, "TOKEN").unwrap(), "token");
    there.auditor().assert_good();
}

#[test]
fn single_projects_can_be_published() {
    let (here, elsewhere) = (publisher().start(), subscriber().start());
    let (db, there) = (here.database(), elsewhere.database());
    let alice = Uuid::new_v4();
    let chosen: Uuid = PROJECT.parse().unwrap();
    let other = project(&db, alice, &["OTHER"]);
    for db in [&db, &there] {
        let host = "INSERT INTO public.projects (id, owner) VALUES ($1, $2)";
        db.superuser().execute(host, &[&chosen, &alice]).unwrap();
    }
    put(&mut db.user(alice), chosen, "CHOSEN", "one").unwrap();
    publish(&db);
    let sql = documented("sql");
    let filtered = sql.iter().find(|block| block.contains("WHERE")).unwrap();
    db.superuser().batch_execute(filtered).unwrap();
    let subscribe =
        subscription(&here, &db).replace("PUBLICATION secrets", "PUBLICATION secrets_of_one");
    there.superuser().batch_execute(&subscribe).unwrap();
    let mut reader = there.user(alice);
    eventually("the project arrives", || get(&mut reader, chosen, "CHOSEN").is_ok());
    put(&mut db.user(alice), other, "OTHER", "two").unwrap();
    put(&mut db.user(alice), chosen, "CHOSEN", "two").unwrap();
    operate(&db, "kek_rotate('filtered')").unwrap();
    is_finished(&db);
    let statuses =
        "SELECT string_agg(status, ' ' ORDER BY kek_id) FROM meshhook_secrets.kek_storage";
    let mut superuser = there.superuser();
    eventually("the rotation arrives", || {
        superuser.query_one(statuses, &[]).unwrap().get::<_, &str>(0) == "retired active"
    });
    assert_eq!(get(&mut reader, chosen, "CHOSEN").unwrap(), "two");
    for table in ["data_keys", "project_secrets", "secret_versions"] {
        let projects = format!("SELECT DISTINCT project_id FROM meshhook_secrets.{table}");
        assert_eq!(
            superuser.query_one(&projects, &[]).unwrap().get::<_, Uuid>(0),
            chosen,
            "{table}"
        );
    }
    db.delete_project(chosen);
    let left = "SELECT count(*) FROM meshhook_secrets.data_keys";
    eventually("its keys are shredded there too", || {
        superuser.query_one(left, &[]).unwrap().get::<_, i64>(0) == 0
    });
}

// --- servers and what is in them ------------------------------------------------------------------

fn publisher() -> ClusterBuilder<'static> {
    Cluster::builder().setting("wal_level", "logical")
}

fn subscriber() -> ClusterBuilder<'static> {
    Cluster::builder()
        // The comings and goings of workers are at this level.
        .setting("log_min_messages", "debug1")
        .setting("max_logical_replication_workers", "8")
        .setting("max_sync_workers_per_subscription", "5")
        .setting("wal_retrieve_retry_interval", "100ms")
}

/// The publisher's commands.
fn publish(db: &Database<'_>) {
    let sql = documented("sql");
    let publish =
        sql.iter().find(|block| block.contains("CREATE PUBLICATION secrets FOR")).unwrap();
    db.superuser().batch_execute(publish).unwrap();
}

/// The subscriber's command, with the address of this publisher.
fn subscription(publisher: &Cluster, db: &Database<'_>) -> String {
    let sql = documented("sql");
    let subscribe = sql.iter().find(|block| block.contains("CREATE SUBSCRIPTION")).unwrap();
    let here = format!("host={} dbname={}", publisher.dir().display(), db.name());
    subscribe.replace("host=publisher dbname=app", &here)
}

/// Subscribes, with the projects that there are by now.
fn subscribe(there: &Database<'_>, publisher: &Cluster, db: &Database<'_>) {
    let mut superuser = there.superuser();
    let projects = db.superuser().query("SELECT id, owner FROM public.projects", &[]).unwrap();
    for row in projects {
        let (id, owner): (Uuid, Uuid) = (row.get(0), row.get(1));
        let insert = "INSERT INTO public.projects (id, owner) VALUES ($1, $2)";
        superuser.execute(insert, &[&id, &owner]).unwrap();
    }
    superuser.batch_execute(&subscription(publisher, db)).unwrap();
}

/// What is in the tables, to the last byte.
fn contents(db: &Database<'_>) -> BTreeMap<&'static str, (i64, String)> {
    let mut superuser = db.superuser();
    let mut contents = |table: &'static str| {
        let all = format!(
            "SELECT count(*), coalesce(md5(string_agg(t::text, ',' ORDER BY t::text)), '') FROM meshhook_secrets.{table} t"
        );
        let row = superuser.query_one(&all, &[]).unwrap();
        (table, (row.get(0), row.get(1)))
    };
    TABLES.into_iter().map(&mut contents).collect()
}

/// Waits until both have the same.
fn same(db: &Database<'_>, there: &Database<'_>) {
    eventually("the subscriber has it all", || contents(db) == contents(there));
    assert!(contents(there)["kek_storage"].0 > 0);
}

fn is_finished(db: &Database<'_>) {
    let running = "SELECT count(*) FROM meshhook_secrets.rotation_jobs WHERE finished_at IS NULL";
    let mut superuser = db.superuser();
    eventually("the rotation is finished", || {
        superuser.query_one(running, &[]).unwrap().get::<_, i64>(0) == 0
    });
}

/// How often a maintenance worker has come and gone in good order.
fn maintenance_visits(cluster: &Cluster) -> usize {
    let gone = |line: &&str| {
        line.contains("meshhook_secrets maintenance") && line.contains("exited with exit code 0")
    };
    cluster.log().lines().filter(gone).count()
}

fn loaded(client: &mut Client) -> i64 {
    let loaded = "SELECT count(*) FROM meshhook_secrets.root_key_status() WHERE is_loaded";
    client.query_one(loaded, &[]).unwrap().get(0)
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}
