//! Standbys while their primary lives: what they show, what they refuse, how fast they forget.

use std::sync::LazyLock;

use postgres::IsolationLevel;
use support::{Cluster, Database, eventually, expect_error};
use uuid::Uuid;

use crate::calls::{Does, make_all, make_roles, refused};
use crate::{get, operate, primary, project, put, standby_of};

/// A primary, its standby, and a standby of that one.
struct Chain {
    primary: Cluster,
    standby: Cluster,
    cascaded: Cluster,
}

impl Chain {
    fn shared() -> &'static Self {
        static SHARED: LazyLock<Chain> = LazyLock::new(|| {
            let primary = primary().start();
            // The roles and the template of the tests' databases.
            drop(primary.database());
            let standby = standby_of(&primary).start();
            let cascaded = standby_of(&standby).start();
            Chain { primary, standby, cascaded }
        });
        &SHARED
    }

    /// Waits until both standbys show what the primary shows.
    fn catch_up(&self) {
        self.standby.catch_up(&self.primary);
        self.cascaded.catch_up(&self.primary);
    }

    /// The database on the standbys.
    fn standbys(&self, db: &Database<'_>) -> [Database<'_>; 2] {
        [db.on(&self.standby), db.on(&self.cascaded)]
    }
}

#[test]
fn every_function_reads_or_says_that_it_cannot_write() {
    let chain = Chain::shared();
    let db = chain.primary.database();
    let alice = Uuid::new_v4();
    let project = project(&db, alice, &["TOKEN", "GONE"]);
    let delete = "SELECT FROM meshhook_secrets.secret_delete($1, 'GONE')";
    db.user(alice).query(delete, &[&project]).unwrap();
    make_roles(&db);
    db.auditor().assert_good();
    chain.catch_up();
    for there in chain.standbys(&db) {
        let mut written = 0;
        make_all(&there, alice, project, |call, does, answer| match does {
            Does::Read => {
                let rows = answer.unwrap_or_else(|error| panic!("{call}: {error:?}"));
                assert!(rows > 0 || call.starts_with("secret_due"), "{call}: no rows");
            }
            Does::Write | Does::Keep => {
                refused(call, answer);
                written += 1;
            }
        });
        assert!(written > 25, "{written}");
        let mut auditor = there.connect("whole_auditor");
        let verified = support::audit::verify(&mut auditor, "");
        assert!(verified.ok && verified.records > 0, "{verified:?}");
        assert!(!support::audit::search(&mut auditor, "action => 'secret_put'").is_empty());
    }
}

#[test]
fn what_the_primary_takes_away_is_gone_on_all_standbys() {
    let chain = Chain::shared();
    let db = chain.primary.database();
    let alice = Uuid::new_v4();
    let kept = project(&db, alice, &["KEPT", "DELETED", "EXPIRED"]);
    let doomed = project(&db, alice, &["DOOMED"]);
    let sealed = project(&db, alice, &["SEALED"]);
    chain.catch_up();
    let mut clients: Vec<_> = chain.standbys(&db).iter().map(|there| there.user(alice)).collect();
    for client in &mut clients {
        for (project, name) in [
            (kept, "KEPT"),
            (kept, "DELETED"),
            (kept, "EXPIRED"),
            (doomed, "DOOMED"),
            (sealed, "SEALED"),
        ] {
            assert_eq!(get(client, project, name).unwrap(), name.to_lowercase());
        }
    }
    let mut user = db.user(alice);
    for call in ["secret_delete($1, 'DELETED')", "secret_expire($1, 'EXPIRED', now())"] {
        user.query(&format!("SELECT FROM meshhook_secrets.{call}"), &[&kept]).unwrap();
    }
    db.delete_project(doomed);
    db.superuser().execute("SELECT meshhook_secrets.seal($1)", &[&sealed]).unwrap();
    chain.catch_up();
    for client in &mut clients {
        assert_eq!(get(client, kept, "KEPT").unwrap(), "kept");
        expect_error(get(client, kept, "DELETED"), "PT410");
        expect_error(get(client, kept, "EXPIRED"), "PT410");
        expect_error(get(client, doomed, "DOOMED"), "42501");
        expect_error(get(client, sealed, "SEALED"), "PT503").detail("The project is sealed");
    }
    for there in chain.standbys(&db) {
        let keys = "SELECT count(*) FROM meshhook_secrets.data_keys WHERE project_id = $1";
        assert_eq!(there.superuser().query_one(keys, &[&doomed]).unwrap().get::<_, i64>(0), 0);
    }
    db.superuser().execute("SELECT meshhook_secrets.unseal($1)", &[&sealed]).unwrap();
    chain.catch_up();
    for client in &mut clients {
        assert_eq!(get(client, sealed, "SEALED").unwrap(), "sealed");
    }
}

#[test]
fn a_kek_in_the_memory_of_a_standby_works_no_longer_than_its_row() {
    let chain = Chain::shared();
    let db = chain.primary.database();
    let alice = Uuid::new_v4();
    let project = project(&db, alice, &["TOKEN"]);
    chain.catch_up();
    let there = chain.standbys(&db);
    let mut clients: Vec<_> = there.iter().map(|there| there.user(alice)).collect();
    // A transaction with a fixed snapshot is told the truth, too.
    let mut others: Vec<_> = there.iter().map(|there| there.user(alice)).collect();
    let mut fixed: Vec<_> = others
        .iter_mut()
        .map(|client| {
            let level = IsolationLevel::RepeatableRead;
            client.build_transaction().isolation_level(level).read_only(true).start().unwrap()
        })
        .collect();
    // Both have KEK 1 in memory.
    for client in &mut clients {
        assert_eq!(get(client, project, "TOKEN").unwrap(), "token");
    }
    for transaction in &mut fixed {
        transaction.query_one(crate::GET, &[&project, &"TOKEN"]).unwrap();
    }
    // Switched off, and on again.
    operate(&db, "kek_disable(1)").unwrap();
    chain.catch_up();
    for client in &mut clients {
        expect_error(get(client, project, "TOKEN"), "PT503").detail("KEK 1 is disabled");
    }
    for mut transaction in fixed {
        let refused = transaction.query_one(crate::GET, &[&project, &"TOKEN"]);
        expect_error(refused, "PT503").detail("KEK 1 is disabled");
    }
    operate(&db, "kek_enable(1)").unwrap();
    chain.catch_up();
    for client in &mut clients {
        assert_eq!(get(client, project, "TOKEN").unwrap(), "token");
    }

    // Rotated away and destroyed; what it once wrapped is put back by somebody who kept it.
    let mut superuser = db.superuser();
    let row = "SELECT dek_encrypted FROM meshhook_secrets.data_keys WHERE project_id = $1";
    let old: Vec<u8> = superuser.query_one(row, &[&project]).unwrap().get(0);
    let status = "SELECT status FROM meshhook_secrets.kek_storage WHERE kek_id = 1";
    operate(&db, "kek_rotate('cascade')").unwrap();
    let mut is =
        |wanted: &str| superuser.query_one(status, &[]).unwrap().get::<_, &str>(0) == wanted;
    eventually("KEK 1 is retired", || is("retired"));
    operate(&db, "kek_destroy(1, '1', wait => '0')").unwrap();
    eventually("KEK 1 is destroyed", || is("destroyed"));
    chain.catch_up();
    for client in &mut clients {
        assert_eq!(get(client, project, "TOKEN").unwrap(), "token");
    }
    let put_back = "UPDATE meshhook_secrets.data_keys SET dek_encrypted = $2, kek_id = 1 WHERE project_id = $1";
    superuser.execute(put_back, &[&project, &old]).unwrap();
    chain.catch_up();
    for client in &mut clients {
        expect_error(get(client, project, "TOKEN"), "PT503").detail("KEK 1 is destroyed");
    }
}

#[test]
fn nothing_that_the_primary_does_hangs_on_who_reads_on_a_standby() {
    let primary = &Chain::shared().primary;
    let db = primary.database();
    let dropped = primary.database();
    let alice = Uuid::new_v4();
    let project = project(&db, alice, &["TOKEN"]);
    crate::project(&dropped, alice, &["TOKEN"]);
    let standby = standby_of(primary).setting("max_standby_streaming_delay", "500ms").start();
    standby.catch_up(primary);
    let there = db.on(&standby);

    // A long transaction reads through a rotation.
    let mut long = there.user(alice);
    long.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
    assert_eq!(get(&mut long, project, "TOKEN").unwrap(), "token");
    operate(&db, "kek_rotate('under a reader')").unwrap();
    let mut superuser = db.superuser();
    let finished = "SELECT finished_at IS NOT NULL FROM meshhook_secrets.rotation_jobs";
    eventually("the rotation is done", || superuser.query_one(finished, &[]).unwrap().get(0));
    standby.catch_up(primary);
    assert_eq!(get(&mut long, project, "TOKEN").unwrap(), "token");

    // Replay waits for it as long as the server is told to, then sends it away.
    superuser.batch_execute("DROP EXTENSION meshhook_secrets CASCADE").unwrap();
    standby.catch_up(primary);
    assert!(get(&mut long, project, "TOKEN").is_err());
    let mut reader = there.user(alice);
    expect_error(get(&mut reader, project, "TOKEN"), "42883");
    superuser
        .batch_execute(
            "CREATE EXTENSION meshhook_secrets;
             SELECT meshhook_secrets.attach_projects('public.projects', member_function => 'public.user_project_ids()');
             SELECT meshhook_secrets.setup_supabase(users_may_reveal => true)",
        )
        .unwrap();
    put(&mut db.user(alice), project, "TOKEN", "another").unwrap();
    standby.catch_up(primary);
    assert_eq!(get(&mut reader, project, "TOKEN").unwrap(), "another");

    // So does a database that goes.
    let mut leaving = dropped.on(&standby).user(alice);
    leaving.batch_execute("BEGIN").unwrap();
    let list = "SELECT FROM meshhook_secrets.project_secrets";
    assert_eq!(leaving.query(list, &[]).unwrap().len(), 1);
    drop(dropped);
    standby.catch_up(primary);
    assert!(leaving.query(list, &[]).is_err());
}
