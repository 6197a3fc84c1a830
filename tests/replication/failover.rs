//! A primary is lost, and a standby takes over: nothing that was confirmed is lost with it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::scope;

use postgres::Client;
use support::{Cluster, Database, eventually, expect_error, server_process, signal};
use uuid::Uuid;

use crate::{OPERATOR, documented, get, operate, primary, project, put, standby_of};

const REVEAL: &str = "SELECT meshhook_secrets.secret_get($1, 'TOKEN', purpose => $2)";
const PROJECTS: usize = 40;

#[test]
fn failover_loses_nothing_that_was_confirmed() {
    let old = primary()
        // pg_rewind needs it.
        .setting("wal_log_hints", "on")
        .setting("wal_sender_timeout", "1s")
        .setting("meshhook_secrets.audit_timeout", "2s")
        // A rotation that takes its time.
        .setting("meshhook_secrets.rewrap_batch_size", "1")
        .setting("meshhook_secrets.rewrap_pause", "200ms")
        .start();
    let db = old.database();
    let alice = Uuid::new_v4();
    let token = project(&db, alice, &["TOKEN"]);
    let others: Vec<Uuid> = (0..PROJECTS).map(|_| project(&db, alice, &["TOKEN"])).collect();
    db.member_of(OPERATOR);
    db.auditor().assert_good();
    let new = standby_of(&old).setting("meshhook_secrets.rewrap_pause", "0").start();
    let mut watcher = db.superuser();
    follow(&mut watcher, "synchronous_standby_names");
    let synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'";
    eventually("the standby is synchronous", || {
        watcher.query_one(synchronous, &[]).unwrap().get::<_, i64>(0) == 1
    });
    let there = db.on(&new);
    without_the_standby_nothing_is_revealed(&db, &new, alice, token);

    operate(&db, "kek_rotate('failover')").unwrap();
    let (puts, reveals) = under_load(&db, alice, token, || {
        eventually("the standby is in the middle of the rotation", || {
            let wraps = "SELECT count(*) FROM meshhook_secrets.data_keys WHERE kek_id = 2";
            there.superuser().query_one(wraps, &[]).unwrap().get::<_, i64>(0) > 3
        });
        old.kill();
    });
    let before = {
        let last = "SELECT max(seal_id) FROM meshhook_secrets.audit_seals";
        there.superuser().query_one(last, &[]).unwrap().get::<_, i64>(0)
    };
    let wrapped = "SELECT count(*) FROM meshhook_secrets.data_keys WHERE kek_id = 1";
    assert!(there.superuser().query_one(wrapped, &[]).unwrap().get::<_, i64>(0) > 0);
    follow(&mut there.superuser(), "pg_promote");

    // The workers take over.
    let running = "SELECT count(*) FROM meshhook_secrets.rotation_jobs WHERE finished_at IS NULL";
    eventually("the rotation is finished", || {
        there.superuser().query_one(running, &[]).unwrap().get::<_, i64>(0) == 0
    });
    assert_eq!(there.superuser().query_one(wrapped, &[]).unwrap().get::<_, i64>(0), 0);
    let mut user = there.user(alice);
    for project in others {
        assert_eq!(get(&mut user, project, "TOKEN").unwrap(), "token");
    }
    // All that clients were told of is there.
    assert!(!puts.is_empty() && !reveals.is_empty());
    for (name, value) in &puts {
        assert_eq!(&get(&mut user, token, name).unwrap(), value, "{name}");
    }
    put(&mut user, token, "PROMOTED", "new").unwrap();
    user.query_one(REVEAL, &[&token, &"promoted"]).unwrap();
    let mut auditor = there.connect("whole_auditor");
    let verified = support::audit::verify(&mut auditor, "");
    assert!(verified.ok && verified.problems.is_empty(), "{verified:?}");
    assert!(verified.last_seal > Some(before), "{verified:?}, before: {before}");
    let recorded = |action: &str, field: &str| -> BTreeSet<String> {
        let all = format!(
            "SELECT {field} FROM meshhook_secrets.audit_log WHERE action = '{action}' AND outcome = 'ok' AND {field} <> ''"
        );
        let rows = there.superuser().query(&all, &[]).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let (written, revealed) = (recorded("secret_put", "name"), recorded("secret_get", "purpose"));
    for (name, _) in &puts {
        assert!(written.contains(name), "no record of {name}");
    }
    for purpose in reveals.iter().map(String::as_str).chain(["cut", "promoted"]) {
        assert!(revealed.contains(purpose), "no record of {purpose}");
    }
    assert_eq!(recorded("rotation_finish", "kek_id::text").len(), 1);

    // The one that was lost comes back as a standby.
    old.rewind(&new);
    old.start();
    old.catch_up(&new);
    let back = db.on(&old);
    assert_eq!(get(&mut back.user(alice), token, "PROMOTED").unwrap(), "new");
    expect_error(put(&mut back.user(alice), token, "NEVER", "x"), "25006");
    let verified = support::audit::verify(&mut back.connect("whole_auditor"), "");
    assert!(verified.ok && verified.last_seal > Some(before), "{verified:?}");
}

/// Does what docs/replication.md says, in the block with this word.
fn follow(superuser: &mut Client, word: &str) {
    let block = documented("sql").into_iter().find(|block| block.contains(word)).unwrap();
    for statement in block.split_inclusive(";\n") {
        superuser.batch_execute(statement).unwrap();
    }
}

/// The network to the synchronous standby is cut, and comes back.
fn without_the_standby_nothing_is_revealed(
    db: &Database<'_>,
    standby: &Cluster,
    alice: Uuid,
    project: Uuid,
) {
    let receiver = server_process(standby.postmaster_pid(), "walreceiver").unwrap();
    let mut user = db.user(alice);
    user.query_one(REVEAL, &[&project, &"before"]).unwrap();
    signal(receiver, "STOP");
    // Its record is here, but not there: a failover would lose it.
    let refused = user.query_one(REVEAL, &[&project, &"cut"]);
    expect_error(refused, "PT503").detail("has not committed the record in time").hides("token");
    // Whoever does not wait for the disk does not wait for the standby.
    let mut superuser = db.superuser();
    superuser.batch_execute("SET meshhook_secrets.audit_mode = nowait").unwrap();
    superuser.query_one(REVEAL, &[&project, &"nowait"]).unwrap();
    let senders = "SELECT count(*) FROM pg_stat_replication";
    eventually("the primary gives the connection up", || {
        superuser.query_one(senders, &[]).unwrap().get::<_, i64>(0) == 0
    });
    signal(receiver, "CONT");
    let mut user = db.user(alice);
    eventually("it recovers", || user.query_one(REVEAL, &[&project, &"again"]).is_ok());
}

/// What clients were told that was done, while `disaster` came over the server: puts and reveals.
fn under_load(
    db: &Database<'_>,
    alice: Uuid,
    project: Uuid,
    disaster: impl FnOnce(),
) -> (Vec<(String, String)>, Vec<String>) {
    const CLIENTS: usize = 3;
    const EACH: usize = 10;
    let counts: [AtomicUsize; 2 * CLIENTS] = Default::default();
    scope(|scope| {
        let mut putters = Vec::new();
        let mut revealers = Vec::new();
        for client in 0..CLIENTS {
            let counts = &counts;
            let mut user = db.user(alice);
            putters.push(scope.spawn(move || {
                let mut done = Vec::new();
                for round in 0.. {
                    let (name, value) =
                        (format!("PUT_{client}_{round}"), Uuid::new_v4().to_string());
                    if put(&mut user, project, &name, &value).is_err() {
                        break;
                    }
                    done.push((name, value));
                    counts[client].fetch_add(1, Ordering::Relaxed);
                }
                done
            }));
            let mut user = db.user(alice);
            revealers.push(scope.spawn(move || {
                let mut done = Vec::new();
                for round in 0.. {
                    let purpose = format!("reveal {client} {round}");
                    if user.query_one(REVEAL, &[&project, &purpose]).is_err() {
                        break;
                    }
                    done.push(purpose);
                    counts[CLIENTS + client].fetch_add(1, Ordering::Relaxed);
                }
                done
            }));
        }
        eventually("everybody is at work", || {
            counts.iter().all(|count| count.load(Ordering::Relaxed) >= EACH)
        });
        disaster();
        let puts = putters.into_iter().flat_map(|client| client.join().unwrap()).collect();
        let reveals = revealers.into_iter().flat_map(|client| client.join().unwrap()).collect();
        (puts, reveals)
    })
}
