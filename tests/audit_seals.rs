//! The chain of seals over the audit log: whatever a superuser changes, removes, inserts, exchanges or
//! puts back is found; pruning, rotating the keys and losing them leave it as it should be.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use meshhook_secrets_core::audit::{Outcome, Record};
use postgres::{Client, Transaction};
use serde_json::Value;
use support::audit::{Auditor, Verified, make_role, verify};
use support::{Cluster, Database, KEY_A, KEY_B, eventually, expect_error};
use uuid::Uuid;

const PUT: &str = "SELECT version FROM meshhook_secrets.secret_put($1, $2, $3)";
const GET: &str = "SELECT meshhook_secrets.secret_get($1, $2)";
/// Records of this month, this long ago, lie in another partition.
const MONTH: i64 = 31 * 86_400_000_000;

// --- what a superuser does is found -----------------------------------------------------------------

#[test]
fn every_changed_column_of_a_record_is_found() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    w.fill();
    let ids = w.ids("SELECT id FROM meshhook_secrets.audit_log ORDER BY id");
    let columns = w.columns("audit_log");
    assert_eq!(columns.len(), 21, "{columns:?}");
    for id in [ids[0], ids[ids.len() / 2], ids[ids.len() - 1]] {
        let seal = w.seal_of(id);
        for (column, kind) in &columns {
            for change in changes(column, kind) {
                let change = format!(
                    "UPDATE meshhook_secrets.audit_log SET {column} = {change} WHERE id = {id}"
                );
                let verified = w.after(&[&change]);
                // Where it stood already is no change.
                if verified.is_none() && change.contains("= NULL") {
                    continue;
                }
                let verified = verified.unwrap_or_else(|| panic!("{change} changes nothing"));
                assert_found(&verified, &change, "");
                let text = verified.problems.join("; ");
                if column != "id" {
                    assert!(text.contains(&seal.to_string()), "{change}: not of {seal}: {text}");
                }
            }
        }
    }
    w.auditor.assert_good();
}

#[test]
fn every_changed_column_of_a_seal_and_of_the_head_is_found() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    w.fill();
    let seals = w.ids("SELECT seal_id FROM meshhook_secrets.audit_seals ORDER BY seal_id");
    let columns = w.columns("audit_seals");
    assert_eq!(columns.len(), 12, "{columns:?}");
    for seal in [seals[0], seals[seals.len() / 2], seals[seals.len() - 1]] {
        for (column, kind) in &columns {
            for change in changes(column, kind) {
                let change = format!(
                    "UPDATE meshhook_secrets.audit_seals SET {column} = {change} WHERE seal_id = {seal}"
                );
                let Some(verified) = w.after(&[&change]) else { continue };
                assert_found(&verified, &change, "");
            }
        }
    }
    let columns = w.columns("audit_head");
    assert_eq!(columns.len(), 10, "{columns:?}");
    for (column, kind) in columns.iter().filter(|(column, _)| column != "one") {
        for change in changes(column, kind) {
            let change = format!("UPDATE meshhook_secrets.audit_head SET {column} = {change}");
            let Some(verified) = w.after(&[&change]) else { continue };
            assert_found(&verified, &change, "head");
        }
    }
    w.auditor.assert_good();
}

#[test]
fn removed_inserted_and_exchanged_records_are_found() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    w.fill();
    let ids = w.ids("SELECT id FROM meshhook_secrets.audit_log ORDER BY id");
    let (first, middle, last) = (ids[0], ids[ids.len() / 2], ids[ids.len() - 1]);
    let log = "meshhook_secrets.audit_log";
    for id in [first, middle, last] {
        let seal = w.seal_of(id);
        let found = w.after(&[&format!("DELETE FROM {log} WHERE id = {id}")]).unwrap();
        assert_found(&found, "removed", &format!("seal {seal} covers"));
    }
    // A copy under another id: before all, between, after all; and under the same id at another time.
    let columns: Vec<String> = w.columns("audit_log").into_iter().map(|(it, _)| it).collect();
    let rest = columns[2..].join(", ");
    let copy = |id: &str, time: &str, from: i64| {
        format!(
            "INSERT INTO {log} ({all}) SELECT {id}, {time}, {rest} FROM {log} WHERE id = {from}",
            all = columns.join(", ")
        )
    };
    let gap = "SELECT b.from_id - 1 FROM meshhook_secrets.audit_seals a
        JOIN meshhook_secrets.audit_seals b ON b.previous_id = a.seal_id
        WHERE b.from_id > a.seal_id + 1 ORDER BY b.seal_id LIMIT 1";
    let gap = w.ids(gap)[0];
    for (id, place) in [
        (1, "first"),
        (first - 1, "before"),
        (gap, "between"),
        (last + 1, "after"),
        (i64::MAX, "last"),
    ] {
        let found = w.after(&[&copy(&id.to_string(), "time", middle)]).unwrap();
        assert_found(&found, place, &format!("record {id} has no seal"));
    }
    let found = w.after(&[&copy("id", "time + interval '1 microsecond'", middle)]).unwrap();
    assert_found(&found, "the same id", "covers");
    // Removed and put in the place of another.
    let seals =
        w.ids("SELECT seal_id FROM meshhook_secrets.audit_seals WHERE records > 1 ORDER BY 1");
    let batch = w.ids(&format!(
        "SELECT l.id FROM {log} l JOIN meshhook_secrets.audit_seals s
         ON l.id BETWEEN s.from_id AND s.seal_id WHERE s.seal_id = {} ORDER BY 1",
        seals[0]
    ));
    let mut pairs = vec![(first, last), (first, middle), (ids[ids.len() / 2 - 1], middle)];
    // Within one seal.
    pairs.push((batch[0], batch[1]));
    for (one, other) in pairs {
        let swap = [
            format!("UPDATE {log} SET id = -1 WHERE id = {one}"),
            format!("UPDATE {log} SET id = {one} WHERE id = {other}"),
            format!("UPDATE {log} SET id = {other} WHERE id = -1"),
        ];
        let swap: Vec<&str> = swap.iter().map(String::as_str).collect();
        let found = w.after(&swap).unwrap();
        assert_found(&found, "exchanged", "were changed");
        // The same by their contents.
        let contents = format!(
            "UPDATE {log} a SET (time, {rest}) = (SELECT time, {rest} FROM {log} b
                 WHERE b.id = CASE a.id WHEN {one} THEN {other} ELSE {one} END)
             WHERE a.id IN ({one}, {other})"
        );
        assert_found(&w.after(&[&contents]).unwrap(), "exchanged contents", "were changed");
        let remove = format!("DELETE FROM {log} WHERE id = {other}");
        let found = w.after(&[&remove, &copy(&other.to_string(), "time", one)]).unwrap();
        assert_found(&found, "replaced", "were changed");
    }
    w.auditor.assert_good();
}

#[test]
fn dropped_and_exchanged_seals_and_heads_are_found() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    w.fill();
    let seals = w.ids("SELECT seal_id FROM meshhook_secrets.audit_seals ORDER BY seal_id");
    let (first, middle) = (seals[0], seals[seals.len() / 2]);
    // Our own looks are recorded too, so the last one is another each time.
    let last = "(SELECT max(seal_id) FROM meshhook_secrets.audit_seals)".to_owned();
    for (seal, expected) in [
        (first.to_string(), "before seal"),
        (middle.to_string(), "before seal"),
        (last, "at the end"),
    ] {
        let alone = format!("DELETE FROM meshhook_secrets.audit_seals WHERE seal_id = {seal}");
        let records = format!(
            "DELETE FROM meshhook_secrets.audit_log l USING meshhook_secrets.audit_seals s
             WHERE s.seal_id = {seal} AND l.id BETWEEN s.from_id AND s.seal_id"
        );
        let found = w.after(&[&alone]).unwrap();
        assert_found(&found, "seal alone", "has no seal");
        let found = w.after(&[&records, &alone]).unwrap();
        assert_found(&found, "seal with its records", expected);
    }
    // The end cut off from some seal on, and the beginning before it.
    for (records, seals, expected) in [(">=", ">=", "at the end"), ("<", "<", "before seal")] {
        let records = format!(
            "DELETE FROM meshhook_secrets.audit_log WHERE id {records}
             (SELECT from_id FROM meshhook_secrets.audit_seals WHERE seal_id = {middle})"
        );
        let seals =
            format!("DELETE FROM meshhook_secrets.audit_seals WHERE seal_id {seals} {middle}");
        assert_found(&w.after(&[&records, &seals]).unwrap(), expected, expected);
    }
    // Two seals exchanged: all but their ids.
    let rest: Vec<String> = w.columns("audit_seals").into_iter().map(|(it, _)| it).collect();
    let rest = rest[1..].join(", ");
    let exchange = format!(
        "UPDATE meshhook_secrets.audit_seals a SET ({rest}) = (SELECT {rest}
             FROM meshhook_secrets.audit_seals b
             WHERE b.seal_id = CASE a.seal_id WHEN {first} THEN {middle} ELSE {first} END)
         WHERE a.seal_id IN ({first}, {middle})"
    );
    assert_found(&w.after(&[&exchange]).unwrap(), "exchanged seals", "does not authenticate");
    // The head.
    let found = w.after(&["DELETE FROM meshhook_secrets.audit_head"]).unwrap();
    assert_found(&found, "no head", "head");
    for tables in [
        "audit_seals",
        "audit_log",
        "audit_seals, meshhook_secrets.audit_log",
        "audit_head",
        "audit_head, meshhook_secrets.audit_seals",
        "audit_head, meshhook_secrets.audit_log",
    ] {
        let found = w.after(&[&format!("TRUNCATE meshhook_secrets.{tables}")]).unwrap();
        assert_found(&found, tables, "");
    }
    let month = "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')";
    let month: String = w.superuser.query_one(month, &[]).unwrap().get(0);
    for statement in ["TRUNCATE", "DROP TABLE"] {
        let found = w.after(&[&format!("{statement} meshhook_secrets.audit_log_{month}")]).unwrap();
        assert_found(&found, statement, "covers");
    }
    w.auditor.assert_good();
}

#[test]
fn emptying_all_tables_is_found() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    w.fill();
    let all = "TRUNCATE meshhook_secrets.audit_head, meshhook_secrets.audit_seals,
        meshhook_secrets.audit_log, meshhook_secrets.audit_pending";
    assert_found(&w.after(&[all]).unwrap(), "all", "");
    // And stays so when the next records come. The writer locks the same tables in an order of its own.
    let deadlock =
        |error: &postgres::Error| error.code().is_some_and(|code| code.code() == "40P01");
    while w.superuser.batch_execute(all).is_err_and(|error| deadlock(&error)) {}
    w.get();
    w.assert_tampered("after everything was emptied");
}

#[test]
fn an_old_state_that_is_put_back_is_found() {
    // Not the tables as a whole: only where the server still knows better.
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    w.fill();
    w.superuser
        .batch_execute("CREATE TABLE public.old_head AS TABLE meshhook_secrets.audit_head")
        .unwrap();
    w.fill();
    let head = "DELETE FROM meshhook_secrets.audit_head;
        INSERT INTO meshhook_secrets.audit_head SELECT * FROM public.old_head";
    assert_found(&w.after(&[head]).unwrap(), "old head", "");
    let cut = "DELETE FROM meshhook_secrets.audit_log
            WHERE id > (SELECT seal_id FROM public.old_head);
        DELETE FROM meshhook_secrets.audit_seals
            WHERE seal_id > (SELECT seal_id FROM public.old_head)";
    // The whole old state: its MACs are right, and the running server knows that there was more.
    w.superuser.batch_execute(&format!("BEGIN; {head}; {cut}; COMMIT")).unwrap();
    w.get();
    w.assert_tampered("after the old state was put back");
}

#[test]
fn evidence_of_a_tampered_end_is_kept_by_the_next_batch() {
    for tamper in [
        "UPDATE meshhook_secrets.audit_head SET mac = decode(repeat('00', 32), 'hex')",
        "UPDATE meshhook_secrets.audit_head SET seal_id = anchor_id, seal_mac = anchor_mac",
        "DELETE FROM meshhook_secrets.audit_head",
        "DELETE FROM meshhook_secrets.audit_seals
             WHERE seal_id = (SELECT max(seal_id) FROM meshhook_secrets.audit_seals)",
        "DELETE FROM meshhook_secrets.audit_seals",
        "UPDATE meshhook_secrets.audit_seals SET mac = decode(repeat('00', 32), 'hex')
             WHERE seal_id = (SELECT max(seal_id) FROM meshhook_secrets.audit_seals)",
        // Whoever drops the beginning and says that it was pruned.
        "WITH anchor AS (SELECT seal_id, mac FROM meshhook_secrets.audit_seals
                 ORDER BY seal_id OFFSET 1 LIMIT 1),
             log AS (DELETE FROM meshhook_secrets.audit_log
                 WHERE id <= (SELECT seal_id FROM anchor)),
             seals AS (DELETE FROM meshhook_secrets.audit_seals
                 WHERE seal_id <= (SELECT seal_id FROM anchor))
         UPDATE meshhook_secrets.audit_head SET (anchor_id, anchor_mac) =
             (SELECT seal_id, mac FROM anchor)",
    ] {
        let db = Cluster::shared().database();
        let mut w = World::new(&db);
        w.fill();
        w.superuser.batch_execute(tamper).unwrap();
        w.get();
        // Reveals go on, and are recorded.
        let found = w.auditor.search("action => 'secret_get', outcome => 'ok'");
        assert!(found.len() > 1, "{tamper}: {found:#?}");
        w.assert_tampered(tamper);
        // For good.
        w.fill();
        w.assert_tampered(tamper);
    }
}

#[test]
fn record_that_was_changed_while_it_waited_for_its_seal_is_told() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    w.fill();
    for bytes in ["", "00", "01ff", "ffffffff"] {
        let insert = format!(
            "INSERT INTO meshhook_secrets.audit_pending (record) VALUES (decode('{bytes}', 'hex'))"
        );
        w.superuser.batch_execute(&insert).unwrap();
    }
    w.get();
    let found = w.auditor.search("action => 'audit_tampered'");
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(found.iter().all(|it| it["actor"] == "system" && it["outcome"] == "error"));
    // What is sealed is sealed as it was found.
    assert_eq!(w.auditor.verify().unsealed, 0);
}

#[test]
fn wrong_and_missing_audit_keys_are_found() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    w.fill();
    // The audit key of another database, wrapped by the same root key.
    // Not a copy of the same template, which may have its key already.
    let other = db.cluster().empty_database();
    let mut admin = other.superuser();
    admin.batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();
    admin.batch_execute("SELECT FROM meshhook_secrets.audit_search()").unwrap();
    admin.batch_execute("SELECT FROM meshhook_secrets.audit_search()").unwrap();
    let find = "SELECT encode(key_encrypted, 'hex') FROM meshhook_secrets.audit_keys";
    let foreign: String = admin.query_one(find, &[]).unwrap().get(0);
    let keys = "meshhook_secrets.audit_keys";
    for tamper in [
        format!("UPDATE {keys} SET key_encrypted = decode('{foreign}', 'hex')"),
        format!(
            "UPDATE {keys} SET key_encrypted = set_byte(key_encrypted, 40, get_byte(key_encrypted, 40) # 1)"
        ),
        format!("UPDATE {keys} SET key_encrypted = ''"),
        format!("UPDATE {keys} SET key_version = 2"),
        format!("DELETE FROM {keys}"),
        format!("TRUNCATE {keys}"),
    ] {
        let found = w.after(&[&tamper]).unwrap();
        assert_found(&found, &tamper, "does not authenticate");
        assert!(found.problems.len() as i64 >= found.seals.min(100), "{found:?}");
    }
    w.auditor.assert_good();
    // Removed for good: everything goes on with another key, and it shows.
    w.superuser.batch_execute(&format!("DELETE FROM {keys}")).unwrap();
    w.get();
    assert!(!w.auditor.search("action => 'secret_get'").is_empty());
    w.assert_tampered("after the audit key was removed");
    let versions = "SELECT key_version::bigint FROM meshhook_secrets.audit_keys";
    assert_eq!(w.ids(versions), [2]);
}

#[test]
fn a_part_of_the_chain_can_be_verified_alone() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    w.fill();
    let seals = w.ids("SELECT seal_id FROM meshhook_secrets.audit_seals ORDER BY seal_id");
    let count = |from: usize, to: usize| {
        format!(
            "SELECT sum(records) FROM meshhook_secrets.audit_seals WHERE seal_id BETWEEN {} AND {}",
            seals[from], seals[to]
        )
    };
    for (from, to) in [(0, 0), (0, 2), (1, 3), (3, 3), (2, seals.len() - 1)] {
        let arguments = format!("from_seal => {}, to_seal => {}", seals[from], seals[to]);
        let found = verify(&mut w.auditor.client, &arguments);
        assert!(found.ok, "{found:?}");
        assert_eq!(found.seals, (to - from + 1) as i64);
        assert_eq!(found.records, w.ids(&count(from, to))[0]);
        assert_eq!((found.first_seal, found.last_seal), (Some(seals[from]), Some(seals[to])));
    }
    // What is wrong elsewhere does not show; what is wrong here does.
    let change = format!(
        "UPDATE meshhook_secrets.audit_log SET detail = 'x' WHERE id = {}",
        w.ids(&format!(
            "SELECT from_id FROM meshhook_secrets.audit_seals WHERE seal_id = {}",
            seals[2]
        ))[0]
    );
    let mut transaction = w.superuser.transaction().unwrap();
    transaction.batch_execute(&change).unwrap();
    for (arguments, ok) in [
        (format!("to_seal => {}", seals[1]), true),
        (format!("from_seal => {}", seals[3]), true),
        (format!("{0}, {0}", seals[2]), false),
        (format!("to_seal => {}", seals[2]), false),
        (format!("from_seal => {}", seals[2]), false),
        (String::new(), false),
    ] {
        assert_eq!(verify(&mut transaction, &arguments).ok, ok, "{arguments}");
    }
    transaction.rollback().unwrap();
    w.auditor.assert_good();
}

// --- retention ----------------------------------------------------------------------------------------

#[test]
fn months_that_are_over_are_pruned_and_the_rest_verifies() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    w.fill();
    let months = w.old_records(4, 6);
    let good = w.auditor.assert_good();
    // Newest month is months[0].
    let partitions = partitions(&mut w.superuser);
    assert!(months.iter().all(|it| partitions.contains(it)), "{partitions:?} {months:?}");
    let start = |partition: &str| {
        format!("'{}-01 00:00:00+00'", partition.trim_start_matches("audit_log_").replace('_', "-"))
    };
    // What no auditor pruned is missed.
    let found = w.after(&[&format!("DROP TABLE meshhook_secrets.{}", months[1])]).unwrap();
    assert_found(&found, "dropped", "covers");
    // In the middle of a month, that month stays.
    let prune = |w: &mut World, before: &str| -> Vec<(String, i64)> {
        let prune =
            format!("SELECT partition, records FROM meshhook_secrets.audit_prune({before})");
        let rows = w.auditor.client.query(&prune, &[]).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    let middle = format!("{}::timestamptz + interval '20 days'", start(&months[2]));
    assert_eq!(prune(&mut w, &middle), [(months[3].clone(), 6)]);
    let after = w.auditor.assert_good();
    assert!(after.records < good.records + 3 && after.first_seal >= good.first_seal, "{after:?}");
    assert_eq!(prune(&mut w, &middle), []);
    assert_eq!(prune(&mut w, &start(&months[0])), [(months[2].clone(), 6), (months[1].clone(), 6)]);
    let after = w.auditor.assert_good();
    // This month never goes, whatever is asked.
    assert_eq!(prune(&mut w, "now()"), [(months[0].clone(), 6)]);
    assert_eq!(prune(&mut w, "now()"), []);
    w.auditor.assert_good();
    assert_eq!(w.auditor.search("name => 'OLD'"), Vec::<Value>::new());
    assert!(after.seals > 0);
    // It is itself recorded, and who did it.
    let found = w.auditor.search("action => 'audit_prune'");
    let told: Vec<_> = found.iter().map(|it| it["detail"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told.len(), 5, "{told:?}");
    assert_eq!(told[0], months[3]);
    assert_eq!(told[1], "nothing");
    assert_eq!(told[2], format!("{}, {}", months[2], months[1]));
    assert!(found.iter().all(|it| it["actor"] == "whole_auditor" && it["outcome"] == "ok"));
    // Late records of a month that was pruned are kept, and verify.
    w.old_records(4, 2);
    assert_eq!(w.auditor.search("name => 'OLD'").len(), 8);
    w.auditor.assert_good();
}

#[test]
fn a_chain_whose_beginning_was_pruned_verifies_from_where_it_begins_now() {
    let db = Cluster::shared().empty_database();
    let mut superuser = db.superuser();
    // Records of three past months before any other: the first seals are theirs.
    let now = "SELECT (extract(epoch FROM now() - timestamptz '2000-01-01 00:00:00+00')
        * 1000000)::bigint";
    let now: i64 = superuser.query_one(now, &[]).unwrap().get(0);
    let mut transaction = superuser.transaction().unwrap();
    transaction.batch_execute("CREATE EXTENSION meshhook_secrets").unwrap();
    for age in [70, 100, 130] {
        let time = now - age * 86_400_000_000;
        let old = Record::new(time, "secret_get", Outcome::Ok, "somebody").encode();
        let insert = "INSERT INTO meshhook_secrets.audit_pending (record) VALUES ($1)";
        transaction.execute(insert, &[&old]).unwrap();
    }
    transaction.commit().unwrap();
    let mut auditor = db.auditor();
    assert_eq!(auditor.search("actor => 'somebody'").len(), 3);
    let before = auditor.assert_good();
    let prune = "SELECT * FROM meshhook_secrets.audit_prune(now() - interval '36 days')";
    assert_eq!(auditor.client.query(prune, &[]).unwrap().len(), 3);
    auditor.search("");
    let after = auditor.assert_good();
    assert!(after.first_seal > before.first_seal, "{before:?} {after:?}");
    let seals = "SELECT count(*) FROM meshhook_secrets.audit_seals WHERE seal_id <= $1";
    let left: i64 = superuser.query_one(seals, &[&before.first_seal]).unwrap().get(0);
    assert_eq!(left, 0, "seals of pruned months");
    // Whoever cuts off more than was pruned is found.
    let mut transaction = superuser.transaction().unwrap();
    let cut = "WITH first AS (SELECT min(seal_id) AS id FROM meshhook_secrets.audit_seals),
            log AS (DELETE FROM meshhook_secrets.audit_log USING first
                WHERE audit_log.id <= first.id)
        DELETE FROM meshhook_secrets.audit_seals USING first WHERE seal_id = first.id";
    transaction.batch_execute(cut).unwrap();
    assert_found(&verify(&mut transaction, ""), "cut off", "is missing");
}

#[test]
fn a_prune_that_is_rolled_back_never_was() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    w.old_records(2, 3);
    let before = partitions(&mut w.superuser);
    let mut transaction = w.auditor.client.transaction().unwrap();
    let prune = "SELECT * FROM meshhook_secrets.audit_prune(now())";
    assert_eq!(transaction.query(prune, &[]).unwrap().len(), 2);
    transaction.rollback().unwrap();
    assert_eq!(partitions(&mut w.superuser), before);
    assert_eq!(w.auditor.search("name => 'OLD'").len(), 6);
    assert_eq!(w.auditor.search("action => 'audit_prune'").len(), 0);
    w.auditor.assert_good();
}

#[test]
fn prune_refuses_bad_input_and_whoever_may_not() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    w.old_records(1, 2);
    for (argument, sqlstate) in
        [("NULL", "22004"), ("now() + interval '1 hour'", "22023"), ("'infinity'", "22004")]
    {
        let prune = format!("SELECT * FROM meshhook_secrets.audit_prune({argument})");
        expect_error(w.auditor.client.query(&prune, &[]), sqlstate);
    }
    for harmless in ["'-infinity'", "'2000-01-01'", "'0001-01-01 BC'"] {
        let prune = format!("SELECT * FROM meshhook_secrets.audit_prune({harmless})");
        assert!(w.auditor.client.query(&prune, &[]).unwrap().is_empty(), "{harmless}");
    }
    let prune = "SELECT * FROM meshhook_secrets.audit_prune(now())";
    let mut read_only = w.auditor.client.build_transaction().read_only(true).start().unwrap();
    expect_error(read_only.query(prune, &[]), "25006");
    read_only.rollback().unwrap();
    for mut client in [
        db.member_of("meshhook_secrets_auditor"),
        db.member_of("meshhook_secrets_kek_admin"),
        db.user(w.alice),
        db.service(),
        db.anon(),
    ] {
        expect_error(client.query(prune, &[]), "42501");
    }
    assert_eq!(w.auditor.search("name => 'OLD'").len(), 2);
    w.auditor.assert_good();
}

#[test]
fn pruning_while_others_write_loses_nothing() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    let stop = AtomicBool::new(false);
    let (alice, project) = (w.alice, w.project);
    let revealed: usize = scope(|scope| {
        let mut clients = Vec::new();
        for _ in 0..3 {
            let (stop, mut member) = (&stop, db.user(alice));
            clients.push(scope.spawn(move || {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    member.query_one(GET, &[&project, &"TOKEN"]).unwrap();
                    count += 1;
                }
                count
            }));
        }
        let stopping = StopAtEnd(&stop);
        for round in 0..6 {
            w.old_records(2, 5);
            let prune = "SELECT * FROM meshhook_secrets.audit_prune(now())";
            let pruned = w.auditor.client.query(prune, &[]).unwrap();
            assert_eq!(pruned.len(), 2, "round {round}");
            w.auditor.assert_good();
        }
        drop(stopping);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert!(revealed > 20, "{revealed}");
    w.auditor.search("");
    let count = "SELECT count(*) FROM meshhook_secrets.audit_log
        WHERE action = 'secret_get' AND outcome = 'ok'";
    assert_eq!(w.ids(count), [revealed as i64]);
    w.auditor.assert_good();
}

#[test]
fn prune_beside_a_reader_gives_up_and_keeps_nobody_waiting() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    let months = w.old_records(3, 4);
    let revealed = "SELECT count(*) FROM meshhook_secrets.audit_log
        WHERE action = 'secret_get' AND outcome = 'ok'";
    let before = w.ids(revealed)[0];
    let mut count = 0;
    let prune = "SELECT * FROM meshhook_secrets.audit_prune(now())";
    // The whole log, and a month of it alone.
    for table in ["audit_log", &months[1]] {
        let mut other = db.superuser();
        let mut reading = other.transaction().unwrap();
        reading.query(&format!("SELECT FROM meshhook_secrets.{table}"), &[]).unwrap();
        let stop = AtomicBool::new(false);
        count += scope(|scope| {
            let (stop, mut member, project) = (&stop, db.user(w.alice), w.project);
            let stopping = StopAtEnd(stop);
            let revealing = scope.spawn(move || {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    member.query_one(GET, &[&project, &"TOKEN"]).unwrap();
                    count += 1;
                }
                count
            });
            let asked = Instant::now();
            expect_error(w.auditor.client.query(prune, &[]), "PT409").message("being read");
            let took = asked.elapsed();
            let (least, most) = (Duration::from_millis(1900), Duration::from_secs(5));
            assert!(least < took && took < most, "{table}: {took:?}");
            // Its reader is still there.
            w.get();
            reading.query(&format!("SELECT FROM meshhook_secrets.{table}"), &[]).unwrap();
            drop(stopping);
            revealing.join().unwrap() + 1
        });
        reading.rollback().unwrap();
        assert_eq!(w.auditor.search("name => 'OLD'").len(), 12, "{table}: nothing went");
    }
    assert!(count > 4, "{count}");
    w.settle();
    assert_eq!(w.ids(revealed)[0], before + count);
    w.auditor.assert_good();
    let found = w.auditor.outcomes("action => 'audit_prune'");
    assert!(!found.is_empty() && found.iter().all(|it| it == "audit_prune error"), "{found:?}");
    assert_eq!(w.auditor.client.query(prune, &[]).unwrap().len(), 3);
    assert_eq!(w.auditor.search("name => 'OLD'"), Vec::<Value>::new());
    w.get();
    w.auditor.assert_good();
}

#[test]
fn what_was_tampered_with_is_not_pruned_away() {
    const SEALS: &str = "meshhook_secrets.audit_seals";
    // Of all seals, of half of them, of the first.
    for which in ["true", "seal_id <= $", "seal_id <= @"] {
        for age in ["2 years", "13 months"] {
            let db = Cluster::shared().database();
            let mut w = World::new(&db);
            w.fill();
            let seals = w.ids(&format!("SELECT seal_id FROM {SEALS} ORDER BY seal_id"));
            let half = seals[seals.len() / 2].to_string();
            let which = which.replace('$', &half).replace('@', &seals[0].to_string());
            let launder = format!(
                "BEGIN; SELECT FROM meshhook_secrets.audit_head FOR UPDATE;
                 DELETE FROM meshhook_secrets.audit_log l USING {SEALS} s
                     WHERE l.id BETWEEN s.from_id AND s.seal_id AND {which};
                 UPDATE {SEALS} SET month = date_trunc('month', now() - interval '{age}', 'UTC')
                     WHERE {which};
                 COMMIT"
            );
            w.superuser.batch_execute(&launder).unwrap();
            assert!(!w.auditor.verify().ok, "{which}: nothing to launder");
            let prune = "SELECT * FROM meshhook_secrets.audit_prune(now() - interval '1 year')";
            for _ in 0..2 {
                let pruned = w.auditor.client.query(prune, &[]);
                assert!(pruned.is_err(), "{which}, {age}: pruned {}", pruned.unwrap().len());
                expect_error(pruned, "XX001");
                // Reveals go on.
                w.get();
                assert!(!w.auditor.verify().ok, "{which}, {age}");
            }
            let left = w.ids(&format!("SELECT seal_id FROM {SEALS}"));
            assert!(seals.iter().all(|seal| left.contains(seal)), "{which}, {age}: seals went");
            let found = w.auditor.outcomes("action => 'audit_prune'");
            // Repeats within a minute are counted.
            let failed = |it: &String| it == "audit_prune error";
            assert!(!found.is_empty() && found.iter().all(failed), "{which}, {age}: {found:?}");
        }
    }
}

#[test]
fn partitions_are_months_of_utc_however_the_database_is_set() {
    for timezone in
        ["Asia/Kolkata", "America/New_York", "Australia/Lord_Howe", "Pacific/Kiritimati"]
    {
        let db = Cluster::shared().database();
        let set = |what: &str| format!("ALTER DATABASE {} SET {what};", db.name());
        db.superuser()
            .batch_execute(
                &[
                    set("datestyle = 'SQL, DMY'"),
                    set(&format!("timezone = '{timezone}'")),
                    set("standard_conforming_strings = off"),
                    set("escape_string_warning = off"),
                ]
                .concat(),
            )
            .unwrap();
        let mut w = World::new(&db);
        let shown = "SELECT timestamptz '2000-02-01 00:00:00+00'::text";
        let shown: String = w.superuser.query_one(shown, &[]).unwrap().get(0);
        assert!(shown.contains('/'), "{shown}: nothing to withstand");

        // The first and the last moment of months in which clocks are put forward or back, or not.
        let months = ["2024_02", "2024_03", "2024_04", "2024_10", "2024_11", "2024_12", "2025_01"];
        let ends = "SELECT (extract(epoch FROM month - timestamptz '2000-01-01 00:00:00+00')
                * 1000000)::bigint, (extract(epoch FROM month AT TIME ZONE 'UTC' + interval '1 month'
                - timestamp '2000-01-01 00:00:00') * 1000000)::bigint - 1
            FROM CAST(replace($1::text, '_', '-') || '-01 00:00:00+00' AS timestamptz) month";
        for month in months {
            let row = w.superuser.query_one(ends, &[&month]).unwrap();
            for (at, time) in [row.get(0), row.get(1)].into_iter().enumerate() {
                let mut record = Record::new(time, "secret_get", Outcome::Ok, "somebody");
                record.purpose = Some(format!("{month} {at}"));
                let insert = "INSERT INTO meshhook_secrets.audit_pending (record) VALUES ($1)";
                w.superuser.execute(insert, &[&record.encode()]).unwrap();
            }
        }
        let found = w.auditor.search("actor => 'somebody'");
        assert_eq!(found.len(), 2 * months.len(), "{found:#?}");
        assert!(found.iter().all(|it| it["id"].is_i64()), "without a seal: {found:#?}");
        // And one that is made by hand, as before a restore.
        let by_hand =
            "SELECT meshhook_secrets.audit_make_partition('2023-10-31 23:59:59.999999+00')";
        let by_hand: String = w.superuser.query_one(by_hand, &[]).unwrap().get(0);
        assert_eq!(by_hand, "audit_log_2023_10");

        let places = "SELECT tableoid::regclass::text, purpose FROM meshhook_secrets.audit_log
            WHERE actor = 'somebody'";
        for row in w.superuser.query(places, &[]).unwrap() {
            let (place, purpose): (String, String) = (row.get(0), row.get(1));
            let month = purpose.split(' ').next().unwrap();
            assert_eq!(place, format!("meshhook_secrets.audit_log_{month}"), "{purpose}");
        }
        let bounds = "SELECT c.relname::text, pg_get_expr(c.relpartbound, c.oid),
                'FOR VALUES FROM (''' || month || '+00'') TO (''' || month + interval '1 month' || '+00'')'
            FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid,
                to_timestamp(substr(c.relname::text, 11) || ' +00', 'YYYY_MM TZH') at,
                CAST(at AT TIME ZONE 'UTC' AS timestamp) month
            WHERE i.inhparent = 'meshhook_secrets.audit_log'::regclass";
        w.superuser.batch_execute("SET timezone = 'UTC'; SET datestyle = 'ISO, MDY'").unwrap();
        let rows = w.superuser.query(bounds, &[]).unwrap();
        assert!(rows.len() > months.len() + 1, "{timezone}");
        for row in rows {
            let (name, bound, expected): (String, String, String) =
                (row.get(0), row.get(1), row.get(2));
            assert_eq!(bound, expected, "{timezone}: {name}");
        }
        w.auditor.assert_good();

        // Pruned by them, to the microsecond.
        let mut prune = |before: &str| -> Vec<String> {
            let prune = format!(
                "SELECT partition FROM meshhook_secrets.audit_prune('{before}'::timestamptz)"
            );
            let rows = w.auditor.client.query(&prune, &[]).unwrap();
            rows.iter().map(|row| row.get(0)).collect()
        };
        let names = |months: &[&str]| -> Vec<String> {
            months.iter().map(|month| format!("audit_log_{month}")).collect()
        };
        assert_eq!(prune("2024-02-29 23:59:59.999999+00"), names(&["2023_10"]));
        assert_eq!(prune("2024-03-01 00:00:00+00"), names(&["2024_02"]));
        assert_eq!(prune("2024-11-30 23:59:59.999999+00"), names(&months[1..4]));
        assert_eq!(prune("2024-12-01 00:00:00+00"), names(&["2024_11"]));
        let left = w.auditor.search("actor => 'somebody'");
        let left: Vec<&str> = left.iter().map(|it| it["purpose"].as_str().unwrap()).collect();
        assert_eq!(
            BTreeSet::from_iter(left),
            BTreeSet::from(["2024_12 0", "2024_12 1", "2025_01 0", "2025_01 1",])
        );
        w.auditor.assert_good();
    }
}

#[test]
fn partitions_made_at_run_time_are_as_closed_as_the_table() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    make_role(db.cluster(), "stranger", "LOGIN");
    let everybody = "PUBLIC, anon, authenticated, service_role, authenticator, stranger, \
        meshhook_secrets_writer, meshhook_secrets_reader, meshhook_secrets_kek_admin, \
        meshhook_secrets_auditor";
    w.superuser
        .batch_execute(&format!(
            "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {everybody};
             ALTER DEFAULT PRIVILEGES IN SCHEMA meshhook_secrets GRANT ALL ON TABLES TO {everybody};
             CREATE TABLE public.open_to_all ()"
        ))
        .unwrap();
    let open = "SELECT has_table_privilege('stranger', 'public.open_to_all', 'SELECT')";
    assert!(w.superuser.query_one(open, &[]).unwrap().get::<_, bool>(0), "nothing to withstand");
    let months = w.old_records(3, 1);
    assert_eq!(months.len(), 3);
    let look = "SELECT c.relname::text, c.relrowsecurity, c.relforcerowsecurity,
            (SELECT count(*) FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner),
            (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = c.oid
                 AND t.tgfoid = 'meshhook_secrets.refuse_direct_change()'::regprocedure
                 AND t.tgenabled = 'O' AND t.tgtype = (SELECT tgtype FROM pg_trigger
                     WHERE tgrelid = 'meshhook_secrets.audit_log'::regclass)),
            c.relowner = p.relowner,
            (SELECT count(*) FROM pg_policy y WHERE y.polrelid = c.oid)
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
        WHERE i.inhparent = 'meshhook_secrets.audit_log'::regclass";
    let rows = w.superuser.query(look, &[]).unwrap();
    assert!(rows.len() >= 5);
    for row in rows {
        let name: String = row.get(0);
        assert!(row.get(1) && row.get(2), "{name}: row-level security");
        assert_eq!(row.get::<_, i64>(3), 0, "{name}: granted to others");
        assert_eq!(row.get::<_, i64>(4), 1, "{name}: our trigger");
        assert!(row.get::<_, bool>(5), "{name}: owner");
        assert_eq!(row.get::<_, i64>(6), 0, "{name}: a policy lets somebody in");
        let look = format!("SELECT * FROM meshhook_secrets.{name}");
        expect_error(db.connect("stranger").query(&look, &[]), "42501");
        expect_error(db.service().query(&look, &[]), "42501");
    }
    w.auditor.assert_good();
}

// --- keys -------------------------------------------------------------------------------------------------

#[test]
fn the_chain_outlives_every_project_and_every_kek() {
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    w.fill();
    let mut admin = db.member_of("meshhook_secrets_kek_admin");
    for kek_id in 1..=2 {
        admin.query_one("SELECT meshhook_secrets.dek_rotate($1)", &[&w.project]).unwrap();
        admin.query_one("SELECT meshhook_secrets.kek_rotate()", &[]).unwrap();
        w.fill();
        let status = |w: &mut World| -> String {
            let status = "SELECT status FROM meshhook_secrets.kek_storage WHERE kek_id = $1";
            w.superuser.query_one(status, &[&kek_id]).unwrap().get(0)
        };
        eventually("the old KEK is retired", || status(&mut w) == "retired");
        let destroy = format!("SELECT meshhook_secrets.kek_destroy({kek_id}, '{kek_id}', '0')");
        admin.query_one(&destroy, &[]).unwrap();
        eventually("the old KEK is destroyed", || status(&mut w) == "destroyed");
        w.fill();
        assert_eq!(w.auditor.assert_good().unsealed, 0);
    }
    // What is changed under the oldest seal is found as ever.
    let change = "UPDATE meshhook_secrets.audit_log SET detail = 'x'
        WHERE id = (SELECT min(id) FROM meshhook_secrets.audit_log)";
    assert_found(&w.after(&[change]).unwrap(), "oldest", "were changed");
    w.superuser.batch_execute("TRUNCATE public.projects CASCADE").unwrap();
    w.auditor.search("");
    assert_eq!(w.auditor.search("action => 'project_deleted'").len(), 1);
    w.auditor.assert_good();
}

#[test]
fn the_chain_outlives_its_root_key_once_that_is_rotated() {
    let cluster = Cluster::builder().start();
    let db = cluster.database();
    let mut w = World::new(&db);
    w.fill();
    let needed = |w: &mut World| -> Vec<String> {
        let needed = "SELECT root_key_id FROM meshhook_secrets.audit_keys";
        w.superuser.query(needed, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    };
    let before = needed(&mut w);
    cluster.write_root_key(&format!("{KEY_B}\n{KEY_A}"));
    w.superuser.query("SELECT meshhook_secrets.unseal()", &[]).unwrap();
    w.superuser.query("SELECT * FROM meshhook_secrets.root_key_rotate()", &[]).unwrap();
    assert_ne!(needed(&mut w), before);
    w.fill();
    cluster.write_root_key(KEY_B);
    cluster.restart();
    let mut w =
        World { auditor: db.auditor(), superuser: db.superuser(), member: db.user(w.alice), ..w };
    w.fill();
    assert_eq!(w.auditor.assert_good().unsealed, 0);
    // Without the key that it needs, nothing is sealed, and nothing is lost.
    cluster.write_root_key(KEY_A);
    cluster.restart();
    let mut w =
        World { auditor: db.auditor(), superuser: db.superuser(), member: db.user(w.alice), ..w };
    expect_error(w.member.query_one(GET, &[&w.project, &"TOKEN"]), "PT503");
    let found = w.auditor.search("action => 'secret_get', outcome => 'error'");
    assert!(found.iter().any(|it| it["id"].is_null()), "{found:#?}");
    expect_error(
        w.auditor.client.query("SELECT * FROM meshhook_secrets.audit_verify()", &[]),
        "PT503",
    );
    cluster.write_root_key(KEY_B);
    cluster.reload();
    eventually("the secrets are open", || w.member.query_one(GET, &[&w.project, &"TOKEN"]).is_ok());
    let found = w.auditor.search("action => 'secret_get', outcome => 'error'");
    assert!(!found.is_empty() && found.iter().all(|it| it["id"].is_i64()), "{found:#?}");
    w.auditor.assert_good();
}

// --- what seals leave behind ----------------------------------------------------------------------------

/// Each seal changes the one row of audit_head. While a snapshot is held (a dump, for hours), its former states
/// stay, and must not be gone through for every batch.
#[test]
fn the_writer_does_not_search_what_a_held_snapshot_keeps() {
    const SEALS: i64 = 300;
    let db = Cluster::shared().database();
    let mut w = World::new(&db);
    w.member.query(PUT, &[&w.project, &"TOKEN", &"value"]).unwrap();
    let mut holder = db.superuser();
    holder.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT now()").unwrap();
    // As autovacuum sees it, while the writer lives: there is always something to write.
    let statistics = "SELECT n_tup_upd, seq_scan FROM pg_stat_user_tables
        WHERE schemaname = 'meshhook_secrets' AND relname = 'audit_head'";
    let (mut seals, mut searched) = (0, 0);
    eventually("the writer tells what it did while it goes on", || {
        for _ in 0..10 {
            w.member.query_one(GET, &[&w.project, &"TOKEN"]).unwrap();
        }
        let row = w.superuser.query_one(statistics, &[]).unwrap();
        (seals, searched) = (row.get::<_, i64>(0), row.get::<_, i64>(1));
        seals >= SEALS
    });
    assert!(searched < SEALS / 10, "{seals} seals, the head was searched {searched} times");
    holder.batch_execute("COMMIT").unwrap();
    w.auditor.assert_good();
}

// --- the world --------------------------------------------------------------------------------------------

/// Alice with a project and a secret, a superuser, and the auditor.
struct World {
    alice: Uuid,
    project: Uuid,
    member: Client,
    superuser: Client,
    auditor: Auditor,
}

impl World {
    fn new(db: &Database<'_>) -> Self {
        let alice = Uuid::new_v4();
        let project = db.project(alice);
        let (member, superuser, auditor) = (db.user(alice), db.superuser(), db.auditor());
        let mut world = Self { alice, project, member, superuser, auditor };
        world.member.query_one(PUT, &[&project, &"TOKEN", &"value"]).unwrap();
        world
    }

    fn get(&mut self) {
        self.member.query_one(GET, &[&self.project, &"TOKEN"]).unwrap();
    }

    /// Some batches of records, some of several.
    fn fill(&mut self) {
        for _ in 0..3 {
            self.get();
            let many = "SELECT * FROM meshhook_secrets.secret_get_many($1, '{TOKEN,A,B,C}')";
            self.member.query(many, &[&self.project]).unwrap();
        }
        let mut transaction = self.member.transaction().unwrap();
        for name in ["A", "B", "TOKEN"] {
            transaction.query_one(PUT, &[&self.project, &name, &"value"]).unwrap();
        }
        transaction.commit().unwrap();
        self.settle();
    }

    /// Waits until everything has its seal and the writer has nothing to do, not even our own search.
    fn settle(&mut self) {
        self.auditor.search("action => 'none'");
        let count = "SELECT count(*), (SELECT count(*) FROM meshhook_secrets.audit_pending)
            FROM meshhook_secrets.audit_log WHERE action = 'audit_search'";
        let (mut before, mut same) = (-1, 0);
        let superuser = &mut self.superuser;
        eventually("the audit log is at rest", || {
            let row = superuser.query_one(count, &[]).unwrap();
            let (searches, pending): (i64, i64) = (row.get(0), row.get(1));
            same = if searches == before && pending == 0 { same + 1 } else { 0 };
            before = searches;
            same > 2
        });
    }

    /// What is verified after these statements, which are then undone; nothing if they changed nothing.
    fn after(&mut self, statements: &[&str]) -> Option<Verified> {
        // The writer locks the same tables in an order of its own.
        loop {
            match self.try_after(statements) {
                Err(error) if error.code().is_some_and(|code| code.code() == "40P01") => {}
                other => break other.unwrap_or_else(|error| panic!("{statements:?}: {error:?}")),
            }
        }
    }

    fn try_after(&mut self, statements: &[&str]) -> Result<Option<Verified>, postgres::Error> {
        let mut transaction = self.superuser.transaction()?;
        // The writer waits: what it adds meanwhile is no part of this.
        transaction.batch_execute("SELECT FROM meshhook_secrets.audit_head FOR UPDATE")?;
        assert!(verify(&mut transaction, "").ok, "not good before {statements:?}");
        let before = digest(&mut transaction);
        for statement in statements {
            transaction.batch_execute(statement)?;
        }
        if digest(&mut transaction) == before {
            transaction.rollback()?;
            return Ok(None);
        }
        let verified = verify(&mut transaction, "");
        transaction.rollback()?;
        Ok(Some(verified))
    }

    fn ids(&mut self, query: &str) -> Vec<i64> {
        self.superuser.query(query, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    }

    fn seal_of(&mut self, record: i64) -> i64 {
        let find = format!(
            "SELECT min(seal_id) FROM meshhook_secrets.audit_seals WHERE seal_id >= {record}"
        );
        self.ids(&find)[0]
    }

    fn columns(&mut self, table: &str) -> Vec<(String, String)> {
        let columns = "SELECT attname::text, atttypid::regtype::text FROM pg_attribute
            WHERE attrelid = ('meshhook_secrets.' || $1)::regclass AND attnum > 0 AND NOT attisdropped
            ORDER BY attnum";
        let rows = self.superuser.query(columns, &[&table]).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Records named OLD, so many in each of so many past months, as if they had waited since then;
    /// the partitions that they are in, newest first.
    fn old_records(&mut self, months: i64, each: usize) -> Vec<String> {
        let mut transaction = self.superuser.transaction().unwrap();
        let put = "SELECT meshhook_secrets.secret_generate($1, 'OLD')";
        transaction.query_one(put, &[&self.project]).unwrap();
        let find = "SELECT record FROM meshhook_secrets.audit_pending ORDER BY length(record) DESC";
        let own = transaction.query(find, &[]).unwrap();
        let own = own.iter().map(|row| Record::decode(&row.get::<_, Vec<u8>>(0)).unwrap());
        let real = own.into_iter().find(|record| record.name.as_deref() == Some("OLD")).unwrap();
        transaction.rollback().unwrap();
        let middle = "SELECT (extract(epoch FROM date_trunc('month', now(), 'UTC')
            + interval '14 days' - timestamptz '2000-01-01 00:00:00+00') * 1000000)::bigint";
        let middle = self.ids(middle)[0];
        let before = partitions(&mut self.superuser);
        let mut wanted = Vec::new();
        for month in 1..=months {
            // Within the month for a few of them: 31 days too long a month's worth is a day or two.
            let time = middle - month * MONTH + (month - 1) * 43_200_000_000;
            let name = format!(
                "SELECT to_char(timestamptz '2000-01-01 00:00:00+00' + {time} * interval '1 microsecond', '\"audit_log_\"YYYY_MM')"
            );
            wanted.push(self.superuser.query_one(&name, &[]).unwrap().get::<_, String>(0));
            for number in 0..each {
                let old = Record { time: time + number as i64, ..real.clone() };
                let insert = "INSERT INTO meshhook_secrets.audit_pending (record) VALUES ($1)";
                self.superuser.execute(insert, &[&old.encode()]).unwrap();
            }
        }
        assert_eq!(wanted.iter().collect::<BTreeSet<_>>().len(), wanted.len(), "{wanted:?}");
        let found = self.auditor.search("name => 'OLD'");
        assert!(found.len() >= each * months as usize, "{before:?}: {found:#?}");
        assert!(found.iter().all(|it| it["id"].is_i64()), "without a seal: {found:#?}");
        wanted
    }

    /// Asserts that the log says, in a record and when verified, that somebody was there.
    #[track_caller]
    fn assert_tampered(&mut self, how: &str) {
        let found = self.auditor.search("action => 'audit_tampered'");
        assert!(
            found.iter().any(|it| it["actor"] == "system" && it["outcome"] == "error"),
            "no record of it {how}"
        );
        assert!(!self.auditor.verify().ok, "it verifies {how}: {found:#?}");
    }
}

/// What else a column could be.
fn changes(column: &str, kind: &str) -> Vec<String> {
    let other = match (column, kind) {
        ("id", _) => "-id".to_owned(),
        ("outcome", _) => "CASE outcome WHEN 'ok' THEN 'error' ELSE 'ok' END".to_owned(),
        (_, "text") => format!("COALESCE({column}, '') || 'x'"),
        (_, "uuid") => "gen_random_uuid()".to_owned(),
        (_, "bigint" | "integer") => format!("COALESCE({column}, 0) + 1"),
        (_, "timestamp with time zone") => {
            format!("COALESCE({column}, now()) + interval '1 microsecond'")
        }
        (_, "bytea") => format!("set_byte({column}, 0, get_byte({column}, 0) # 1)"),
        (_, "boolean") => format!("NOT {column}"),
        _ => panic!("{column} is of the new type {kind}"),
    };
    let mut all = vec![other];
    if kind == "text" && !["action", "outcome", "actor"].contains(&column) {
        all.push("''".to_owned());
    }
    let nullable = [
        "sqlstate",
        "project_id",
        "secret_id",
        "name",
        "version",
        "kek_id",
        "purpose",
        "detail",
        "actor_role",
        "claimed_sub",
        "claimed_role",
        "client_address",
        "application_name",
        "request_id",
        "transaction_id",
        "server_event",
    ];
    if nullable.contains(&column) {
        all.push("NULL".to_owned());
    }
    if kind == "bytea" {
        all.push(format!("substr({column}, 2)"));
        all.push("''".to_owned());
    }
    all
}

fn digest(transaction: &mut Transaction<'_>) -> String {
    let digest = "SELECT md5(concat(
        (SELECT string_agg(l::text, ',' ORDER BY id, time) FROM meshhook_secrets.audit_log l),
        (SELECT string_agg(s::text, ',' ORDER BY seal_id) FROM meshhook_secrets.audit_seals s),
        (SELECT string_agg(k::text, ',' ORDER BY key_version) FROM meshhook_secrets.audit_keys k),
        (SELECT string_agg(h::text, ',') FROM meshhook_secrets.audit_head h)))";
    transaction.query_one(digest, &[]).unwrap().get(0)
}

fn partitions(superuser: &mut Client) -> Vec<String> {
    let list = "SELECT inhrelid::regclass::text FROM pg_inherits
        WHERE inhparent = 'meshhook_secrets.audit_log'::regclass ORDER BY 1";
    let rows = superuser.query(list, &[]).unwrap();
    rows.iter().map(|row| row.get::<_, String>(0).replace("meshhook_secrets.", "")).collect()
}

#[track_caller]
fn assert_found(verified: &Verified, what: &str, problem: &str) {
    assert!(!verified.ok && !verified.problems.is_empty(), "{what} is not found: {verified:?}");
    assert!(
        verified.problems.iter().any(|it| it.contains(problem)),
        "{what}: no {problem:?} in {:?}",
        verified.problems
    );
}

/// Ends the others when its scope ends, however that is.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
