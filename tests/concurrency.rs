//! Many at once: writers of one name lose nothing, `cas` has one winner, the first keys
//! are made once, readers see whole versions, deletions and purges leave nothing behind,
//! and what cannot be serialized says so (40001) and nothing else. Extension and database
//! can go while sessions have used their keys.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use postgres::types::ToSql;
use postgres::{Client, IsolationLevel, Row, Transaction};
use support::{Cluster, Database, eventually, expect_error};
use uuid::Uuid;

// --- writers of one name -----------------------------------------------------------------

#[test]
fn two_writers_of_a_new_name_lose_no_version() {
    for _ in 0..3 {
        writers_lose_no_version(2, 30);
    }
}

#[test]
fn eight_writers_of_a_new_name_lose_no_version() {
    for _ in 0..2 {
        writers_lose_no_version(8, 25);
    }
}

fn writers_lose_no_version(writers: usize, puts: usize) {
    let p = Project::new();
    let written = together(writers, |writer, start| {
        let mut client = p.db.user(p.owner);
        start.wait();
        let put = |turn| {
            let value = format!("{writer}/{turn}");
            (put(&mut client, p.id, "KEY", &value).unwrap(), value)
        };
        (0..puts).map(put).collect::<Vec<_>>()
    });
    for of_one in &written {
        assert!(of_one.is_sorted(), "{of_one:?}");
    }
    let mut written = written.concat();
    written.sort();
    let versions: Vec<i32> = written.iter().map(|(version, _)| *version).collect();
    assert_eq!(versions, (1..=(writers * puts) as i32).collect::<Vec<_>>());

    let mut client = p.db.user(p.owner);
    assert_eq!(get(&mut client, p.id, "KEY").unwrap(), written.last().unwrap().1);
    for (version, value) in written.iter().rev().take(10) {
        let sql = "SELECT meshhook_secrets.secret_get($1, 'KEY', $2)";
        let stored: String = client.query_one(sql, &[&p.id, version]).unwrap().get(0);
        assert_eq!(stored, *value, "version {version}");
    }
    assert_eq!(p.count("project_secrets"), 1);
    assert_eq!(p.count("secret_versions"), 10);
}

#[test]
fn cas_has_exactly_one_winner_each_round() {
    let p = Project::new();
    let rounds = 25;
    // The first round makes the secret.
    let answers = together(8, |writer, start| {
        let mut client = p.db.user(p.owner);
        let turn = |cas: i32| {
            start.wait();
            let sql = "SELECT version FROM meshhook_secrets.secret_put($1, 'KEY', $2, cas => $3)";
            let answer = client.query_one(sql, &[&p.id, &format!("{writer}"), &cas]);
            start.wait();
            match answer {
                Ok(row) => {
                    assert_eq!(row.get::<_, i32>(0), cas + 1);
                    true
                }
                Err(error) => {
                    expect_error(Err::<(), _>(error), "PT409").message("changed");
                    false
                }
            }
        };
        (0..rounds).map(turn).collect::<Vec<bool>>()
    });
    for round in 0..rounds as usize {
        let winners = answers.iter().filter(|of_one| of_one[round]).count();
        assert_eq!(winners, 1, "round {round}");
    }
    let winner = answers.iter().position(|of_one| of_one[rounds as usize - 1]).unwrap();
    assert_eq!(get(&mut p.db.user(p.owner), p.id, "KEY").unwrap(), winner.to_string());
}

// --- the first keys --------------------------------------------------------------------------

#[test]
fn the_first_kek_is_made_once() {
    for _ in 0..3 {
        let p = Project::new();
        let projects: Vec<Uuid> = (0..8).map(|_| p.db.project(p.owner)).collect();
        together(8, |writer, start| {
            let mut client = p.db.user(p.owner);
            start.wait();
            put(&mut client, projects[writer], "KEY", &format!("of {writer}")).unwrap();
            assert_eq!(get(&mut client, projects[writer], "KEY").unwrap(), format!("of {writer}"));
        });
        assert_eq!(p.count("kek_storage WHERE status = 'active'"), 1);
        assert_eq!(p.count("kek_storage"), 1);
        assert_eq!(p.count("data_keys"), 8);
        let mut other = p.db.service();
        for (writer, project) in projects.iter().enumerate() {
            assert_eq!(get(&mut other, *project, "KEY").unwrap(), format!("of {writer}"));
        }
    }
}

#[test]
fn the_first_data_key_of_a_project_is_made_once() {
    let p = Project::new();
    for _ in 0..6 {
        let project = p.db.project(p.owner);
        together(8, |writer, start| {
            let mut client = p.db.user(p.owner);
            start.wait();
            put(&mut client, project, &format!("K{writer}"), &format!("of {writer}")).unwrap();
        });
        assert_eq!(p.count(&format!("data_keys WHERE project_id = '{project}'")), 1);
        let mut reader = p.db.user(p.owner);
        for writer in 0..8 {
            let value = get(&mut reader, project, &format!("K{writer}")).unwrap();
            assert_eq!(value, format!("of {writer}"));
        }
    }
}

#[test]
fn first_keys_that_are_rolled_back_leave_nothing_wrong_behind() {
    let p = Project::new();
    let other = p.db.project(p.owner);
    let mut first = p.db.user(p.owner);
    let mut transaction = first.transaction().unwrap();
    put_in(&mut transaction, p.id, "KEY", "lost").unwrap();
    let read: String = transaction
        .query_one("SELECT meshhook_secrets.secret_get($1, 'KEY')", &[&p.id])
        .unwrap()
        .get(0);
    assert_eq!(read, "lost");

    // Others that need the same keys meanwhile wait for its end, and make their own.
    let mut waiting = [(p.db.user(p.owner), other), (p.db.user(p.owner), p.id)];
    scope(|threads| {
        let writers: Vec<_> = waiting
            .iter_mut()
            .map(|(client, project)| threads.spawn(|| put(client, *project, "MEANWHILE", "kept")))
            .collect();
        p.wait_for_waiters(2);
        transaction.rollback().unwrap();
        for writer in writers {
            assert_eq!(writer.join().unwrap().unwrap(), 1);
        }
    });
    assert_eq!(p.count("kek_storage"), 1);
    assert_eq!(p.count("data_keys"), 2);
    // All sessions agree: those that made keys, the one whose keys were lost, and a new one.
    put(&mut first, p.id, "KEY", "stays").unwrap();
    let [(second, _), (third, _)] = &mut waiting;
    for client in [&mut first, second, third, &mut p.db.service()] {
        assert_eq!(get(client, p.id, "KEY").unwrap(), "stays");
        assert_eq!(get(client, p.id, "MEANWHILE").unwrap(), "kept");
        assert_eq!(get(client, other, "MEANWHILE").unwrap(), "kept");
    }
}

#[test]
fn first_keys_that_a_savepoint_undoes_are_made_again() {
    let p = Project::new();
    let mut client = p.db.user(p.owner);
    let mut transaction = client.transaction().unwrap();
    let mut nested = transaction.savepoint("s").unwrap();
    put_in(&mut nested, p.id, "KEY", "lost").unwrap();
    nested.rollback().unwrap();
    assert_eq!(put_in(&mut transaction, p.id, "KEY", "kept").unwrap(), 1);
    transaction.commit().unwrap();
    assert_eq!(get(&mut client, p.id, "KEY").unwrap(), "kept");
    assert_eq!(get(&mut p.db.service(), p.id, "KEY").unwrap(), "kept");
}

// --- projects that go --------------------------------------------------------------------------

#[test]
fn no_secret_of_a_deleted_project_stays() {
    let p = Project::new();
    for round in 0..8 {
        let project = p.db.project(p.owner);
        // Every other project has a secret, so that its keys are there already.
        if round % 2 == 0 {
            put(&mut p.db.service(), project, "K0", "v").unwrap();
        }
        together(4, |worker, start| {
            let mut client = if worker < 2 { p.db.service() } else { p.db.user(p.owner) };
            start.wait();
            if worker == 0 {
                sleep(Duration::from_millis(3 * round));
                p.db.delete_project(project);
                return;
            }
            // Until it is gone.
            for turn in 0.. {
                assert!(turn < 100_000, "the project is never gone");
                let name = format!("K{}", turn % 7);
                let Err(error) = put(&mut client, project, &name, "v") else { continue };
                // 42501 to a member whose project was gone before the call, 23503 to whom it went
                // during the call, and to the server side.
                let state = state(Err::<(), _>(error));
                assert!(state == "23503" || state == "42501" && worker > 1, "{worker}: {state}");
                break;
            }
        });
        for table in ["project_secrets", "secret_versions", "data_keys"] {
            assert_eq!(p.count(&format!("{table} WHERE project_id = '{project}'")), 0, "{table}");
        }
    }
}

#[test]
fn a_deletion_with_an_old_snapshot_leaves_nothing_either() {
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        for had_a_secret in [true, false] {
            let p = Project::new();
            let mut writer = p.db.user(p.owner);
            if had_a_secret {
                put(&mut writer, p.id, "OLD", "v").unwrap();
            }
            let mut deleter = p.db.superuser();
            let mut transaction =
                deleter.build_transaction().isolation_level(level).start().unwrap();
            transaction.query("SELECT FROM public.projects", &[]).unwrap();
            put(&mut writer, p.id, "NEW", "v").unwrap();

            let delete = "DELETE FROM public.projects WHERE id = $1";
            let deleted = transaction.execute(delete, &[&p.id]);
            let gone = match deleted {
                Ok(_) => transaction.commit(),
                Err(error) => Err(error),
            };
            let left: i64 = ["project_secrets", "secret_versions", "data_keys"]
                .iter()
                .map(|table| p.count(table))
                .sum();
            match gone {
                // All of it is gone with the project, or all of it is there.
                Ok(()) => assert_eq!(left, 0, "{level:?}, had a secret: {had_a_secret}"),
                Err(error) => {
                    expect_error(Err::<(), _>(error), "40001");
                    assert_eq!(get(&mut writer, p.id, "NEW").unwrap(), "v");
                }
            }
        }
    }
}

#[test]
fn a_put_with_an_old_snapshot_finds_the_project_gone() {
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        let p = Project::new();
        put(&mut p.db.service(), p.id, "OLD", "v").unwrap();
        for name in ["OLD", "NEW"] {
            let project = p.db.project(p.owner);
            put(&mut p.db.service(), project, "OLD", "v").unwrap();
            let mut writer = p.db.user(p.owner);
            let mut transaction = at(&mut writer, level);
            p.db.delete_project(project);
            expect_error(put_in(&mut transaction, project, name, "v"), "40001");
            drop(transaction);
            let left = p.count(&format!("project_secrets WHERE project_id = '{project}'"));
            assert_eq!(left, 0);
        }
    }
}

// --- readers and removers ------------------------------------------------------------------------

#[test]
fn readers_see_whole_versions_while_others_write() {
    let p = Project::new();
    let mut client = p.db.user(p.owner);
    for name in ["A", "B"] {
        put(&mut client, p.id, name, "value 1").unwrap();
    }
    let done = AtomicBool::new(false);
    let seen = together(4, |worker, start| {
        let mut client = p.db.user(p.owner);
        start.wait();
        if worker == 0 {
            // Both in one transaction: A and B always have the same version.
            for version in 2..=150 {
                let value = format!("value {version}");
                let mut transaction = client.transaction().unwrap();
                assert_eq!(put_in(&mut transaction, p.id, "A", &value).unwrap(), version);
                assert_eq!(put_in(&mut transaction, p.id, "B", &value).unwrap(), version);
                transaction.commit().unwrap();
            }
            done.store(true, Ordering::Release);
            return 0;
        }
        let (mut reads, mut last) = (0, 0);
        while !done.load(Ordering::Acquire) {
            let sql = "SELECT * FROM meshhook_secrets.secret_get_many($1)";
            let rows = client.query(sql, &[&p.id]).unwrap();
            let versions: Vec<i32> = rows.iter().map(|row| row.get("version")).collect();
            assert_eq!(versions, [versions[0]; 2]);
            assert!(versions[0] >= last);
            last = versions[0];
            for row in rows {
                assert_eq!(row.get::<_, String>("value"), format!("value {last}"));
            }
            let alone = get(&mut client, p.id, "A").unwrap();
            assert!(number(&alone) >= last);
            reads += 1;
        }
        reads
    });
    assert!(seen[1..].iter().all(|reads| *reads > 0));
    assert_eq!(get(&mut client, p.id, "B").unwrap(), "value 150");
}

#[test]
fn puts_deletions_and_purges_of_one_name_end_cleanly() {
    let p = Project::new();
    put(&mut p.db.service(), p.id, "KEY", "first").unwrap();
    let answers = together(6, |worker, start| {
        let mut client = p.db.user(p.owner);
        let call = [
            "secret_put($1, 'KEY', 'v')",
            "secret_put($1, 'KEY', 'v', previous_valid_for => '1 hour')",
            "secret_delete($1, 'KEY')",
            "secret_undelete($1, 'KEY')",
            "secret_purge($1, 'KEY', 'KEY')",
            "secret_get($1, 'KEY')",
        ][worker];
        let sql = format!("SELECT * FROM meshhook_secrets.{call}");
        start.wait();
        let mut states = BTreeSet::new();
        for _ in 0..80 {
            states.insert(state(client.query(&sql, &[&p.id])));
        }
        states
    });
    let allowed: [&[&str]; 6] = [
        &["ok", "PT409", "PT410"],
        &["ok", "PT409", "PT410"],
        &["ok", "PT404", "PT410"],
        &["ok", "PT404", "PT409"],
        &["ok", "PT404"],
        &["ok", "PT404", "PT410"],
    ];
    for (worker, states) in answers.iter().enumerate() {
        let odd: Vec<_> =
            states.iter().filter(|state| !allowed[worker].contains(&state.as_str())).collect();
        assert!(odd.is_empty(), "worker {worker}: {states:?}");
    }
    // What is left is whole.
    let orphans =
        "secret_versions v WHERE NOT EXISTS (SELECT FROM meshhook_secrets.project_secrets s
        WHERE s.project_id = v.project_id AND s.id = v.secret_id
        AND v.version BETWEEN s.oldest_version AND s.current_version)";
    assert_eq!(p.count(orphans), 0);
    let mut client = p.db.user(p.owner);
    let _ = client.query("SELECT meshhook_secrets.secret_undelete($1, 'KEY')", &[&p.id]);
    let version = put(&mut client, p.id, "KEY", "last").unwrap();
    assert_eq!(get(&mut client, p.id, "KEY").unwrap(), "last");
    assert_eq!(p.count("secret_versions"), i64::from(version.min(10)));
}

#[test]
fn a_put_that_waited_for_a_purge_makes_the_name_anew() {
    let p = Project::new();
    for (call, state) in [
        ("secret_purge($1, 'KEY', 'KEY')", None),
        ("secret_delete($1, 'KEY')", Some("PT410")),
        ("secret_put($1, 'KEY', 'theirs')", None),
    ] {
        let _ =
            p.db.service()
                .query("SELECT meshhook_secrets.secret_purge($1, 'KEY', 'KEY')", &[&p.id]);
        put(&mut p.db.service(), p.id, "KEY", "old").unwrap();
        let (mut one, mut other) = (p.db.user(p.owner), p.db.user(p.owner));
        let mut transaction = one.transaction().unwrap();
        transaction.query(&format!("SELECT meshhook_secrets.{call}"), &[&p.id]).unwrap();
        scope(|threads| {
            let waits = threads.spawn(|| put(&mut other, p.id, "KEY", "ours"));
            p.wait_for_waiters(1);
            transaction.commit().unwrap();
            let answer = waits.join().unwrap();
            match state {
                Some(state) => {
                    expect_error(answer, state);
                }
                None => {
                    let version = if call.contains("purge") { 1 } else { 3 };
                    assert_eq!(answer.unwrap(), version, "{call}");
                    assert_eq!(get(&mut p.db.service(), p.id, "KEY").unwrap(), "ours");
                }
            }
        });
    }
}

// --- transactions that cannot be serialized --------------------------------------------------------

#[test]
fn conflicts_of_fixed_snapshots_are_serialization_failures() {
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        let p = Project::new();
        let mut other = p.db.service();
        for (call, change) in [
            ("secret_put($1, 'KEY', 'ours')", "secret_put($1, 'KEY', 'theirs')"),
            ("secret_put($1, 'KEY', 'ours', cas => 1)", "secret_put($1, 'KEY', 'theirs')"),
            ("secret_put($1, 'NEW', 'ours')", "secret_put($1, 'NEW', 'theirs')"),
            ("secret_generate($1, 'KEY')", "secret_delete($1, 'KEY')"),
            ("secret_rollback($1, 'KEY', 1)", "secret_put($1, 'KEY', 'theirs')"),
            ("secret_delete($1, 'KEY')", "secret_expire($1, 'KEY', now())"),
            ("secret_undelete($1, 'DELETED')", "secret_undelete($1, 'DELETED')"),
            ("secret_expire($1, 'KEY', now())", "secret_purge($1, 'KEY', 'KEY')"),
            ("secret_purge($1, 'KEY', 'KEY')", "secret_put($1, 'KEY', 'theirs')"),
            ("secret_put($1, 'KEY', 'ours')", "secret_purge($1, 'KEY', 'KEY')"),
        ] {
            for name in ["KEY", "NEW", "DELETED"] {
                let purge = "SELECT meshhook_secrets.secret_purge($1, $2, $2)";
                let _ = other.query(purge, &[&p.id, &name]);
            }
            put(&mut other, p.id, "KEY", "v").unwrap();
            put(&mut other, p.id, "DELETED", "v").unwrap();
            ours(&mut other, "secret_delete($1, 'DELETED')", &[&p.id]).unwrap();

            let mut client = p.db.user(p.owner);
            let mut transaction = at(&mut client, level);
            ours(&mut other, change, &[&p.id]).unwrap();
            let sql = format!("SELECT * FROM meshhook_secrets.{call}");
            assert_eq!(state(transaction.query(&sql, &[&p.id])), "40001", "{call} after {change}");
        }
    }
}

#[test]
fn serializable_writers_succeed_or_are_told_to_try_again() {
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        let p = Project::new();
        let written = together(6, |_, start| {
            let mut client = p.db.user(p.owner);
            start.wait();
            let mut versions = Vec::new();
            while versions.len() < 5 {
                let mut transaction = at(&mut client, level);
                let answer = put_in(&mut transaction, p.id, "KEY", "v")
                    .and_then(|version| transaction.commit().map(|()| version));
                match answer {
                    Ok(version) => versions.push(version),
                    Err(error) => {
                        expect_error(Err::<(), _>(error), "40001");
                    }
                }
            }
            versions
        });
        let versions: BTreeSet<i32> = written.concat().into_iter().collect();
        assert_eq!(versions, (1..=30).collect::<BTreeSet<i32>>());
    }
}

#[test]
fn a_put_that_is_waited_for_and_rolled_back_counts_for_nothing() {
    let p = Project::new();
    put(&mut p.db.service(), p.id, "OTHER", "v").unwrap();
    for name in ["KEY", "OTHER"] {
        let before = if name == "KEY" { 0 } else { 1 };
        let (mut one, mut other) = (p.db.user(p.owner), p.db.user(p.owner));
        let mut transaction = one.transaction().unwrap();
        assert_eq!(put_in(&mut transaction, p.id, name, "lost").unwrap(), before + 1);
        scope(|threads| {
            let waits = threads.spawn(|| put(&mut other, p.id, name, "kept"));
            p.wait_for_waiters(1);
            // Nobody else sees it before the commit.
            let seen = get(&mut p.db.service(), p.id, name);
            assert_eq!(state(seen), if name == "KEY" { "PT404" } else { "ok" });
            transaction.rollback().unwrap();
            assert_eq!(waits.join().unwrap().unwrap(), before + 1);
        });
        assert_eq!(get(&mut p.db.service(), p.id, name).unwrap(), "kept");
    }
}

#[test]
fn a_wait_that_is_cut_short_leaves_a_usable_session() {
    // Where a put waits: for the first KEK, for the project's first data key, for the secret.
    for stage in ["KEK", "data key", "secret"] {
        let p = Project::new();
        let project = if stage == "KEK" { p.db.project(p.owner) } else { p.id };
        if stage == "secret" {
            put(&mut p.db.service(), p.id, "KEY", "v").unwrap();
        }
        let (mut one, mut other) = (p.db.user(p.owner), p.db.user(p.owner));
        let mut transaction = one.transaction().unwrap();
        put_in(&mut transaction, p.id, "KEY", "first").unwrap();
        for (limit, expected) in [("lock_timeout", "55P03"), ("statement_timeout", "57014")] {
            other.batch_execute(&format!("SET {limit} = '100ms'")).unwrap();
            assert_eq!(state(put(&mut other, project, "KEY", "second")), expected, "{stage}");
            other.batch_execute(&format!("RESET {limit}")).unwrap();
        }
        transaction.commit().unwrap();
        put(&mut other, project, "KEY", "third").unwrap();
        assert_eq!(get(&mut one, project, "KEY").unwrap(), "third");
    }
}

#[test]
fn of_two_that_wait_for_each_other_one_succeeds() {
    let p = Project::new();
    for name in ["A", "B"] {
        put(&mut p.db.service(), p.id, name, "v").unwrap();
    }
    let states = together(2, |worker, start| {
        let mut client = p.db.user(p.owner);
        let names = [["A", "B"], ["B", "A"]][worker];
        let mut transaction = client.transaction().unwrap();
        put_in(&mut transaction, p.id, names[0], &worker.to_string()).unwrap();
        start.wait();
        let second = put_in(&mut transaction, p.id, names[1], &worker.to_string());
        let told = state(second);
        if told == "ok" {
            transaction.commit().unwrap();
        }
        told
    });
    assert_eq!(BTreeSet::from_iter(states.clone()), BTreeSet::from(["ok".into(), "40P01".into()]));
    let winner = states.iter().position(|state| state == "ok").unwrap().to_string();
    for name in ["A", "B"] {
        assert_eq!(get(&mut p.db.service(), p.id, name).unwrap(), winner);
    }
}

// --- things that go while they are used -----------------------------------------------------------

#[test]
fn the_extension_can_go_and_come_back_under_open_sessions() {
    let p = Project::new();
    let mut user = p.db.user(p.owner);
    let mut service = p.db.service();
    for turn in 1..=3 {
        for client in [&mut user, &mut service] {
            // Often enough for kept plans.
            for _ in 0..6 {
                put(client, p.id, "KEY", "v").unwrap();
                assert_eq!(get(client, p.id, "KEY").unwrap(), "v", "turn {turn}");
            }
        }
        let mut superuser = p.db.superuser();
        superuser.batch_execute("DROP EXTENSION meshhook_secrets CASCADE").unwrap();
        for client in [&mut user, &mut service] {
            let gone = state(get(client, p.id, "KEY"));
            assert!(["3F000", "42883", "42501"].contains(&gone.as_str()), "{gone}");
        }
        superuser
            .batch_execute(
                "CREATE EXTENSION meshhook_secrets;
                 SELECT meshhook_secrets.attach_projects('public.projects',
                   member_function => 'public.user_project_ids()');
                 SELECT meshhook_secrets.setup_supabase(users_may_reveal => true)",
            )
            .unwrap();
        for client in [&mut user, &mut service] {
            expect_error(get(client, p.id, "KEY"), "PT404");
        }
        assert_eq!(put(&mut service, p.id, "KEY", "new").unwrap(), 1);
        assert_eq!(get(&mut user, p.id, "KEY").unwrap(), "new");
    }
}

#[test]
fn a_database_can_be_dropped_after_its_keys_were_used() {
    let cluster = Cluster::shared();
    let mut admin = cluster.connect("postgres", "postgres");
    for force in ["", "WITH (FORCE)"] {
        let p = Project::new();
        let mut client = p.db.user(p.owner);
        put(&mut client, p.id, "KEY", "v").unwrap();
        let name = p.db.name().to_owned();
        if force.is_empty() {
            drop(client);
            // The session takes a moment to end.
            let drop = format!("DROP DATABASE {name}");
            eventually("the database is dropped", || admin.batch_execute(&drop).is_ok());
        } else {
            admin.batch_execute(&format!("DROP DATABASE {name} {force}")).unwrap();
            assert!(get(&mut client, p.id, "KEY").is_err());
            assert!(client.is_closed());
        }
        assert!(cluster.try_connect(&name, "postgres").is_err());
        // A database of the same name starts from nothing.
        admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE host")).unwrap();
        let project = p.db.project(p.owner);
        let mut client = p.db.user(p.owner);
        expect_error(get(&mut client, project, "KEY"), "PT404");
        assert_eq!(put(&mut client, project, "KEY", "again").unwrap(), 1);
        assert_eq!(get(&mut client, project, "KEY").unwrap(), "again");
    }
}

// --- helpers -----------------------------------------------------------------------------------------

/// A project in a database of its own.
struct Project {
    id: Uuid,
    owner: Uuid,
    db: Database<'static>,
}

impl Project {
    fn new() -> Self {
        let db = Cluster::shared().database();
        let owner = Uuid::new_v4();
        Self { id: db.project(owner), owner, db }
    }

    /// The number of rows of a table of ours, which may be followed by a condition.
    fn count(&self, rows: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM meshhook_secrets.{rows}");
        self.db.superuser().query_one(&sql, &[]).unwrap().get(0)
    }

    /// Waits until so many sessions of this database wait for a lock.
    fn wait_for_waiters(&self, sessions: i64) {
        let mut superuser = self.db.superuser();
        let sql = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually("sessions wait for a lock", || {
            superuser.query_one(sql, &[]).unwrap().get::<_, i64>(0) == sessions
        });
    }
}

/// What workers that start at the same time answer. Each gets its number and a barrier of all.
fn together<T: Send>(workers: usize, work: impl Fn(usize, &Barrier) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(workers);
    scope(|threads| {
        let workers: Vec<_> = (0..workers)
            .map(|worker| {
                let (start, work) = (&start, &work);
                threads.spawn(move || work(worker, start))
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker failed")).collect()
    })
}

/// A transaction whose snapshot is taken.
fn at(client: &mut Client, level: IsolationLevel) -> Transaction<'_> {
    let mut transaction = client.build_transaction().isolation_level(level).start().unwrap();
    transaction.query("SELECT FROM public.projects", &[]).unwrap();
    transaction
}

const PUT: &str = "SELECT version FROM meshhook_secrets.secret_put($1, $2, $3)";

fn put(
    client: &mut Client,
    project: Uuid,
    name: &str,
    value: &str,
) -> Result<i32, postgres::Error> {
    client.query_one(PUT, &[&project, &name, &value]).map(|row| row.get(0))
}

fn put_in(
    transaction: &mut Transaction,
    project: Uuid,
    name: &str,
    value: &str,
) -> Result<i32, postgres::Error> {
    transaction.query_one(PUT, &[&project, &name, &value]).map(|row| row.get(0))
}

fn get(client: &mut Client, project: Uuid, name: &str) -> Result<String, postgres::Error> {
    let sql = "SELECT meshhook_secrets.secret_get($1, $2)";
    client.query_one(sql, &[&project, &name]).map(|row| row.get(0))
}

fn ours(
    client: &mut Client,
    call: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, postgres::Error> {
    client.query(&format!("SELECT * FROM meshhook_secrets.{call}"), parameters)
}

/// The SQLSTATE of an answer, or "ok".
fn state<T>(answer: Result<T, postgres::Error>) -> String {
    match answer {
        Ok(_) => "ok".to_owned(),
        Err(error) => match error.code() {
            Some(code) => code.code().to_owned(),
            None => panic!("{error:?}"),
        },
    }
}

fn number(value: &str) -> i32 {
    value.trim_start_matches("value ").parse().expect("a number")
}
