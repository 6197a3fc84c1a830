//! The life of keys, as a member of `meshhook_secrets_kek_admin` without superuser lives it from
//! SQL: who may do what, every legal and illegal step, rotation in the background and by hand, what
//! a bad data key does to it, verification, switching off, compromise, destruction, the schedule,
//! notifications, rotation of the root key, and dumps across all of these. The server `by_hand()`
//! has no room for our worker: there nothing happens by itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant, SystemTime};

use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, Config, NoTls};
use serde_json::Value;
use support::{
    Cluster, Database, Failure, KEY_A, KEY_B, Prefix, RootKey, eventually, expect_error, run,
};
use uuid::Uuid;

// --- rights and arguments ---------------------------------------------------------------

/// A call of each function of `55_keks.sql`.
const CALLS: [&str; 15] = [
    "kek_generate()",
    "kek_rotate()",
    "kek_rewrap()",
    "kek_status()",
    "kek_verify()",
    "kek_disable(1)",
    "kek_enable(1)",
    "kek_mark_compromised(1)",
    "kek_destroy(1, '1')",
    "kek_cancel_destroy(1)",
    "kek_configure()",
    "dek_rotate('00000000-0000-0000-0000-000000000001')",
    "secret_reencrypt('00000000-0000-0000-0000-000000000001')",
    "root_key_rotate()",
    "root_key_verify()",
];

#[test]
fn calls_names_every_function_of_the_file() {
    let file = Prefix::repository().join("sql/install/55_keks.sql");
    let file = std::fs::read_to_string(file).unwrap();
    let declared: BTreeSet<&str> = file
        .lines()
        .filter_map(|line| line.strip_prefix("CREATE FUNCTION meshhook_secrets."))
        .filter_map(|rest| rest.split('(').next())
        .collect();
    let called = CALLS.iter().filter_map(|call| call.split('(').next()).collect();
    assert_eq!(declared, called);
}

#[test]
fn only_kek_admins_may_call_anything() {
    let mut w = World::new(by_hand());
    let project = w.project("TOKEN", "value");
    let before = w.contents();
    let strangers = [
        w.db.user(w.alice),
        w.db.service(),
        w.db.anon(),
        w.db.connect(&role_in(&w.db, "meshhook_secrets_writer")),
        w.db.connect(&role_in(&w.db, "meshhook_secrets_reader")),
    ];
    for mut stranger in strangers {
        for call in CALLS {
            let answer = stranger.query(&format!("SELECT meshhook_secrets.{call}"), &[]);
            expect_error(answer, "42501").message("permission denied for");
        }
    }
    assert_eq!(w.contents(), before);
    // And a KEK admin gets at no value and no table.
    expect_error(get(&mut w.admin, project, "TOKEN", None), "42501").hides("value");
    for table in TABLES {
        let read = w.admin.query(&format!("TABLE meshhook_secrets.{table}"), &[]);
        expect_error(read, "42501");
    }
}

#[test]
fn null_arguments_are_refused() {
    let mut w = World::new(by_hand());
    w.project("TOKEN", "value");
    let before = w.contents();
    for call in [
        "kek_rewrap(NULL)",
        "kek_verify(1, NULL)",
        "kek_disable(NULL)",
        "kek_enable(NULL)",
        "kek_mark_compromised(NULL)",
        "kek_destroy(NULL, '1')",
        "kek_destroy(1, NULL)",
        "kek_destroy(1, '1', NULL)",
        "kek_cancel_destroy(NULL)",
        "dek_rotate(NULL)",
        "secret_reencrypt(NULL)",
    ] {
        w.refused(call, "22004").detail("is null").hint("Give");
    }
    assert_eq!(w.contents(), before);
}

#[test]
fn unknown_ids_are_not_found() {
    let mut w = World::new(by_hand());
    w.project("TOKEN", "value");
    let before = w.contents();
    for id in [-1, 0, 2, i32::MAX] {
        for call in [
            format!("kek_disable({id})"),
            format!("kek_enable({id})"),
            format!("kek_mark_compromised({id})"),
            format!("kek_destroy({id}, '{id}')"),
            format!("kek_cancel_destroy({id})"),
            format!("kek_verify({id})"),
            format!("kek_verify({id}, true)"),
        ] {
            w.refused(&call, "PT404").hint("kek_status");
        }
    }
    let nobody = Uuid::new_v4();
    w.refused(&format!("dek_rotate('{nobody}')"), "PT404").hint("project");
    w.refused(&format!("secret_reencrypt('{nobody}')"), "PT404").hint("project");
    assert_eq!(w.contents(), before);
}

#[test]
fn read_only_transactions_change_nothing_and_see_all() {
    let mut w = World::new(by_hand());
    let project = w.project("TOKEN", "value");
    let before = w.contents();
    w.admin.batch_execute("SET default_transaction_read_only = on").unwrap();
    for call in CALLS {
        let call = call.replace("00000000-0000-0000-0000-000000000001", &project.to_string());
        let name = call.split('(').next().unwrap();
        if ["kek_status", "kek_verify", "root_key_verify"].contains(&name) {
            let rows = w.admin.query(&format!("SELECT * FROM meshhook_secrets.{call}"), &[]);
            assert_eq!(rows.unwrap().len(), 1, "{call}");
        } else {
            w.refused(&call, "25006").hint("primary");
        }
    }
    assert_eq!(w.verify(None, true), [good(1, "active", 1)]);
    assert_eq!(w.contents(), before);
}

#[test]
fn a_sealed_server_refuses_what_needs_keys_and_still_shows_its_state() {
    let cluster = Cluster::builder().start();
    let mut w = World::new(&cluster);
    let project = w.project("TOKEN", "value");
    let spare = w.integer("kek_generate()");
    let before = w.contents();
    w.query("seal()");
    for call in CALLS {
        let call = call.replace("00000000-0000-0000-0000-000000000001", &project.to_string());
        let name = call.split('(').next().unwrap();
        let call = match name {
            "kek_destroy" => format!("kek_destroy({spare}, '{spare}')"),
            "kek_enable" | "kek_cancel_destroy" => continue, // no KEK is in their status
            "kek_configure" => continue,                     // needs no key
            "kek_status" | "root_key_verify" => {
                w.admin.query(&format!("SELECT meshhook_secrets.{call}"), &[]).unwrap();
                continue;
            }
            _ => call,
        };
        let refused = w.refused(&call, "PT503").hint("unseal");
        assert!(!refused.detail.is_empty(), "{call}");
    }
    let statuses = w.statuses();
    assert_eq!(statuses, [kek(1, "active", 1), kek(spare, "pending", 0)]);
    let status = "SELECT keks FROM meshhook_secrets.root_key_status()";
    assert_eq!(w.admin.query_one(status, &[]).unwrap().get::<_, i64>(0), 2);
    assert_eq!(w.contents(), before);
    w.query("kek_configure()");
    w.query("unseal()");
    assert_eq!(w.get(project, "TOKEN").unwrap(), "value");
    w.text("kek_disable(1)");
}

// --- single steps -------------------------------------------------------------------------

/// KEKs 1 to 8 in every status; only the retiring one and none else wraps a data key.
fn one_kek_in_each_status() -> (World<'static>, Vec<(i32, &'static str)>) {
    let mut w = World::new(by_hand());
    w.project("TOKEN", "value");
    for former in 1..=5 {
        w.rotate();
        assert_eq!(w.rewrap(1000), (1, 0, 0));
        match former {
            2 => assert_eq!(w.text("kek_disable(2)"), "disabled"),
            3 => assert_eq!(w.text("kek_mark_compromised(3)"), "compromised"),
            4 => drop(w.text("kek_destroy(4, '4', '1 day')")),
            5 => drop(w.text("kek_destroy(5, '5')")),
            _ => {}
        }
    }
    w.su.batch_execute(
        "UPDATE meshhook_secrets.kek_storage
            SET status = 'destroyed', kek_encrypted = NULL, destroyed_at = now() WHERE kek_id = 5",
    )
    .unwrap();
    w.rotate();
    assert_eq!(w.integer("kek_generate()"), 8);
    let keks = vec![
        (1, "retired"),
        (2, "disabled"),
        (3, "compromised"),
        (4, "destroy_scheduled"),
        (5, "destroyed"),
        (6, "retiring"),
        (7, "active"),
        (8, "pending"),
    ];
    let expected: Vec<_> =
        keks.iter().map(|(id, status)| kek(*id, status, i64::from(*id == 6))).collect();
    assert_eq!(w.statuses(), expected);
    (w, keks)
}

#[test]
fn every_legal_step_works_and_every_other_is_refused_and_changes_nothing() {
    let (mut w, keks) = one_kek_in_each_status();
    let steps: [(&str, &[(&str, &str)]); 5] = [
        (
            "kek_disable(#)",
            &[("active", "disabled"), ("retiring", "disabled"), ("retired", "disabled")],
        ),
        ("kek_enable(#)", &[("disabled", "retired")]),
        (
            "kek_mark_compromised(#)",
            &[
                ("active", "compromised"),
                ("retiring", "compromised"),
                ("retired", "compromised"),
                ("disabled", "compromised"),
            ],
        ),
        (
            "kek_destroy(#, '#', '1 day')",
            &[
                ("pending", "destroy_scheduled"),
                ("retired", "destroy_scheduled"),
                ("disabled", "destroy_scheduled"),
                ("compromised", "destroy_scheduled"),
            ],
        ),
        ("kek_cancel_destroy(#)", &[("destroy_scheduled", "disabled")]),
    ];
    let before = w.contents();
    let mut faults = Vec::new();
    for (step, legal) in steps {
        for (id, status) in &keks {
            let call = step.replace('#', &id.to_string());
            let next = legal.iter().find(|(from, _)| from == status).map(|(_, to)| *to);
            w.admin.batch_execute("BEGIN").unwrap();
            let answer = w.try_text(&call);
            match (next, answer) {
                (Some(next), Ok(said)) => {
                    if !step.contains("destroy(#, ") && said != next {
                        faults.push(format!("{status}: {call} says {said}"));
                    }
                    let now = w.status_of(*id);
                    if now != next {
                        faults.push(format!("{status}: {call} makes it {now}"));
                    }
                }
                (None, Err(error)) => {
                    let refused = expect_error::<()>(Err(error), "PT409");
                    let names = format!("KEK {id} is {status} ");
                    if !refused.detail.contains(&names) || refused.hint.is_empty() {
                        faults.push(format!("{status}: {call}: {refused:?}"));
                    }
                }
                (Some(_), Err(error)) => faults.push(format!("{status}: {call} fails: {error:?}")),
                (None, Ok(said)) => faults.push(format!("{status}: {call} is allowed: {said}")),
            }
            w.admin.batch_execute("ROLLBACK").unwrap();
            assert_eq!(w.contents(), before, "{status}: {call}");
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn steps_are_kept_with_their_times() {
    let mut w = World::new(by_hand());
    w.project("TOKEN", "value");
    let started = SystemTime::now() - Duration::from_secs(1);
    let times = |w: &mut World<'_>, id: i32| -> [Option<SystemTime>; 4] {
        let query = "SELECT rotated_at, retired_at, destroy_after, destroyed_at
            FROM meshhook_secrets.kek_status() WHERE kek_id = $1";
        let row = w.admin.query_one(query, &[&id]).unwrap();
        [row.get(0), row.get(1), row.get(2), row.get(3)]
    };
    assert_eq!(times(&mut w, 1), [None; 4]);
    w.rotate();
    let [rotated, retired, ..] = times(&mut w, 1);
    assert!(rotated.unwrap() > started);
    assert_eq!(retired, None);
    w.rewrap(1000);
    let [rotated_later, retired, ..] = times(&mut w, 1);
    assert_eq!(rotated, rotated_later);
    assert!(retired.unwrap() >= rotated.unwrap());
    w.text("kek_destroy(1, '1', '1 hour')");
    let [_, retired_later, after, destroyed] = times(&mut w, 1);
    assert_eq!((retired, destroyed), (retired_later, None));
    assert!(after.unwrap() > SystemTime::now() + Duration::from_secs(3500));
    w.text("kek_cancel_destroy(1)");
    assert_eq!(times(&mut w, 1)[2..], [None; 2]);
}

#[test]
fn two_steps_at_once_wait_for_each_other_and_never_deadlock() {
    let mut w = World::new(by_hand());
    let spare = w.integer("kek_generate()");
    let destroy = format!("SELECT meshhook_secrets.kek_destroy({spare}, '{spare}')");
    w.admin.batch_execute("BEGIN; SELECT meshhook_secrets.kek_generate()").unwrap();
    let mut other = w.db.connect(&role_in(&w.db, "meshhook_secrets_kek_admin"));
    let waiting = spawn(move || other.execute(&destroy, &[]).map(|_| ()));
    let su = &mut w.su;
    let blocked = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("the second one waits", || {
        su.query_one(blocked, &[]).unwrap().get::<_, i64>(0) == 1
    });
    // A step on the very KEK that the waiting one is about.
    let cancel = w.try_text(&format!("kek_cancel_destroy({spare})"));
    w.admin.batch_execute("ROLLBACK").unwrap();
    expect_error(cancel, "PT409");
    waiting.join().unwrap().unwrap();

    let mut other = w.db.connect(&role_in(&w.db, "meshhook_secrets_kek_admin"));
    let spare = w.integer("kek_generate()");
    let destroy = format!("SELECT meshhook_secrets.kek_destroy({spare}, '{spare}')");
    w.admin.batch_execute("BEGIN; SELECT meshhook_secrets.kek_generate()").unwrap();
    let waiting = spawn(move || other.execute(&destroy, &[]).map(|_| ()));
    let su = &mut w.su;
    eventually("the second one waits", || {
        su.query_one(blocked, &[]).unwrap().get::<_, i64>(0) == 1
    });
    // The rotation takes the pending KEK, which the waiting one wants to destroy.
    let rotated = w.try_text("kek_rotate()");
    w.admin.batch_execute("COMMIT").unwrap();
    rotated.unwrap();
    expect_error(waiting.join().unwrap(), "PT409").detail(&format!("KEK {spare} is active"));
}

// --- rotation ---------------------------------------------------------------------------

#[test]
fn a_generated_kek_waits_for_the_next_rotation() {
    let mut w = World::new(by_hand());
    // Before there is any: the first secret finds no active KEK, or makes one; never uses pending.
    w.project("TOKEN", "value");
    assert_eq!(w.integer("kek_generate()"), 2);
    assert_eq!(w.integer("kek_generate()"), 3);
    w.project("TOKEN", "value");
    assert_eq!(w.statuses(), [kek(1, "active", 2), kek(2, "pending", 0), kek(3, "pending", 0)]);
    assert_eq!(w.rotate().kek_id, 2);
    w.rewrap(1000);
    assert_eq!(w.statuses(), [kek(1, "retired", 0), kek(2, "active", 2), kek(3, "pending", 0)]);
    assert_eq!(w.rotate().kek_id, 3);
    w.rewrap(1000);
    assert_eq!(w.rotate().kek_id, 4);
}

#[test]
fn a_rotation_counts_at_once_and_a_second_call_finds_it_running() {
    let mut w = World::new(by_hand());
    let old = w.project("TOKEN", "old");
    let reason = "SELECT (r).reason, (r).started_by, (r).finished_at IS NULL, (r).last_error
        FROM meshhook_secrets.kek_rotate('monthly') r";
    let row = w.admin.query_one(reason, &[]).unwrap();
    assert_eq!(row.get::<_, &str>(0), "monthly");
    assert_eq!(row.get::<_, &str>(1), w.admin_name);
    assert!(row.get::<_, bool>(2));
    assert_eq!(row.get::<_, Option<&str>>(3), None);
    let first = w.rotate();
    assert_eq!(first, Job { job_id: 1, kek_id: 2, total: 1, remaining: 1 });
    let new = w.project("TOKEN", "new");
    assert_eq!(w.statuses(), [kek(1, "retiring", 1), kek(2, "active", 1)]);
    assert_eq!(w.rotate(), first);
    let row = w.admin.query_one(&reason.replace("monthly", "other"), &[]).unwrap();
    assert_eq!(row.get::<_, &str>(0), "monthly");
    for (project, value) in [(old, "old"), (new, "new")] {
        assert_eq!(w.get(project, "TOKEN").unwrap(), value);
    }
    assert_eq!(w.rewrap(10), (1, 0, 0));
    assert_eq!(w.rotate().job_id, 2);
    let long = format!("kek_rotate('{}')", "x".repeat(501));
    w.refused(&long, "22023").detail("500").hint("sentence");
}

#[test]
fn a_rotation_that_is_rolled_back_never_was() {
    let mut w = World::new(by_hand());
    let project = w.project("TOKEN", "value");
    let before = w.contents();
    w.admin.batch_execute("BEGIN").unwrap();
    w.rotate();
    assert_eq!(w.rewrap(1000), (1, 0, 0));
    w.admin.batch_execute("ROLLBACK").unwrap();
    assert_eq!(w.contents(), before);
    assert_eq!(w.get(project, "TOKEN").unwrap(), "value");
    assert_eq!(w.rotate().kek_id, 2);
}

#[test]
fn two_rotations_at_the_same_moment_are_one() {
    let mut w = World::new(by_hand());
    w.project("TOKEN", "value");
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let mut client = w.db.connect(&w.admin_name);
            let rotate = "SELECT (meshhook_secrets.kek_rotate()).job_id";
            spawn(move || client.query_one(rotate, &[]).unwrap().get::<_, i32>(0))
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.join().unwrap(), 1);
    }
    assert_eq!(w.statuses(), [kek(1, "retiring", 1), kek(2, "active", 0)]);
}

#[test]
fn rewrapping_by_hand_goes_batch_by_batch_and_says_how_far_it_is() {
    let mut w = World::new(by_hand());
    let projects: Vec<_> = (0..7).map(|n| w.project("TOKEN", &n.to_string())).collect();
    w.rotate();
    let (notices, mut client) = listening(&w.db, &w.admin_name);
    let mut rewrap = |size: i32| -> (i64, i64, i64) {
        let call = "SELECT * FROM meshhook_secrets.kek_rewrap($1)";
        let row = client.query_one(call, &[&size]).unwrap();
        (row.get("rewrapped"), row.get("failed"), row.get("remaining"))
    };
    assert_eq!(rewrap(3), (3, 0, 4));
    assert_eq!(w.statuses(), [kek(1, "retiring", 4), kek(2, "active", 3)]);
    assert_eq!(rewrap(1), (1, 0, 3));
    let progress = w.progress();
    assert_eq!((progress.remaining, progress.done), (Some(3), Some(4)));
    assert!(progress.per_second.unwrap() > 0.0);
    assert!(progress.estimated_end.unwrap() > SystemTime::now() - Duration::from_secs(1));
    assert_eq!(progress.last_error, None);
    assert_eq!(rewrap(1000), (3, 0, 0));
    assert_eq!(rewrap(1000), (0, 0, 0));
    assert_eq!(
        texts(&notices),
        [
            "3 data keys rewrapped, 4 remaining",
            "1 data keys rewrapped, 3 remaining",
            "3 data keys rewrapped, 0 remaining",
            "0 data keys rewrapped, 0 remaining",
        ]
    );
    assert_eq!(w.statuses(), [kek(1, "retired", 0), kek(2, "active", 7)]);
    let progress = w.progress();
    assert_eq!((progress.remaining, progress.done), (Some(0), Some(7)));
    assert!(progress.estimated_end.unwrap() < SystemTime::now() + Duration::from_secs(1));
    for (n, project) in projects.into_iter().enumerate() {
        assert_eq!(w.get(project, "TOKEN").unwrap(), n.to_string());
    }
    for size in [0, -1, 100_001, i32::MIN] {
        w.refused(&format!("kek_rewrap({size})"), "22023").detail("100000").hint("batch");
    }
}

#[test]
fn data_keys_that_others_hold_are_left_for_later() {
    let mut w = World::new(by_hand());
    let held = w.project("TOKEN", "value");
    w.project("TOKEN", "value");
    w.rotate();
    let lock = "BEGIN; SELECT FROM meshhook_secrets.data_keys WHERE project_id = '#' FOR UPDATE";
    let mut su = w.db.superuser();
    su.batch_execute(&lock.replace('#', &held.to_string())).unwrap();
    assert_eq!(w.rewrap(1000), (1, 0, 1));
    assert_eq!(w.rewrap(1000), (0, 0, 1));
    assert_eq!(w.rotate().remaining, 1);
    assert_eq!(w.get(held, "TOKEN").unwrap(), "value");
    su.batch_execute("ROLLBACK").unwrap();
    assert_eq!(w.rewrap(1000), (1, 0, 0));
    assert_eq!(w.statuses(), [kek(1, "retired", 0), kek(2, "active", 2)]);
}

#[test]
fn the_worker_finishes_a_rotation_and_everybody_listening_hears_of_it() {
    let mut w = World::new(Cluster::shared());
    let projects: Vec<_> = (0..5).map(|n| w.project("TOKEN", &n.to_string())).collect();
    let mut ears = w.listen();
    let job = w.rotate();
    assert_eq!(job, Job { job_id: 1, kek_id: 2, total: 5, remaining: 5 });
    w.eventually_is(1, "retired");
    assert_eq!(w.statuses(), [kek(1, "retired", 0), kek(2, "active", 5)]);
    eventually("the job is finished", || w.job(1).0);
    let events = hear(&mut ears, "rotation_finished");
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(events[0]["event"], "rotation_started");
    for (key, value) in [("job_id", 1), ("kek_id", 2), ("total", 5)] {
        assert_eq!(events[0][key], value);
    }
    assert_eq!((&events[1]["job_id"], &events[1]["kek_id"]), (&1.into(), &2.into()));
    assert_eq!(w.verify(None, true), [good(1, "retired", 0), good(2, "active", 5)]);
    for (n, project) in projects.into_iter().enumerate() {
        assert_eq!(w.get(project, "TOKEN").unwrap(), n.to_string());
    }
}

#[test]
fn an_idle_transaction_in_one_database_does_not_stop_the_keys_of_another() {
    let cluster = Cluster::builder().start();
    let (mut held, mut free) = (World::new(&cluster), World::new(&cluster));
    held.project("TOKEN", "value");
    let new = held.db.project(held.alice);
    let mut idle = held.db.user(held.alice);
    idle.batch_execute("BEGIN").unwrap();
    put(&mut idle, new, "TOKEN", "under the old KEK");
    held.rotate();
    free.project("TOKEN", "value");
    // The worker of the first database meets the idle transaction meanwhile.
    eventually("all that is committed is rewrapped", || {
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE backend_type LIKE 'meshhook_secrets%' AND wait_event_type = 'Lock'";
        held.wraps(1) == 0
            || held.su.query_one(waiting, &[]).unwrap().get::<_, i64>(0) > 0
            || held.progress().last_error.is_some()
    });
    free.rotate();
    let deadline = Instant::now() + Duration::from_secs(10);
    while free.status_of(1) != "retired" && Instant::now() < deadline {
        sleep(Duration::from_millis(50));
    }
    let (there, here) = (free.status_of(1), held.status_of(1));
    idle.batch_execute("COMMIT").unwrap();
    assert_eq!(here, "retiring", "retired under a writer");
    assert_eq!(there, "retired", "the other database waits for the idle transaction");
    held.eventually_is(1, "retired");
    assert_eq!(held.wraps(2), 2);
    assert_eq!(held.get(new, "TOKEN").unwrap(), "under the old KEK");
}

// --- bad data ---------------------------------------------------------------------------

#[test]
fn a_bad_data_key_blocks_no_other_is_reported_and_heals() {
    let mut w = World::new(Cluster::shared());
    let (bad, fine) = (w.project("TOKEN", "bad"), w.project("TOKEN", "fine"));
    w.flip("data_keys", "dek_encrypted", bad);
    let mut ears = w.listen();
    w.rotate();
    eventually("the other one is rewrapped", || w.wraps(2) == 1);
    eventually("the error is shown", || w.progress().last_error.is_some());
    sleep(Duration::from_millis(1500)); // the worker has come back at least once
    assert_eq!(w.statuses(), [kek(1, "retiring", 1), kek(2, "active", 1)]);
    assert!(!w.job(1).0);
    let progress = w.progress();
    assert_eq!((progress.remaining, progress.done), (Some(1), Some(1)));
    let error = progress.last_error.unwrap();
    assert!(error.contains("authenticate") && error.contains('1'), "{error}");
    assert_eq!(w.job(1).1, Some(error));
    assert_eq!(w.get(fine, "TOKEN").unwrap(), "fine");
    expect_error(w.get(bad, "TOKEN"), "XX001").hides("bad");
    let verified = w.verify(Some(1), true);
    assert_eq!((verified[0].wraps, verified[0].good, verified[0].bad), (1, 0, 1));
    assert!(verified[0].problem.as_ref().unwrap().contains(&bad.to_string()));
    expect_error(w.try_text("kek_destroy(1, '1')"), "PT409").detail("1 data key");
    let events = hear(&mut ears, "rotation_failed");
    assert!(events.last().unwrap()["error"].as_str().unwrap().contains("authenticate"));
    // That calls failed is told of besides.
    let mut more = hear_until(&mut ears, Duration::from_millis(300));
    more.retain(|event| !event.contains("\"event\":\"audit\""));
    assert!(more.is_empty(), "told again although nothing is new: {more:?}");

    w.flip("data_keys", "dek_encrypted", bad);
    w.eventually_is(1, "retired");
    eventually("the job is finished", || w.job(1) == (true, None));
    assert_eq!(w.progress().last_error, None);
    assert_eq!(w.get(bad, "TOKEN").unwrap(), "bad");
    assert_eq!(hear(&mut ears, "rotation_finished").last().unwrap()["job_id"], 1);
}

#[test]
fn bad_data_keys_in_front_do_not_stop_rewrapping_by_hand() {
    let mut w = World::new(by_hand());
    let mut projects: Vec<_> = (0..4).map(|_| w.project("TOKEN", "value")).collect();
    projects.sort();
    w.flip("data_keys", "dek_encrypted", projects[0]);
    w.rotate();
    let calls: Vec<_> = (0..8).map(|_| w.rewrap(1)).collect();
    assert_eq!(w.statuses(), [kek(1, "retiring", 1), kek(2, "active", 3)], "{calls:?}");
    assert_eq!(calls[7], (0, 1, 1));
    assert!(w.progress().last_error.unwrap().contains("1 data key"));
    w.flip("data_keys", "dek_encrypted", projects[0]);
    assert_eq!(w.rewrap(1), (1, 0, 0));
    assert_eq!(w.job(1), (true, None));
}

#[test]
fn a_bad_kek_does_not_keep_the_data_keys_of_others_from_being_rewrapped() {
    let mut w = World::new(by_hand());
    let lost = w.project("TOKEN", "lost");
    w.rotate();
    w.text("kek_disable(1)"); // so that this rotation ends without it
    w.rewrap(1000);
    let fine = w.project("TOKEN", "fine");
    w.text("kek_enable(1)");
    w.flip_kek(1);
    w.rotate();
    let answer = w.admin.query("SELECT * FROM meshhook_secrets.kek_rewrap()", &[]);
    answer.expect("one bad KEK fails alone");
    assert_eq!((w.wraps(1), w.wraps(2), w.wraps(3)), (1, 0, 1));
    assert_eq!(w.status_of(2), "retired");
    assert_eq!(w.rewrap(1000), (0, 1, 1)); // the first look only moved what it could
    assert!(w.progress().last_error.unwrap().contains("KEK 1"));
    assert_eq!(w.get(fine, "TOKEN").unwrap(), "fine");
    expect_error(w.get(lost, "TOKEN"), "XX001");
}

#[test]
fn verification_finds_what_is_bad() {
    let mut w = World::new(by_hand());
    let projects: Vec<_> = (0..3).map(|_| w.project("TOKEN", "value")).collect();
    put(&mut w.db.user(w.alice), projects[0], "TOKEN", "second");
    w.rotate();
    let sound = [good(1, "retiring", 3), good(2, "active", 0)];
    assert_eq!(w.verify(None, true), sound);
    let shallow = [
        Verified { good: 0, ..good(1, "retiring", 3) },
        Verified { good: 0, ..good(2, "active", 0) },
    ];
    assert_eq!(w.verify(None, false), shallow);
    for (table, column) in
        [("data_keys", "dek_encrypted"), ("project_secrets", "mac"), ("secret_versions", "value")]
    {
        w.flip(table, column, projects[1]);
        assert_eq!(w.verify(None, false), shallow, "{table}");
        let found = w.verify(None, true);
        assert_eq!((found[0].wraps, found[0].good, found[0].bad), (3, 2, 1), "{table}");
        let problem = found[0].problem.clone().unwrap();
        assert!(problem.contains(&projects[1].to_string()), "{table}: {problem}");
        assert_eq!(found[1], sound[1], "{table}");
        w.flip(table, column, projects[1]);
        assert_eq!(w.verify(None, true), sound, "{table}");
    }
    // An old version counts as well.
    w.su.batch_execute(
        "UPDATE meshhook_secrets.secret_versions SET value = set_byte(value, 30, 255 - get_byte(value, 30))
            WHERE version = 1 AND project_id IN
              (SELECT project_id FROM meshhook_secrets.secret_versions WHERE version = 2)",
    )
    .unwrap();
    assert_eq!(w.verify(Some(1), true)[0].bad, 1);
    // The KEK itself.
    w.flip_kek(1);
    for deep in [false, true] {
        let found = w.verify(None, deep);
        assert_eq!(found[0].good, 0);
        assert!(found[0].problem.as_ref().unwrap().contains("KEK"), "{found:?}");
        assert_eq!(found[1], sound[1]);
        assert_eq!(w.verify(Some(1), deep)[0].problem, found[0].problem);
    }
}

// --- off and on ---------------------------------------------------------------------------

#[test]
fn a_disabled_kek_stops_its_projects_at_once_and_enabling_heals() {
    let mut w = World::new(Cluster::shared());
    let project = w.project("TOKEN", "value");
    let mut sessions = [w.db.user(w.alice), w.db.service()];
    for session in &mut sessions {
        assert_eq!(get(session, project, "TOKEN", None).unwrap(), "value");
    }
    assert_eq!(w.text("kek_disable(1)"), "disabled");
    for session in &mut sessions {
        let refused = expect_error(get(session, project, "TOKEN", None), "PT503");
        refused.detail("KEK 1 is disabled").hint("enabled").hides("value");
        let put = try_put(session, project, "TOKEN", "other");
        expect_error(put, "PT503").detail("KEK 1 is disabled");
    }
    // A new project needs a KEK that wraps.
    let new = w.db.project(w.alice);
    let refused = expect_error(try_put(&mut sessions[0], new, "TOKEN", "new"), "PT503");
    refused.hint("kek_rotate");
    assert_eq!(w.statuses(), [kek(1, "disabled", 1)]);
    w.rotate();
    put(&mut sessions[0], new, "TOKEN", "new");
    assert_eq!(w.get(new, "TOKEN").unwrap(), "new");
    expect_error(w.get(project, "TOKEN"), "PT503").detail("KEK 1 is disabled");
    assert_eq!(w.status_of(1), "disabled");
    assert_eq!(w.text("kek_enable(1)"), "retiring");
    for session in &mut sessions {
        assert_eq!(get(session, project, "TOKEN", None).unwrap(), "value");
    }
    // And the worker moves its data keys away by itself.
    w.eventually_is(1, "retired");
    assert_eq!(w.statuses(), [kek(1, "retired", 0), kek(2, "active", 2)]);
    assert_eq!(w.get(project, "TOKEN").unwrap(), "value");
    assert_eq!(w.text("kek_disable(1)"), "disabled");
    assert_eq!(w.text("kek_enable(1)"), "retired");
}

#[test]
fn a_kek_disabled_during_a_rotation_holds_it_up_for_nobody() {
    let mut w = World::new(by_hand());
    let project = w.project("TOKEN", "value");
    w.rotate();
    w.text("kek_disable(1)");
    assert_eq!(w.rewrap(1000), (0, 0, 0));
    expect_error(w.try_text("kek_destroy(1, '1')"), "PT409").detail("wraps 1 data key");
    assert_eq!(w.text("kek_enable(1)"), "retiring");
    assert_eq!(w.rewrap(1000), (1, 0, 0));
    assert_eq!(w.status_of(1), "retired");
    assert_eq!(w.get(project, "TOKEN").unwrap(), "value");
}

// --- compromise -----------------------------------------------------------------------------

#[test]
fn after_a_compromise_everything_is_sealed_anew_and_the_kek_destroyed() {
    let mut w = World::new(Cluster::shared());
    let project = w.project("TOKEN", "first");
    let mut alice = w.db.user(w.alice);
    put(&mut alice, project, "TOKEN", "second");
    put(&mut alice, project, "GONE", "deleted");
    put(&mut alice, project, "SOON", "expires");
    let calls = [
        "SELECT meshhook_secrets.secret_delete($1, 'GONE')",
        "SELECT meshhook_secrets.secret_expire($1, 'SOON', now() + interval '1 hour')",
    ];
    for call in calls {
        alice.query(call, &[&project]).unwrap();
    }
    assert_eq!(w.text("kek_mark_compromised(1)"), "compromised");
    // Reads go on; a new project is not wrapped with it.
    assert_eq!(w.get(project, "TOKEN").unwrap(), "second");
    put(&mut alice, project, "TOKEN", "third");
    let new = w.db.project(w.alice);
    expect_error(try_put(&mut alice, new, "TOKEN", "new"), "PT503").hint("kek_rotate");
    assert_eq!(w.statuses(), [kek(1, "compromised", 1)]);
    expect_error(w.try_text("kek_destroy(1, '1')"), "PT409").detail("wraps 1 data key");

    let (notices, mut client) = listening(&w.db, &w.admin_name);
    client.query("SELECT meshhook_secrets.kek_rotate('leaked')", &[]).unwrap();
    let hints = said(&notices);
    eventually("all are moved away", || w.statuses()[0] == kek(1, "compromised", 0));
    eventually("the job is finished", || w.job(1).0);

    let before = w.ciphertexts(project);
    let listed = w.described(project);
    assert_eq!(before.len(), 5 + 3 + 1); // versions, macs, data key
    assert_eq!(w.integer(&format!("dek_rotate('{project}')")), 2);
    assert_eq!(w.get(project, "TOKEN").unwrap(), "third");
    put(&mut alice, project, "TOKEN", "fourth");
    let count = format!("SELECT meshhook_secrets.secret_reencrypt('{project}')");
    assert_eq!(w.admin.query_one(&count, &[]).unwrap().get::<_, i64>(0), 6);
    let after = w.ciphertexts(project);
    assert_eq!(after.len(), before.len() + 1);
    assert!(before.is_disjoint(&after));
    let keys = "SELECT dek_version, kek_id, status FROM meshhook_secrets.data_keys
        WHERE project_id = $1";
    let row = w.su.query_one(keys, &[&project]).unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1)), (2, 2));
    assert_eq!(row.get::<_, &str>(2), "active");
    for (version, value) in [(1, "first"), (2, "second"), (3, "third"), (4, "fourth")] {
        assert_eq!(get(&mut alice, project, "TOKEN", Some(version)).unwrap(), value);
    }
    let same = |rows: &[String]| -> Vec<String> {
        rows.iter().filter(|row| !row.contains("TOKEN")).cloned().collect()
    };
    assert_eq!(same(&w.described(project)), same(&listed));
    assert_eq!(get(&mut alice, project, "SOON", None).unwrap(), "expires");
    expect_error(get(&mut alice, project, "GONE", None), "PT410");
    alice.query("SELECT meshhook_secrets.secret_undelete($1, 'GONE')", &[&project]).unwrap();
    assert_eq!(get(&mut alice, project, "GONE", None).unwrap(), "deleted");
    assert_eq!(w.verify(Some(2), true), [good(2, "active", 1)]);

    w.text("kek_destroy(1, '1', '0')");
    w.eventually_is(1, "destroyed");
    assert_eq!(w.get(project, "TOKEN").unwrap(), "fourth");
    assert!(
        hints.contains("dek_rotate") && hints.contains("secret_reencrypt"),
        "kek_rotate does not lead to dek_rotate and secret_reencrypt: {hints:?}"
    );
}

#[test]
fn reencryption_of_a_sealed_project_is_refused() {
    let mut w = World::new(by_hand());
    let project = w.project("TOKEN", "value");
    w.query(&format!("seal('{project}')"));
    let before = w.contents();
    for function in ["dek_rotate", "secret_reencrypt"] {
        w.refused(&format!("{function}('{project}')"), "PT503").detail("sealed").hint("unseal");
    }
    assert_eq!(w.contents(), before);
    w.query(&format!("unseal('{project}')"));
    assert_eq!(w.integer(&format!("dek_rotate('{project}')")), 2);
    // Sealed and opened with two data keys, each is again what it was.
    w.query(&format!("seal('{project}')"));
    w.refused(&format!("secret_reencrypt('{project}')"), "PT503").detail("sealed");
    w.query(&format!("unseal('{project}')"));
    assert_eq!(w.get(project, "TOKEN").unwrap(), "value");
    w.text(&format!("secret_reencrypt('{project}')"));
    assert_eq!(w.get(project, "TOKEN").unwrap(), "value");
}

#[test]
fn reencryption_of_a_tampered_project_changes_nothing() {
    let mut w = World::new(by_hand());
    let project = w.project("TOKEN", "value");
    put(&mut w.db.user(w.alice), project, "OTHER", "value");
    w.integer(&format!("dek_rotate('{project}')"));
    for (table, column) in
        [("secret_versions", "value"), ("project_secrets", "mac"), ("data_keys", "dek_encrypted")]
    {
        w.flip(table, column, project);
        let before = w.contents();
        w.refused(&format!("secret_reencrypt('{project}')"), "XX001").hint("backup");
        assert_eq!(w.contents(), before, "{table}");
        w.flip(table, column, project);
    }
    w.text(&format!("secret_reencrypt('{project}')"));
    assert_eq!(w.get(project, "OTHER").unwrap(), "value");
}

#[test]
fn a_secret_written_during_a_reencryption_is_not_lost() {
    let mut w = World::new(by_hand());
    let project = w.project("TOKEN", "value");
    let mut alice = w.db.user(w.alice);
    alice.batch_execute("BEGIN").unwrap();
    put(&mut alice, project, "NEW", "written meanwhile");
    let mut admin = w.db.connect(&w.admin_name);
    let calls = ["dek_rotate", "secret_reencrypt"];
    let reencrypting = spawn(move || {
        calls.map(|call| {
            let call = format!("SELECT meshhook_secrets.{call}('{project}')");
            admin.execute(&call, &[]).map(|_| ())
        })
    });
    sleep(Duration::from_millis(300)); // it is done by then, or waits for the writer
    alice.batch_execute("COMMIT").unwrap();
    for answer in reencrypting.join().unwrap() {
        answer.unwrap();
    }
    assert_eq!(w.get(project, "TOKEN").unwrap(), "value");
    assert_eq!(w.get(project, "NEW").unwrap(), "written meanwhile");
    w.text(&format!("secret_reencrypt('{project}')"));
    assert_eq!(w.get(project, "NEW").unwrap(), "written meanwhile");
    let keys = "SELECT count(*) FROM meshhook_secrets.data_keys";
    assert_eq!(w.su.query_one(keys, &[]).unwrap().get::<_, i64>(0), 1);
}

#[test]
fn a_reader_with_an_older_snapshot_still_reads_after_a_reencryption() {
    let mut w = World::new(by_hand());
    let project = w.project("TOKEN", "value");
    let mut alice = w.db.user(w.alice);
    alice.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").unwrap();
    w.text(&format!("dek_rotate('{project}')"));
    w.text(&format!("secret_reencrypt('{project}')"));
    w.rotate();
    w.rewrap(1000);
    assert_eq!(get(&mut alice, project, "TOKEN", None).unwrap(), "value");
    expect_error(try_put(&mut alice, project, "TOKEN", "other"), "40001");
    alice.batch_execute("ROLLBACK").unwrap();
    put(&mut alice, project, "TOKEN", "other");
    assert_eq!(w.get(project, "TOKEN").unwrap(), "other");
}

#[test]
fn the_first_rotation_of_an_empty_database_makes_its_first_kek() {
    let mut w = World::new(by_hand());
    assert_eq!(w.statuses(), []);
    assert_eq!(w.rewrap(1000), (0, 0, 0));
    assert_eq!(w.rotate(), Job { job_id: 1, kek_id: 1, total: 0, remaining: 0 });
    w.rewrap(1000);
    let project = w.project("TOKEN", "value");
    assert_eq!(w.statuses(), [kek(1, "active", 1)]);
    assert_eq!(w.get(project, "TOKEN").unwrap(), "value");
    assert_eq!(w.job(1), (true, None));
}

// --- destruction ----------------------------------------------------------------------------

#[test]
fn destruction_is_refused_while_anything_needs_the_kek_or_confirm_is_not_its_id() {
    let mut w = World::new(by_hand());
    for _ in 0..3 {
        w.project("TOKEN", "value");
    }
    w.rotate();
    let before = w.contents();
    w.refused("kek_destroy(1, '1')", "PT409").detail("KEK 1 is retiring and wraps 3 data keys");
    w.refused("kek_destroy(2, '2')", "PT409").detail("KEK 2 is active").hint("kek_rotate");
    for confirm in ["", "2", " 1", "01", "yes", "1\n"] {
        w.refused(&format!("kek_destroy(1, '{confirm}')"), "22023").detail("confirm").hint("id");
    }
    w.refused("kek_destroy(1)", "42883");
    for wait in ["-1 second", "2000 years"] {
        w.refused(&format!("kek_destroy(1, '1', '{wait}')"), "22023").detail("wait");
    }
    assert_eq!(w.contents(), before);
    w.rewrap(1000);
    w.refused("kek_destroy(2, '2')", "PT409").detail("KEK 2 is active").hint("kek_rotate");
    let days = "SELECT extract(epoch FROM meshhook_secrets.kek_destroy(1, '1') - now())::float8";
    let seconds: f64 = w.admin.query_one(days, &[]).unwrap().get(0);
    assert!((seconds - 7.0 * 86_400.0).abs() < 60.0, "{seconds}");
    assert_eq!(w.text("kek_cancel_destroy(1)"), "disabled");
    assert_eq!(w.text("kek_enable(1)"), "retired");
}

#[test]
fn a_destroyed_kek_is_gone_and_what_needs_it_says_so() {
    let mut w = World::new(Cluster::shared());
    let project = w.project("TOKEN", "value");
    w.keep_tables();
    w.rotate();
    w.eventually_is(1, "retired");
    let mut ears = w.listen();
    w.text("kek_destroy(1, '1', '1 second')");
    assert_eq!(w.status_of(1), "destroy_scheduled");
    w.eventually_is(1, "destroyed");
    let events = hear(&mut ears, "kek_destroyed");
    assert_eq!(events[0]["event"], "kek_destroy_scheduled");
    assert_eq!((&events[0]["kek_id"], &events[1]["kek_id"]), (&1.into(), &1.into()));
    let row = "SELECT kek_encrypted IS NULL, destroyed_at >= destroy_after
        FROM meshhook_secrets.kek_storage WHERE kek_id = 1";
    let row = w.su.query_one(row, &[]).unwrap();
    assert!(row.get::<_, bool>(0) && row.get::<_, bool>(1));
    for call in ["kek_enable(1)", "kek_cancel_destroy(1)", "kek_disable(1)"] {
        let refused = w.refused(call, "PT409").detail("KEK 1 is destroyed");
        assert!(!refused.hint.is_empty());
    }
    assert_eq!(w.verify(Some(1), true), [good(1, "destroyed", 0)]);
    assert_eq!(w.get(project, "TOKEN").unwrap(), "value");

    w.put_back();
    let refused = expect_error(w.get(project, "TOKEN"), "PT503").detail("KEK 1 is destroyed");
    refused.hint("backup").hides("value");
    let refused = try_put(&mut w.db.user(w.alice), project, "TOKEN", "new");
    expect_error(refused, "PT503").detail("KEK 1 is destroyed");
    assert_eq!(w.statuses(), [kek(1, "destroyed", 1), kek(2, "active", 0)]);
    // Verification shows what is lost, and a rotation of the rest is not held up by it.
    let lost = w.verify(Some(1), true).remove(0);
    assert_eq!((lost.wraps, lost.good), (1, 0));
    assert!(lost.problem.is_some(), "1 data key is lost, and kek_verify has nothing to say");
    let other = w.project("TOKEN", "other");
    w.rotate();
    w.eventually_is(2, "retired");
    assert_eq!(w.get(other, "TOKEN").unwrap(), "other");
}

#[test]
fn a_kek_that_is_needed_again_is_not_destroyed() {
    let mut w = World::new(Cluster::shared());
    let project = w.project("TOKEN", "value");
    w.keep_tables();
    w.rotate();
    w.eventually_is(1, "retired");
    w.text("kek_destroy(1, '1', '1 hour')");
    w.put_back();
    let refused = expect_error(w.get(project, "TOKEN"), "PT503");
    refused.detail("KEK 1 is destroy_scheduled");
    let due = "UPDATE meshhook_secrets.kek_storage SET destroy_after = now() WHERE kek_id = 1";
    w.su.batch_execute(due).unwrap();
    w.query("kek_configure()"); // wakes the worker
    w.eventually_is(1, "disabled");
    assert_eq!(w.text("kek_enable(1)"), "retiring");
    w.eventually_is(1, "retired");
    assert_eq!(w.get(project, "TOKEN").unwrap(), "value");
}

#[test]
fn a_cancelled_destruction_does_not_happen() {
    let mut w = World::new(Cluster::shared());
    let spare = w.integer("kek_generate()");
    w.text(&format!("kek_destroy({spare}, '{spare}', '1 second')"));
    assert_eq!(w.text(&format!("kek_cancel_destroy({spare})")), "disabled");
    sleep(Duration::from_millis(2500));
    assert_eq!(w.status_of(spare), "disabled");
    // It came back as one that reads, not as one that wraps.
    assert_eq!(w.text(&format!("kek_enable({spare})")), "retired");
}

// --- schedule -------------------------------------------------------------------------------

#[test]
fn the_schedule_is_checked_and_shown() {
    let mut w = World::new(by_hand());
    w.project("TOKEN", "value");
    let next = |w: &mut World<'_>| -> Option<f64> {
        let query = "SELECT extract(epoch FROM next_rotation - created_at)::float8
            FROM meshhook_secrets.kek_status() WHERE status = 'active'";
        w.admin.query_one(query, &[]).unwrap().get(0)
    };
    assert_eq!(next(&mut w), None);
    let before = w.contents();
    for period in ["0", "-90 days", "59 minutes 59 seconds"] {
        let call = format!("kek_configure('{period}')");
        w.refused(&call, "22023").detail("hour").hint("90 days");
    }
    assert_eq!(w.contents(), before);
    for (period, seconds) in [("1 hour", 3600.0), ("90 days", 90.0 * 86_400.0)] {
        w.query(&format!("kek_configure('{period}')"));
        assert_eq!(next(&mut w), Some(seconds), "{period}");
    }
    w.query("kek_configure(NULL)");
    assert_eq!(next(&mut w), None);
}

#[test]
fn a_kek_that_is_old_enough_is_rotated_by_itself() {
    let mut w = World::new(Cluster::shared());
    let project = w.project("TOKEN", "value");
    w.su.batch_execute(
        "UPDATE meshhook_secrets.kek_storage SET created_at = now() - interval '3 hours'",
    )
    .unwrap();
    w.query("kek_configure('2 hours')");
    w.eventually_is(1, "retired");
    let job = "SELECT reason, started_by, kek_id FROM meshhook_secrets.rotation_jobs";
    let row = w.su.query_one(job, &[]).unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), ("schedule", "system", 2));
    let next = "SELECT extract(epoch FROM next_rotation - now())::float8
        FROM meshhook_secrets.kek_status() WHERE kek_id = 2";
    let seconds: f64 = w.admin.query_one(next, &[]).unwrap().get(0);
    assert!((7100.0..=7200.0).contains(&seconds), "{seconds}");
    assert_eq!(w.get(project, "TOKEN").unwrap(), "value");
}

#[test]
fn the_schedule_goes_on_by_itself_until_it_is_switched_off() {
    let mut w = World::new(Cluster::shared());
    w.project("TOKEN", "value");
    // Shorter than kek_configure allows.
    w.su.batch_execute(
        r#"INSERT INTO meshhook_secrets.settings VALUES ('kek', '{"auto_rotate_microseconds": 500000}')"#,
    )
    .unwrap();
    let spare = w.integer("kek_generate()");
    w.text(&format!("kek_destroy({spare}, '{spare}')")); // wakes the worker
    let jobs = "SELECT count(*) FROM meshhook_secrets.rotation_jobs
        WHERE reason = 'schedule' AND started_by = 'system'";
    let mut su = w.db.superuser();
    let mut count = move || su.query_one(jobs, &[]).unwrap().get::<_, i64>(0);
    eventually("it has rotated three times", || count() >= 3);
    w.query("kek_configure()");
    let finished = "SELECT count(*) = 0 FROM meshhook_secrets.rotation_jobs
        WHERE finished_at IS NULL";
    eventually("the last one is finished", || w.su.query_one(finished, &[]).unwrap().get(0));
    let then = count();
    sleep(Duration::from_millis(1200));
    assert_eq!(count(), then);
}

// --- root key -------------------------------------------------------------------------------

#[test]
fn the_root_key_is_rotated_without_interruption() {
    let cluster = Cluster::builder().start();
    let mut w = World::new(&cluster);
    let project = w.project("TOKEN", "value");
    w.rotate();
    w.eventually_is(1, "retired");
    w.integer("kek_generate()");
    let a = w.current_root_key().unwrap();
    assert_eq!(w.root_keys(), [(a.clone(), true, true, 3)]);
    assert_eq!(w.root_verify(), [(a.clone(), 3, 3, None)]);
    // Nothing to do is no error.
    assert!(w.admin.query("SELECT meshhook_secrets.root_key_rotate()", &[]).unwrap().is_empty());

    cluster.write_root_key(&format!("{KEY_B}\n{KEY_A}"));
    cluster.reload();
    eventually("the new key counts", || w.current_root_key().is_some_and(|now| now != a));
    let b = w.current_root_key().unwrap();
    assert_eq!(w.root_keys(), [(b.clone(), true, true, 0), (a.clone(), false, true, 3)]);
    assert_eq!(w.root_verify(), [(b.clone(), 0, 0, None), (a.clone(), 3, 3, None)]);
    assert_eq!(w.get(project, "TOKEN").unwrap(), "value");

    // Rolled back, it never was.
    let before = w.contents();
    w.admin.batch_execute("BEGIN").unwrap();
    w.admin.query("SELECT meshhook_secrets.root_key_rotate()", &[]).unwrap();
    w.admin.batch_execute("ROLLBACK").unwrap();
    assert_eq!(w.contents(), before);
    assert_eq!(w.get(project, "TOKEN").unwrap(), "value");

    // Removed too early.
    cluster.write_root_key(KEY_B);
    cluster.reload();
    eventually("the old key is gone", || w.get(project, "TOKEN").is_err());
    expect_error(w.get(project, "TOKEN"), "PT503").detail(&a).hint(&a);
    w.refused("root_key_rotate()", "PT503").detail(&a).hint(&a);
    assert_eq!(w.root_keys(), [(b.clone(), true, true, 0), (a.clone(), false, false, 3)]);
    assert_eq!(w.root_verify()[1], (a.clone(), 3, 0, Some(String::from("not loaded"))));
    let problem = w.verify(Some(2), false)[0].problem.clone().unwrap();
    assert!(problem.contains("not loaded"), "{problem}");
    cluster.write_root_key(&format!("{KEY_B}\n{KEY_A}"));
    cluster.reload();
    eventually("it is open again", || w.get(project, "TOKEN").is_ok());
    assert_eq!(w.contents(), before);

    // Done, and the old line removed.
    let (notices, mut client) = listening(&w.db, &w.admin_name);
    let rotate = "SELECT * FROM meshhook_secrets.root_key_rotate() ORDER BY kek_id";
    let rows = client.query(rotate, &[]).unwrap();
    let moved: Vec<(i32, String, String)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(moved, [1, 2, 3].map(|id| (id, a.clone(), b.clone())));
    let notice = said(&notices);
    assert!(notice.contains(&b) && notice.contains("removed"), "{notice}");
    assert_eq!(w.root_keys(), [(b.clone(), true, true, 3), (a.clone(), false, true, 0)]);
    assert_eq!(w.get(project, "TOKEN").unwrap(), "value");
    cluster.write_root_key(KEY_B);
    cluster.reload();
    eventually("the old line is gone", || w.root_keys().len() == 1);
    assert_eq!(w.root_verify(), [(b.clone(), 3, 3, None)]);
    assert_eq!(w.get(project, "TOKEN").unwrap(), "value");
    cluster.restart();
    w.reconnect();
    assert_eq!(w.get(project, "TOKEN").unwrap(), "value");
    assert_eq!(w.verify(Some(2), true), [good(2, "active", 1)]);
    w.rotate();
    w.eventually_is(2, "retired");
}

#[test]
fn a_tampered_kek_stops_the_rotation_of_the_root_key_as_a_whole() {
    let cluster = Cluster::builder().root_key(RootKey::File(KEY_A.into())).start();
    let mut w = World::new(&cluster);
    w.project("TOKEN", "value");
    w.integer("kek_generate()");
    w.integer("kek_generate()");
    w.flip_kek(2);
    let a = w.current_root_key().unwrap();
    cluster.write_root_key(&format!("{KEY_B}\n{KEY_A}"));
    cluster.reload();
    eventually("the new key counts", || w.current_root_key().is_some_and(|now| now != a));
    let before = w.contents();
    w.refused("root_key_rotate()", "XX001").hint("backup");
    assert_eq!(w.contents(), before);
    let (_, keks, fine, problem) = w.root_verify().remove(1);
    assert_eq!((keks, fine), (3, 2));
    assert!(problem.unwrap().contains("KEK 2"));
}

// --- dumps ----------------------------------------------------------------------------------

#[test]
fn a_dump_in_the_middle_of_a_rotation_finishes_it_where_it_is_restored() {
    let mut w = World::new(by_hand());
    let projects: Vec<_> = (0..3).map(|n| w.project("TOKEN", &n.to_string())).collect();
    w.rotate();
    w.rewrap(1);
    let dump = dump(&w.db);
    let target = Cluster::shared().empty_database();
    restore(&target, &dump);
    let mut restored = World::of(target, w.alice);
    // Nobody calls anything that changes something there.
    restored.eventually_is(1, "retired");
    eventually("the job is finished", || restored.job(1).0);
    assert_eq!(restored.statuses(), [kek(1, "retired", 0), kek(2, "active", 3)]);
    for (n, project) in projects.into_iter().enumerate() {
        assert_eq!(restored.get(project, "TOKEN").unwrap(), n.to_string());
    }
}

#[test]
fn a_dump_in_the_middle_of_a_rotation_can_be_finished_by_hand() {
    let mut w = World::new(by_hand());
    let project = w.project("TOKEN", "value");
    w.rotate();
    let dump = dump(&w.db);
    let target = by_hand().empty_database();
    restore(&target, &dump);
    let mut restored = World::of(target, w.alice);
    assert_eq!(restored.rotate(), Job { job_id: 1, kek_id: 2, total: 1, remaining: 1 });
    assert_eq!(restored.rewrap(1000), (1, 0, 0));
    assert_eq!(restored.statuses(), [kek(1, "retired", 0), kek(2, "active", 1)]);
    assert_eq!(restored.get(project, "TOKEN").unwrap(), "value");
}

#[test]
fn a_dump_from_before_a_root_key_rotation_names_the_key_it_needs() {
    let mut w = World::new(by_hand());
    let project = w.project("TOKEN", "value");
    let a = w.current_root_key().unwrap();
    let dump = dump(&w.db);
    let cluster = Cluster::builder().root_key(RootKey::File(KEY_B.into())).start();
    let target = cluster.empty_database();
    restore(&target, &dump);
    let mut restored = World::of(target, w.alice);
    let before = restored.contents();
    let refused = expect_error(restored.get(project, "TOKEN"), "PT503");
    refused.detail(&a).hint(&a).hides("value");
    for call in ["kek_rotate()", "kek_disable(1)", "root_key_rotate()"] {
        restored.refused(call, "PT503").detail(&a).hint(&a);
    }
    assert_eq!(restored.contents(), before);
    cluster.write_root_key(&format!("{KEY_B}\n{KEY_A}"));
    cluster.reload();
    eventually("the old key helps", || restored.get(project, "TOKEN").is_ok());
    restored.admin.query("SELECT meshhook_secrets.root_key_rotate()", &[]).unwrap();
    assert_eq!(restored.get(project, "TOKEN").unwrap(), "value");
}

#[test]
fn a_dump_from_before_a_destruction_is_whole_where_nothing_was_destroyed() {
    let mut w = World::new(Cluster::shared());
    let project = w.project("TOKEN", "value");
    let dump = dump(&w.db);
    w.rotate();
    w.eventually_is(1, "retired");
    w.text("kek_destroy(1, '1', '0')");
    w.eventually_is(1, "destroyed");
    // A full dump brings its own KEK: the destruction protects the bytes of this server.
    let target = Cluster::shared().empty_database();
    restore(&target, &dump);
    let mut restored = World::of(target, w.alice);
    assert_eq!(restored.get(project, "TOKEN").unwrap(), "value");
    assert_eq!(restored.statuses(), [kek(1, "active", 1)]);
}

// --- helpers ----------------------------------------------------------------------------------

const TABLES: [&str; 6] =
    ["kek_storage", "data_keys", "project_secrets", "secret_versions", "rotation_jobs", "settings"];

/// A server with room for our launcher and root key worker, but for no worker beside them.
fn by_hand() -> &'static Cluster {
    static SERVER: LazyLock<Cluster> = LazyLock::new(|| {
        Cluster::builder()
            .setting("max_logical_replication_workers", "0")
            .setting("max_worker_processes", "2")
            .setting("meshhook_secrets.audit", "off")
            .start()
    });
    &SERVER
}

/// A database with a user of the application, an administrator of keys and a superuser.
struct World<'c> {
    db: Database<'c>,
    alice: Uuid,
    admin_name: String,
    admin: Client,
    su: Client,
}

impl World<'_> {
    fn new(cluster: &Cluster) -> World<'_> {
        World::of(cluster.database(), Uuid::new_v4())
    }

    fn of(db: Database<'_>, alice: Uuid) -> World<'_> {
        let admin_name = role_in(&db, "meshhook_secrets_kek_admin");
        let (admin, su) = (db.connect(&admin_name), db.superuser());
        World { db, alice, admin_name, admin, su }
    }

    fn reconnect(&mut self) {
        self.admin = self.db.connect(&self.admin_name);
        self.su = self.db.superuser();
    }

    // --- secrets ---

    /// A new project with one secret.
    fn project(&mut self, name: &str, value: &str) -> Uuid {
        let project = self.db.project(self.alice);
        put(&mut self.db.user(self.alice), project, name, value);
        project
    }

    /// A secret's value, read in a new session.
    fn get(&self, project: Uuid, name: &str) -> Result<String, postgres::Error> {
        get(&mut self.db.user(self.alice), project, name, None)
    }

    // --- what the administrator calls ---

    fn query(&mut self, call: &str) {
        self.admin.query(&format!("SELECT meshhook_secrets.{call}"), &[]).expect(call);
    }

    fn try_text(&mut self, call: &str) -> Result<String, postgres::Error> {
        let call = format!("SELECT meshhook_secrets.{call}::text");
        self.admin.query_one(&call, &[]).map(|row| row.get(0))
    }

    #[track_caller]
    fn text(&mut self, call: &str) -> String {
        self.try_text(call).unwrap_or_else(|error| panic!("{call}: {error:?}"))
    }

    #[track_caller]
    fn integer(&mut self, call: &str) -> i32 {
        self.text(call).parse().unwrap()
    }

    #[track_caller]
    fn refused(&mut self, call: &str, sqlstate: &str) -> Failure {
        let answer = self.admin.query(&format!("SELECT meshhook_secrets.{call}"), &[]);
        if let Ok(rows) = &answer {
            panic!("{call} is not refused: {rows:?}");
        }
        expect_error(answer, sqlstate)
    }

    fn rotate(&mut self) -> Job {
        let row = self.admin.query_one("SELECT * FROM meshhook_secrets.kek_rotate()", &[]).unwrap();
        Job {
            job_id: row.get("job_id"),
            kek_id: row.get("kek_id"),
            total: row.get("total"),
            remaining: row.get("remaining"),
        }
    }

    /// Rewrapped, failed and remaining.
    fn rewrap(&mut self, batch_size: i32) -> (i64, i64, i64) {
        let call = "SELECT rewrapped, failed, remaining FROM meshhook_secrets.kek_rewrap($1)";
        let row = self.admin.query_one(call, &[&batch_size]).unwrap();
        (row.get(0), row.get(1), row.get(2))
    }

    /// All KEKs, oldest first.
    fn statuses(&mut self) -> Vec<Kek> {
        let call = "SELECT kek_id, status, wraps FROM meshhook_secrets.kek_status() ORDER BY 1";
        let rows = self.admin.query(call, &[]).unwrap();
        rows.iter().map(|row| kek(row.get(0), row.get(1), row.get(2))).collect()
    }

    fn status_of(&mut self, id: i32) -> String {
        let found = self.statuses().into_iter().find(|kek| kek.id == id);
        found.expect("there is such a KEK").status
    }

    fn wraps(&mut self, id: i32) -> i64 {
        self.statuses().into_iter().find(|kek| kek.id == id).map_or(0, |kek| kek.wraps)
    }

    #[track_caller]
    fn eventually_is(&mut self, id: i32, status: &str) {
        eventually(&format!("KEK {id} is {status}"), || self.status_of(id) == status);
    }

    fn progress(&mut self) -> Progress {
        let call = "SELECT * FROM meshhook_secrets.kek_status() WHERE status = 'active'";
        let row = self.admin.query_one(call, &[]).unwrap();
        Progress {
            remaining: row.get("remaining"),
            done: row.get("done"),
            per_second: row.get("per_second"),
            estimated_end: row.get("estimated_end"),
            last_error: row.get("last_error"),
        }
    }

    /// Oldest KEK first.
    fn verify(&mut self, kek_id: Option<i32>, deep: bool) -> Vec<Verified> {
        let call = "SELECT * FROM meshhook_secrets.kek_verify($1, $2) ORDER BY kek_id";
        let rows = self.admin.query(call, &[&kek_id, &deep]).unwrap();
        rows.iter()
            .map(|row| Verified {
                kek_id: row.get("kek_id"),
                status: row.get("status"),
                wraps: row.get("wraps"),
                good: row.get("good"),
                bad: row.get("bad"),
                problem: row.get("problem"),
            })
            .collect()
    }

    /// Fingerprint, current, loaded, KEKs.
    fn root_keys(&mut self) -> Vec<(String, bool, bool, i64)> {
        let call = "SELECT * FROM meshhook_secrets.root_key_status()";
        let rows = self.admin.query(call, &[]).unwrap();
        rows.iter()
            .map(|row| {
                (
                    row.get("root_key_id"),
                    row.get("is_current"),
                    row.get("is_loaded"),
                    row.get("keks"),
                )
            })
            .collect()
    }

    fn current_root_key(&mut self) -> Option<String> {
        self.root_keys().into_iter().find(|key| key.1).map(|key| key.0)
    }

    /// Fingerprint, KEKs, good ones, problem.
    fn root_verify(&mut self) -> Vec<(String, i64, i64, Option<String>)> {
        let call = "SELECT * FROM meshhook_secrets.root_key_verify()";
        let rows = self.admin.query(call, &[]).unwrap();
        rows.iter()
            .map(|row| {
                (row.get("root_key_id"), row.get("keks"), row.get("good"), row.get("problem"))
            })
            .collect()
    }

    fn listen(&self) -> Client {
        let mut ears = self.db.connect(&self.admin_name);
        ears.batch_execute("LISTEN meshhook_secrets").unwrap();
        ears
    }

    // --- what lies in the tables ---

    /// All rows, with the transactions that wrote them: any write shows.
    fn contents(&mut self) -> String {
        let tables = TABLES.map(|table| {
            let query = format!(
                "SELECT string_agg(concat(ctid, xmin, t.*), E'\\n' ORDER BY ctid)
                 FROM meshhook_secrets.{table} t"
            );
            let rows: Option<String> = self.su.query_one(&query, &[]).unwrap().get(0);
            format!("{table}: {}\n", rows.unwrap_or_default())
        });
        tables.concat()
    }

    /// Whether a rotation is finished, and its last error.
    fn job(&mut self, job_id: i32) -> (bool, Option<String>) {
        let query = "SELECT finished_at IS NOT NULL, last_error
            FROM meshhook_secrets.rotation_jobs WHERE job_id = $1";
        let row = self.su.query_one(query, &[&job_id]).unwrap();
        (row.get(0), row.get(1))
    }

    /// Turns the bits of one byte over in what is stored of a project; done twice, it is as before.
    fn flip(&mut self, table: &str, column: &str, project: Uuid) {
        let update = format!(
            "UPDATE meshhook_secrets.{table}
             SET {column} = set_byte({column}, 30, 255 - get_byte({column}, 30))
             WHERE project_id = $1"
        );
        assert!(self.su.execute(&update, &[&project]).unwrap() > 0);
    }

    fn flip_kek(&mut self, id: i32) {
        let update = "UPDATE meshhook_secrets.kek_storage
            SET kek_encrypted = set_byte(kek_encrypted, 30, 255 - get_byte(kek_encrypted, 30))
            WHERE kek_id = $1";
        assert_eq!(self.su.execute(update, &[&id]).unwrap(), 1);
    }

    /// Everything sealed of a project.
    fn ciphertexts(&mut self, project: Uuid) -> BTreeSet<Vec<u8>> {
        let query = "SELECT value FROM meshhook_secrets.secret_versions WHERE project_id = $1
            UNION ALL SELECT mac FROM meshhook_secrets.project_secrets WHERE project_id = $1
            UNION ALL SELECT dek_encrypted FROM meshhook_secrets.data_keys WHERE project_id = $1";
        self.su.query(query, &[&project]).unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// What is stored beside the values of a project, a line for each version.
    fn described(&mut self, project: Uuid) -> Vec<String> {
        let query = "SELECT concat_ws(' ', s.name, s.id, s.current_version, s.oldest_version,
                s.created_at, s.updated_at, s.created_by, s.expires_at, s.deleted_at,
                s.purge_after, v.version, v.created_at, v.created_by, v.expires_at)
            FROM meshhook_secrets.project_secrets s
            JOIN meshhook_secrets.secret_versions v ON v.secret_id = s.id
            WHERE s.project_id = $1 ORDER BY 1";
        self.su.query(query, &[&project]).unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// A backup of what belongs to projects.
    fn keep_tables(&mut self) {
        for table in ["data_keys", "project_secrets", "secret_versions"] {
            let keep = format!("CREATE TABLE kept_{table} AS TABLE meshhook_secrets.{table}");
            self.su.batch_execute(&keep).unwrap();
        }
    }

    fn put_back(&mut self) {
        let clear = "DELETE FROM meshhook_secrets.secret_versions;
            DELETE FROM meshhook_secrets.project_secrets;
            DELETE FROM meshhook_secrets.data_keys";
        self.su.batch_execute(clear).unwrap();
        for table in ["data_keys", "project_secrets", "secret_versions"] {
            let back = format!("INSERT INTO meshhook_secrets.{table} TABLE kept_{table}");
            self.su.batch_execute(&back).unwrap();
        }
    }
}

/// A KEK as `kek_status` shows it.
#[derive(Debug, PartialEq)]
struct Kek {
    id: i32,
    status: String,
    wraps: i64,
}

fn kek(id: i32, status: &str, wraps: i64) -> Kek {
    Kek { id, status: status.to_owned(), wraps }
}

/// What `kek_rotate` returns.
#[derive(Debug, PartialEq)]
struct Job {
    job_id: i32,
    kek_id: i32,
    total: i64,
    remaining: i64,
}

/// What `kek_status` says of the last rotation.
struct Progress {
    remaining: Option<i64>,
    done: Option<i64>,
    per_second: Option<f64>,
    estimated_end: Option<SystemTime>,
    last_error: Option<String>,
}

/// A row of `kek_verify`.
#[derive(Clone, Debug, PartialEq)]
struct Verified {
    kek_id: i32,
    status: String,
    wraps: i64,
    good: i64,
    bad: i64,
    problem: Option<String>,
}

/// All of it is good.
fn good(kek_id: i32, status: &str, wraps: i64) -> Verified {
    Verified { kek_id, status: status.to_owned(), wraps, good: wraps, bad: 0, problem: None }
}

/// A role that is a member of this one alone, and may log in.
fn role_in(db: &Database<'_>, group: &str) -> String {
    let name = format!("{}_{}", &group[17..], Uuid::new_v4().simple());
    db.superuser().batch_execute(&format!("CREATE ROLE {name} LOGIN IN ROLE {group}")).unwrap();
    name
}

fn try_put(
    client: &mut Client,
    project: Uuid,
    name: &str,
    value: &str,
) -> Result<i32, postgres::Error> {
    let call = "SELECT version FROM meshhook_secrets.secret_put($1, $2, $3)";
    client.query_one(call, &[&project, &name, &value]).map(|row| row.get(0))
}

#[track_caller]
fn put(client: &mut Client, project: Uuid, name: &str, value: &str) {
    try_put(client, project, name, value).unwrap();
}

fn get(
    client: &mut Client,
    project: Uuid,
    name: &str,
    version: Option<i32>,
) -> Result<String, postgres::Error> {
    let call = "SELECT meshhook_secrets.secret_get($1, $2, $3)";
    client.query_one(call, &[&project, &name, &version]).map(|row| row.get(0))
}

/// The message and the hint of each NOTICE that a connection gets.
type Notices = Arc<Mutex<Vec<[String; 2]>>>;

/// A connection of this role whose notices are kept.
fn listening(db: &Database<'_>, role: &str) -> (Notices, Client) {
    let notices = Notices::default();
    let kept = notices.clone();
    let client = Config::new()
        .host_path(db.cluster().dir())
        .dbname(db.name())
        .user(role)
        .options("-c statement_timeout=60s")
        .notice_callback(move |notice| {
            let hint = notice.hint().unwrap_or_default();
            kept.lock().unwrap().push([notice.message().to_owned(), hint.to_owned()]);
        })
        .connect(NoTls)
        .unwrap();
    (notices, client)
}

fn texts(notices: &Notices) -> Vec<String> {
    notices.lock().unwrap().iter().map(|[message, _]| message.clone()).collect()
}

fn said(notices: &Notices) -> String {
    notices.lock().unwrap().concat().join(" ")
}

/// The events up to the first of this name, which comes within seconds.
#[track_caller]
fn hear(ears: &mut Client, last: &str) -> Vec<Value> {
    let mut events = Vec::new();
    let mut incoming = ears.notifications();
    let mut incoming = incoming.timeout_iter(Duration::from_secs(10));
    while let Some(heard) = incoming.next().unwrap() {
        assert_eq!(heard.channel(), "meshhook_secrets");
        events.push(serde_json::from_str::<Value>(heard.payload()).unwrap());
        if events.last().is_some_and(|event| event["event"] == last) {
            return events;
        }
    }
    panic!("no {last}, but {events:?}");
}

/// The events until there is silence.
fn hear_until(ears: &mut Client, silence: Duration) -> Vec<String> {
    let mut incoming = ears.notifications();
    let heard = incoming.timeout_iter(silence).map(|heard| Ok(heard.payload().to_owned()));
    heard.collect().unwrap()
}

/// Dumps a database to a file.
fn dump(db: &Database<'_>) -> PathBuf {
    let file = db.cluster().dir().join(format!("{}.dump", Uuid::new_v4()));
    run(db.cluster().command("pg_dump").arg("--file").arg(&file).arg(db.name()));
    file
}

fn restore(target: &Database<'_>, dump: &Path) {
    let mut psql = target.cluster().command("psql");
    let psql: &mut Command = psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]);
    run(psql.args(["--dbname", target.name(), "--file"]).arg(dump));
}
