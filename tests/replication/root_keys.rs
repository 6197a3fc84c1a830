//! Each server gets its root key from its own source, and keeps it in its own memory.

use std::fs;

use postgres::Client;
use support::{Failure, KEY_A, KEY_B, RootKey, eventually, expect_error};
use uuid::Uuid;

use crate::{get, operate, primary, project, put, standby_of};

#[test]
fn a_standby_with_no_root_key_or_a_wrong_one_says_so_and_heals() {
    let primary = primary().start();
    let db = primary.database();
    let alice = Uuid::new_v4();
    let project = project(&db, alice, &["TOKEN"]);
    let standby = standby_of(&primary).root_key(RootKey::Missing).start();
    let there = db.on(&standby);
    let mut reader = there.user(alice);

    let missing = expect_error(get(&mut reader, project, "TOKEN"), "PT503");
    missing.detail("The root key file cannot be opened").hint("root_key_file").hides("token");
    assert!(!health(&mut there.superuser()).is_empty());
    // What needs no key works, and the primary knows nothing of it.
    let list = "SELECT name FROM meshhook_secrets.secret_list($1)";
    assert_eq!(reader.query_one(list, &[&project]).unwrap().get::<_, &str>(0), "TOKEN");
    assert_eq!(get(&mut db.user(alice), project, "TOKEN").unwrap(), "token");

    // A key, but not the one.
    standby.write_root_key(KEY_B);
    standby.reload();
    let needed = fingerprint(&mut db.superuser());
    let of_another = |failure: &Failure| failure.detail.contains(&needed);
    eventually("it names the key that it needs", || {
        let refused = expect_error(get(&mut reader, project, "TOKEN"), "PT503");
        of_another(&refused) && refused.hint.contains(&needed)
    });
    let cause = health(&mut there.superuser());
    assert!(cause.contains(&needed), "{cause}");
    assert_eq!(get(&mut db.user(alice), project, "TOKEN").unwrap(), "token");

    standby.write_root_key(KEY_A);
    standby.reload();
    eventually("it is healed", || get(&mut reader, project, "TOKEN").is_ok());
    assert_eq!(health(&mut there.superuser()), "");
}

#[test]
fn a_root_key_is_rotated_on_the_primary_once_all_standbys_have_it() {
    let primary = primary().start();
    let db = primary.database();
    let alice = Uuid::new_v4();
    let project = project(&db, alice, &["TOKEN"]);
    let by_file = standby_of(&primary).start();
    // A key service of its own.
    let source = primary.dir().join("standby.key");
    fs::write(&source, KEY_A).unwrap();
    let command = RootKey::Command(format!("cat {}", source.display()));
    let by_command = standby_of(&primary).root_key(command).start();
    let standbys = [&by_file, &by_command];
    let give = |keys: &str| {
        by_file.write_root_key(keys);
        fs::write(&source, format!("{keys}\n")).unwrap();
        standbys.iter().for_each(|standby| standby.reload());
    };
    let mut readers = standbys.map(|standby| db.on(standby).user(alice));
    for reader in &mut readers {
        eventually("the standby is open", || get(reader, project, "TOKEN").is_ok());
    }

    let both = format!("{KEY_B}\n{KEY_A}");
    primary.write_root_key(&both);
    primary.reload();
    let mut superuser = db.superuser();
    eventually("the primary has both keys", || loaded(&mut superuser) == 2);
    operate(&db, "root_key_rotate()").unwrap();
    let needed = fingerprint(&mut superuser);
    for (standby, reader) in standbys.iter().zip(&mut readers) {
        standby.catch_up(&primary);
        // The KEK is still in memory, and its row is another one now.
        let refused = expect_error(get(reader, project, "TOKEN"), "PT503");
        refused.detail(&needed).hint(&needed);
        let cause = health(&mut db.on(standby).superuser());
        assert!(cause.contains(&needed), "{cause}");
    }
    put(&mut db.user(alice), project, "TOKEN", "after").unwrap();

    // In any order, and the old one may go.
    for keys in [format!("{KEY_A}\n{KEY_B}"), both, KEY_B.to_owned()] {
        give(&keys);
        let count = keys.lines().count() as i64;
        for (standby, reader) in standbys.iter().zip(&mut readers) {
            let there = db.on(standby);
            standby.catch_up(&primary);
            eventually("the standby has these keys", || loaded(&mut there.superuser()) == count);
            assert_eq!(get(reader, project, "TOKEN").unwrap(), "after");
            let mut auditor = there.superuser();
            let verified = support::audit::verify(&mut auditor, "");
            assert!(verified.ok && verified.records > 0, "{verified:?}");
        }
    }
}

#[test]
fn seal_is_of_one_server() {
    let primary = primary().start();
    let db = primary.database();
    let alice = Uuid::new_v4();
    let project = project(&db, alice, &["TOKEN"]);
    let standby = standby_of(&primary).start();
    let there = db.on(&standby);
    let mut at_standby = there.user(alice);
    eventually("the standby is open", || get(&mut at_standby, project, "TOKEN").is_ok());

    for (sealed, other) in [(&db, &there), (&there, &db)] {
        let (mut by, mut other) = (sealed.user(alice), other.user(alice));
        let mut operator = sealed.superuser();
        operator.execute("SELECT meshhook_secrets.seal()", &[]).unwrap();
        expect_error(get(&mut by, project, "TOKEN"), "PT503").detail("seal()");
        assert_eq!(get(&mut other, project, "TOKEN").unwrap(), "token");
        operator.execute("SELECT meshhook_secrets.unseal()", &[]).unwrap();
        assert_eq!(get(&mut by, project, "TOKEN").unwrap(), "token");
    }
    // It leaves its record with the primary, and its line with the standby.
    let lines: Vec<String> = standby.log().lines().map(str::to_owned).collect();
    for action in ["seal", "unseal"] {
        let recorded = |line: &&String| line.contains(&format!(r#""action":"{action}""#));
        assert_eq!(lines.iter().filter(recorded).count(), 1, "{action}");
        db.auditor().one(&format!("action => '{action}'"));
    }
    // A sealed standby that is promoted stays sealed.
    there.superuser().execute("SELECT meshhook_secrets.seal()", &[]).unwrap();
    standby.promote();
    expect_error(get(&mut at_standby, project, "TOKEN"), "PT503").detail("seal()");
    there.superuser().execute("SELECT meshhook_secrets.unseal()", &[]).unwrap();
    eventually("its audit writer runs", || get(&mut at_standby, project, "TOKEN").is_ok());
}

/// Why the server is not well; empty if it is.
fn health(client: &mut Client) -> String {
    let health = "SELECT coalesce(cause, '') FROM meshhook_secrets.health()";
    client.query_one(health, &[]).unwrap().get(0)
}

/// The root key that the keys of this database need.
fn fingerprint(client: &mut Client) -> String {
    let needed = "SELECT DISTINCT root_key_id FROM meshhook_secrets.kek_storage";
    client.query_one(needed, &[]).unwrap().get(0)
}

/// How many root keys the server has loaded.
fn loaded(client: &mut Client) -> i64 {
    let loaded = "SELECT count(*) FROM meshhook_secrets.root_key_status() WHERE is_loaded";
    client.query_one(loaded, &[]).unwrap().get(0)
}
