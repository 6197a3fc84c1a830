//! The audit log of a database that was restored: whole, once, and going on.

use meshhook_secrets_core::audit::{Outcome, Record};

use crate::source::{Source, lines};
use crate::{Database, backend_pid, eventually};

/// The names of the partitions.
pub const PARTITIONS: &str =
    "SELECT c.relname::text FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid
    WHERE i.inhparent = 'meshhook_secrets.audit_log'::regclass";

/// Partitions are no members of the extension: without the schema of the dump there are none.
pub fn make_partitions(source: &Source<'_>, target: &Database<'_>) {
    let mut superuser = target.superuser();
    for partition in lines(&source.db, PARTITIONS) {
        let month = partition.trim_start_matches("audit_log_").replace('_', "-");
        let make = format!("SELECT meshhook_secrets.audit_make_partition('{month}-01 00:00 UTC')");
        let made: String = superuser.query_one(&make, &[]).unwrap().get(0);
        assert_eq!(made, partition);
    }
}

/// Has the source's log hold something of last month, and waits until all of it is sealed: then
/// nothing moves any more. The partitions that hold records, and how many.
pub fn records_of_two_months(source: &Source<'_>) -> Vec<(String, i64)> {
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
pub fn quiet(db: &Database<'_>) {
    let mut auditor = db.auditor().client;
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
pub fn the_log_is_there_and_goes_on(source: &Source<'_>, target: &Database<'_>) {
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
    let found: i64 = target.auditor().client.query_one(found, &[]).unwrap().get(0);
    assert_eq!(found, 1);
    let (ok, problems, after) = verification(target);
    assert!(ok && after > records, "{after} after {records} records, {problems:?}");
    let rows = audit_rows(target);
    assert!(before.iter().all(|row| rows.contains(row)), "nothing of the dump was changed");
}

/// What was dumped is there, once. All that may have been added is that the target loaded its root key.
pub fn assert_restored(source: &Source<'_>, target: &Database<'_>) -> Vec<String> {
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
pub fn audit_rows(db: &Database<'_>) -> Vec<String> {
    let row = |table: &&str| {
        let query = format!("SELECT '{table} ' || t::text FROM meshhook_secrets.{table} t");
        lines(db, &query)
    };
    ["audit_keys", "audit_log", "audit_pending", "audit_seals"].iter().flat_map(row).collect()
}

/// What `audit_verify` says: whether all is well, the problems, the records.
pub fn verification(db: &Database<'_>) -> (bool, Vec<String>, i64) {
    let verify = "SELECT ok, problems, records FROM meshhook_secrets.audit_verify()";
    let row = db.auditor().client.query_one(verify, &[]).unwrap();
    (row.get(0), row.get(1), row.get(2))
}
