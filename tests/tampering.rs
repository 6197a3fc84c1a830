//! Stored rows that somebody altered are never believed. A superuser changes every column that
//! matters, one by one and in concert; each reveal then fails with the same XX001 that says nothing
//! about why, other secrets still come, nothing crashes, and what is bad can be overwritten or
//! deleted but not made good. Keys that were switched off do not come back by editing, and a wrong
//! root key is refused before anything is written.

use meshhook_secrets_core::{identity::KekIdentity, kek_status::KekStatus, root_key};
use postgres::Client;
use postgres::types::ToSql;
use support::{Cluster, Database, KEY_A, KEY_B, backend_pid, eventually, expect_error};
use uuid::Uuid;

/// Every authenticated column, with what an attacker might put there. The row is the one of TOKEN,
/// of its current version, of its project's data key, of the KEK.
const AUTHENTICATED: &[(&str, &str, &[&str])] = &[
    ("project_secrets", "project_id", &["other()"]),
    ("project_secrets", "id", &["gen_random_uuid()"]),
    ("project_secrets", "name", &["'RENAMED'", "'token'", "'TOKEN_'", "'T'"]),
    ("project_secrets", "current_version", &["2", "1", "4", "0", "-1", "2147483647"]),
    ("project_secrets", "oldest_version", &["2", "3", "4", "0", "-2147483648"]),
    ("project_secrets", "dek_version", &["2", "0", "-1"]),
    (
        "project_secrets",
        "expires_at",
        &[
            "NULL",
            "'infinity'",
            "expires_at + interval '1 microsecond'",
            "expires_at - interval '1 day'",
            "now() - interval '1 day'",
            "'-infinity'",
        ],
    ),
    ("project_secrets", "deleted_at", &["now()", "'infinity'"]),
    ("project_secrets", "purge_after", &["now()", "now() + interval '1 day'"]),
    (
        "project_secrets",
        "mac",
        &[
            "''",
            "'\\x00'",
            "substr(mac, 1, 31)",
            "substr(mac, 2)",
            "mac || '\\x00'",
            "decode(repeat('00', 32), 'hex')",
            "(SELECT mac FROM project_secrets WHERE id = bystander())",
        ],
    ),
    ("secret_versions", "project_id", &["other()"]),
    ("secret_versions", "secret_id", &["bystander()", "gen_random_uuid()"]),
    ("secret_versions", "version", &["4", "0", "-1"]),
    ("secret_versions", "dek_version", &["2", "0", "-1"]),
    (
        "secret_versions",
        "value",
        &[
            "''",
            "'\\x01'",
            "'\\x0101'",
            "substr(value, 1, 41)",
            "substr(value, 1, 42)",
            "substr(value, 1, length(value) - 1)",
            "substr(value, 2)",
            "value || '\\x00'",
            "'\\x00' || value",
            "value || value",
            "set_byte(value, 0, 0)",
            "set_byte(value, 0, 2)",
            "set_byte(value, 1, 2)",
            "set_byte(value, 1, 255)",
            "decode(repeat('00', 64), 'hex')",
            "decode(repeat('01', 1048576), 'hex')",
        ],
    ),
    (
        "secret_versions",
        "expires_at",
        &[
            "NULL",
            "'infinity'",
            "expires_at + interval '1 microsecond'",
            "now() - interval '1 day'",
            "'-infinity'",
        ],
    ),
    ("data_keys", "project_id", &["gen_random_uuid()"]),
    ("data_keys", "dek_version", &["2"]),
    ("data_keys", "kek_id", &["2", "0", "-1"]),
    (
        "data_keys",
        "dek_encrypted",
        &[
            "''",
            "'\\x0101'",
            "substr(dek_encrypted, 1, 73)",
            "dek_encrypted || '\\x00'",
            "set_byte(dek_encrypted, 0, 2)",
            "set_byte(dek_encrypted, 1, 2)",
            "(SELECT dek_encrypted FROM data_keys WHERE project_id = other())",
            "(SELECT kek_encrypted FROM kek_storage)",
        ],
    ),
    ("data_keys", "status", &["'retiring'", "'disabled'"]),
    ("kek_storage", "kek_id", &["2"]),
    (
        "kek_storage",
        "kek_encrypted",
        &[
            "''",
            "'\\x0101'",
            "substr(kek_encrypted, 1, 73)",
            "kek_encrypted || '\\x00'",
            "set_byte(kek_encrypted, 0, 2)",
            "set_byte(kek_encrypted, 1, 2)",
            "(SELECT dek_encrypted FROM data_keys WHERE project_id = project())",
        ],
    ),
    (
        "kek_storage",
        "root_key_id",
        &[
            "''",
            "'0123456789abcdef'",
            "upper(root_key_id)",
            "repeat('ab', 1000)",
            "second_root_key()",
        ],
    ),
    (
        "kek_storage",
        "status",
        &[
            "'pending'",
            "'retiring'",
            "'retired'",
            "'disabled'",
            "'compromised'",
            "'destroy_scheduled'",
        ],
    ),
];

/// The columns that are not authenticated, by design: they decide neither which value is revealed
/// nor whether. Settings hold the binding, which decides for whom.
const OPEN: &[(&str, &[&str])] = &[
    ("project_secrets", &["description", "metadata", "created_at", "updated_at", "created_by"]),
    ("secret_versions", &["created_at", "created_by"]),
    ("data_keys", &["created_at", "rotated_at"]),
    ("kek_storage", &["created_at", "rotated_at", "retired_at", "destroy_after", "destroyed_at"]),
    (
        "rotation_jobs",
        &[
            "job_id",
            "kek_id",
            "reason",
            "total",
            "started_at",
            "started_by",
            "finished_at",
            "last_error",
        ],
    ),
    ("settings", &["key", "value"]),
];

// --- every column, every byte ---------------------------------------------------------

#[test]
fn every_column_is_either_authenticated_or_open_by_design() {
    let mut scene = Scene::new(Cluster::shared());
    let rows = scene
        .admin
        .query(
            "SELECT c.relname::text, a.attname::text FROM pg_class c
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             WHERE c.relnamespace = 'meshhook_secrets'::regnamespace AND c.relkind IN ('r', 'p')
             AND c.relname NOT LIKE 'audit%' -- tests/audit_seals.rs",
            &[],
        )
        .unwrap();
    let mut columns: Vec<(String, String)> =
        rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    columns.sort();

    let authenticated = AUTHENTICATED.iter().map(|(table, column, _)| (*table, *column));
    let open = OPEN.iter().flat_map(|(table, columns)| columns.iter().map(|c| (*table, *c)));
    let mut known: Vec<(String, String)> =
        authenticated.chain(open).map(|(t, c)| (t.to_owned(), c.to_owned())).collect();
    known.sort();
    assert_eq!(columns, known, "decide whether a new column is authenticated, and tamper with it");
}

#[test]
fn every_altered_column_of_a_secret_fails_authentication() {
    let mut scene = Scene::new(Cluster::shared());
    let backend = backend_pid(&mut scene.user);
    for table in ["project_secrets", "secret_versions"] {
        scene.alter_each_column(table, "ok", |_| {});
    }
    scene.nothing_crashed(backend);
}

#[test]
fn every_altered_column_of_a_data_key_fails_authentication() {
    let mut scene = Scene::new(Cluster::shared());
    let backend = backend_pid(&mut scene.user);
    scene.alter_each_column("data_keys", "corrupted", |_| {});
    scene.nothing_crashed(backend);
}

#[test]
fn every_altered_column_of_a_kek_fails_authentication_also_when_it_is_in_memory() {
    let cluster = Cluster::builder().root_key(both_keys()).start();
    let mut scene = Scene::new(&cluster);
    let backend = backend_pid(&mut scene.user);
    // Each is looked at with the KEK in memory (it was just used), and after memory was wiped.
    scene.alter_each_column("kek_storage", "corrupted", |scene| {
        scene.call("SELECT meshhook_secrets.seal()");
        scene.call("SELECT meshhook_secrets.unseal()");
    });
    scene.nothing_crashed(backend);
}

#[test]
fn every_flipped_byte_fails_authentication() {
    let mut scene = Scene::new(Cluster::shared());
    let backend = backend_pid(&mut scene.user);
    let columns = [
        ("project_secrets", "mac", "id = token()", 32),
        // Format, algorithm, nonce 24, ciphertext "third", tag 16.
        ("secret_versions", "value", "secret_id = token() AND version = 3", 42 + 5),
        ("data_keys", "dek_encrypted", "project_id = project()", 74),
        ("kek_storage", "kek_encrypted", "kek_id = 1", 74),
    ];
    for (table, column, row, length) in columns {
        let query = format!("SELECT length({column}) FROM {table} WHERE {row}");
        assert_eq!(scene.admin.query_one(&query, &[]).unwrap().get::<_, i32>(0), length);
        for byte in 0..length {
            for bit in [1, 128] {
                let flip = format!(
                    "UPDATE {table} SET {column} =
                     set_byte({column}, {byte}, get_byte({column}, {byte}) # {bit}) WHERE {row}"
                );
                scene.apply(&[&flip]);
                let get = scene.get(&here("TOKEN"));
                assert_corrupted(get, &flip);
                scene.apply(&[&flip]); // Flipped back.
            }
        }
        assert_eq!(scene.get(&here("TOKEN")).unwrap(), "third");
    }
    scene.nothing_crashed(backend);
}

#[test]
fn a_long_value_fails_authentication_wherever_it_is_altered() {
    let mut scene = Scene::new(Cluster::shared());
    let long = "0123456789abcdef".repeat(4096);
    scene.put("LONG", &long);
    scene.save();
    let backend = backend_pid(&mut scene.user);
    // The last byte, and one in every page that it takes up.
    for byte in (26..long.len() + 42).step_by(2000).chain([long.len() + 41]) {
        let flip = format!(
            "UPDATE secret_versions SET value = set_byte(value, {byte}, get_byte(value, {byte}) # 1)
             WHERE length(value) > 60000"
        );
        scene.apply(&[&flip]);
        assert_corrupted(scene.get(&here("LONG")), &flip);
        scene.restore();
    }
    scene.apply(&["UPDATE secret_versions SET value = substr(value, 1, 1000)
         WHERE length(value) > 60000"]);
    assert_corrupted(scene.get(&here("LONG")), "cut");
    scene.restore();
    assert_eq!(scene.get(&here("LONG")).unwrap(), long);
    scene.nothing_crashed(backend);
}

#[test]
fn what_the_schema_forbids_fails_authentication_too() {
    let mut scene = Scene::new(Cluster::shared());
    let backend = backend_pid(&mut scene.user);
    for (table, column) in [
        ("project_secrets", "current_version"),
        ("project_secrets", "oldest_version"),
        ("project_secrets", "dek_version"),
        ("project_secrets", "mac"),
        ("secret_versions", "dek_version"),
        ("secret_versions", "value"),
        ("data_keys", "kek_id"),
        ("data_keys", "dek_encrypted"),
        ("data_keys", "status"),
        ("kek_storage", "root_key_id"),
        ("kek_storage", "status"),
    ] {
        scene.call(&format!("ALTER TABLE {table} ALTER COLUMN {column} DROP NOT NULL"));
        scene.call(
            "ALTER TABLE kek_storage DROP CONSTRAINT IF EXISTS kek_storage_check,
             DROP CONSTRAINT IF EXISTS kek_storage_status_check",
        );
        let null = format!("UPDATE {table} SET {column} = NULL");
        scene.apply(&[&null]);
        assert_corrupted(scene.get(&here("TOKEN")), &null);
        scene.restore();
    }
    scene.call("ALTER TABLE data_keys DROP CONSTRAINT data_keys_status_check");
    for table in ["data_keys", "kek_storage"] {
        for status in ["", "ACTIVE", "enabled", "active "] {
            let edit = format!("UPDATE {table} SET status = '{status}'");
            scene.apply(&[&edit]);
            assert_corrupted(scene.get(&here("TOKEN")), &edit);
            scene.restore();
        }
    }
    assert_eq!(scene.get(&here("TOKEN")).unwrap(), "third");
    scene.nothing_crashed(backend);
}

#[test]
fn columns_that_are_open_by_design_do_not_disturb_a_reveal() {
    let mut scene = Scene::new(Cluster::shared());
    // A superuser passes the guard trigger as it is.
    scene.call("SET session_replication_role = origin");
    for (table, columns) in
        OPEN.iter().filter(|(table, _)| !matches!(*table, "settings" | "rotation_jobs"))
    {
        for column in *columns {
            let value = match *column {
                "description" | "created_by" => "'forged'",
                "metadata" => "'{\"forged\": true}'",
                _ => "'2001-02-03'",
            };
            scene.apply(&[&format!("UPDATE {table} SET {column} = {value}")]);
        }
    }
    for (at, value) in scene.everything() {
        assert_eq!(scene.get(&at).unwrap(), value);
    }
    let many = scene.get_many(false, &["TOKEN", "BYSTANDER"]);
    assert_eq!(many, [ok("TOKEN", "third"), ok("BYSTANDER", "unharmed")]);

    // And everybody is shown the forgery: this is what "not authenticated" means.
    let project = scene.project;
    let describe = "SELECT description, created_by, created_at = '2001-02-03'
        FROM meshhook_secrets.secret_describe($1, 'TOKEN')";
    let row = scene.user.query_one(describe, &[&project]).unwrap();
    assert_eq!(row.get::<_, &str>(0), "forged");
    assert_eq!(row.get::<_, &str>(1), "forged");
    assert!(row.get::<_, bool>(2));
}

// --- in concert -----------------------------------------------------------------------

#[test]
fn rows_that_are_swapped_replayed_moved_or_removed_fail_authentication() {
    let mut scene = Scene::new(Cluster::shared());
    let backend = backend_pid(&mut scene.user);
    for case in CONCERTED {
        scene.apply(case.statements);
        for at in case.refused {
            scene.refuses(at, case.what);
        }
        for (at, value) in case.works {
            assert_eq!(scene.get(at).expect(case.what), *value, "{}", case.what);
        }
        scene.restore();
        assert_eq!(scene.get(&here("TOKEN")).unwrap(), "third");
    }
    scene.nothing_crashed(backend);
}

struct Concerted {
    what: &'static str,
    statements: &'static [&'static str],
    refused: &'static [At],
    works: &'static [(At, &'static str)],
}

const CONCERTED: &[Concerted] = &[
    Concerted {
        what: "two secrets' values swapped",
        statements: &["UPDATE secret_versions v SET value = s.value FROM saved.secret_versions s
             WHERE (v.secret_id, v.version, s.secret_id, s.version) IN
               ((token(), 3, bystander(), 1), (bystander(), 1, token(), 3))"],
        refused: &[here("TOKEN"), here("BYSTANDER")],
        works: &[(here("TOKEN").version(2), "second"), (here("TOKEN").version(1), "first")],
    },
    Concerted {
        what: "two secrets' names swapped",
        statements: &[
            "UPDATE project_secrets SET name = 'SPARE' WHERE id = token()",
            "UPDATE project_secrets SET name = 'TOKEN' WHERE id = bystander()",
            "UPDATE project_secrets SET name = 'BYSTANDER' WHERE id = token()",
        ],
        refused: &[
            here("TOKEN"),
            here("BYSTANDER"),
            here("BYSTANDER").version(1),
            here("BYSTANDER").version(2),
        ],
        works: &[],
    },
    Concerted {
        what: "two secrets' names and macs swapped",
        statements: &[
            "UPDATE project_secrets SET name = 'SPARE' WHERE id = token()",
            "UPDATE project_secrets SET name = 'TOKEN' WHERE id = bystander()",
            "UPDATE project_secrets SET name = 'BYSTANDER' WHERE id = token()",
            "UPDATE project_secrets p SET mac = s.mac FROM saved.project_secrets s
             WHERE p.name = s.name AND s.project_id = project()",
        ],
        refused: &[here("TOKEN"), here("BYSTANDER")],
        works: &[],
    },
    Concerted {
        what: "two secrets' ids swapped",
        statements: &[
            "UPDATE project_secrets SET id = other() WHERE id = token()",
            "UPDATE project_secrets SET id = token() WHERE id = bystander()",
            "UPDATE project_secrets SET id = bystander() WHERE id = other()",
        ],
        refused: &[here("TOKEN"), here("BYSTANDER")],
        works: &[],
    },
    Concerted {
        what: "two versions' values swapped",
        statements: &["UPDATE secret_versions v SET value = s.value FROM saved.secret_versions s
             WHERE v.secret_id = token() AND s.secret_id = token()
               AND (v.version, s.version) IN ((2, 3), (3, 2))"],
        refused: &[here("TOKEN"), here("TOKEN").version(3), here("TOKEN").version(2)],
        works: &[(here("TOKEN").version(1), "first"), (here("BYSTANDER"), "unharmed")],
    },
    Concerted {
        what: "two versions' numbers swapped",
        statements: &[
            "UPDATE secret_versions SET version = -1 WHERE secret_id = token() AND version = 3",
            "UPDATE secret_versions SET version = 3 WHERE secret_id = token() AND version = 2",
            "UPDATE secret_versions SET version = 2 WHERE secret_id = token() AND version = -1",
        ],
        refused: &[here("TOKEN"), here("TOKEN").version(2)],
        works: &[(here("TOKEN").version(1), "first")],
    },
    Concerted {
        what: "an old version's bytes replayed as the current one",
        statements: &["UPDATE secret_versions v SET value = s.value FROM saved.secret_versions s
             WHERE v.secret_id = token() AND v.version = 3
               AND s.secret_id = token() AND s.version = 2"],
        refused: &[here("TOKEN"), here("TOKEN").version(3)],
        works: &[(here("TOKEN").version(2), "second")],
    },
    Concerted {
        what: "an old version's row replayed as the current one",
        statements: &[
            "DELETE FROM secret_versions WHERE secret_id = token() AND version = 3",
            "UPDATE secret_versions SET version = 3 WHERE secret_id = token() AND version = 2",
        ],
        refused: &[here("TOKEN"), here("TOKEN").version(2)],
        works: &[(here("TOKEN").version(1), "first")],
    },
    Concerted {
        what: "an old version's row renumbered and given the expiry of the current one",
        statements: &[
            "UPDATE secret_versions v SET value = s.value, expires_at = s.expires_at
             FROM saved.secret_versions s WHERE v.secret_id = token() AND v.version = 3
               AND s.secret_id = token() AND s.version = 1",
            "UPDATE project_secrets SET expires_at = NULL WHERE id = token()",
        ],
        refused: &[here("TOKEN"), here("TOKEN").version(1)],
        works: &[],
    },
    Concerted {
        what: "the current version set back, with all that belongs to it",
        statements: &[
            "UPDATE project_secrets SET current_version = 2, expires_at = NULL WHERE id = token()",
            "DELETE FROM secret_versions WHERE secret_id = token() AND version = 3",
        ],
        refused: &[here("TOKEN"), here("TOKEN").version(2), here("TOKEN").version(1)],
        works: &[],
    },
    Concerted {
        what: "the current version set forward, with its row",
        statements: &[
            "UPDATE project_secrets SET current_version = 4 WHERE id = token()",
            "UPDATE secret_versions SET version = 4 WHERE secret_id = token() AND version = 3",
        ],
        refused: &[here("TOKEN"), here("TOKEN").version(4)],
        works: &[],
    },
    Concerted {
        what: "the current version removed",
        statements: &["DELETE FROM secret_versions WHERE secret_id = token() AND version = 3"],
        refused: &[here("TOKEN"), here("TOKEN").version(3)],
        works: &[(here("TOKEN").version(2), "second")],
    },
    Concerted {
        what: "an old version removed",
        statements: &["DELETE FROM secret_versions WHERE secret_id = token() AND version = 2"],
        refused: &[here("TOKEN").version(2)],
        works: &[(here("TOKEN"), "third"), (here("TOKEN").version(1), "first")],
    },
    Concerted {
        what: "all versions removed",
        statements: &["DELETE FROM secret_versions WHERE secret_id = token()"],
        refused: &[here("TOKEN"), here("TOKEN").version(1)],
        works: &[(here("BYSTANDER"), "unharmed")],
    },
    Concerted {
        what: "the expiry lifted everywhere",
        statements: &[
            "UPDATE project_secrets SET expires_at = NULL WHERE id = token()",
            "UPDATE secret_versions SET expires_at = NULL WHERE secret_id = token() AND version = 3",
        ],
        refused: &[here("TOKEN")],
        works: &[],
    },
    Concerted {
        what: "an expiry added everywhere",
        statements: &[
            "UPDATE project_secrets SET expires_at = '2001-02-03' WHERE id = bystander()",
            "UPDATE secret_versions SET expires_at = '2001-02-03' WHERE secret_id = bystander()",
        ],
        refused: &[here("BYSTANDER")],
        works: &[(here("TOKEN"), "third")],
    },
    Concerted {
        what: "a secret moved to another project, with its versions",
        statements: &[
            "UPDATE project_secrets SET project_id = other() WHERE id = token()",
            "UPDATE secret_versions SET project_id = other() WHERE secret_id = token()",
        ],
        refused: &[there("TOKEN"), there("TOKEN").version(1)],
        works: &[(here("BYSTANDER"), "unharmed"), (there("BYSTANDER"), "there")],
    },
    Concerted {
        what: "a secret moved to another project, with its versions and its data key",
        statements: &[
            "DELETE FROM data_keys WHERE project_id = other()",
            "UPDATE data_keys SET project_id = other()",
            "UPDATE project_secrets SET project_id = other() WHERE id = token()",
            "UPDATE secret_versions SET project_id = other() WHERE secret_id = token()",
        ],
        refused: &[there("TOKEN"), there("BYSTANDER"), here("BYSTANDER")],
        works: &[],
    },
    Concerted {
        what: "a secret copied to another project, with a second data key",
        statements: &[
            "INSERT INTO data_keys SELECT other(), 2, kek_id, dek_encrypted, 'retiring'
             FROM data_keys WHERE project_id = project()",
            "INSERT INTO project_secrets SELECT other(), id, name, description, metadata,
               current_version, oldest_version, 2, created_at, updated_at, created_by, expires_at,
               deleted_at, purge_after, mac FROM project_secrets WHERE id = token()",
            "INSERT INTO secret_versions SELECT other(), secret_id, version, 2, value, created_at,
               created_by, expires_at FROM secret_versions WHERE secret_id = token()",
        ],
        refused: &[there("TOKEN"), there("TOKEN").version(1)],
        works: &[(here("TOKEN"), "third"), (there("BYSTANDER"), "there")],
    },
    Concerted {
        what: "a secret copied to another name, with its versions",
        statements: &[
            "INSERT INTO project_secrets SELECT project_id, other(), 'COPY', description, metadata,
               current_version, oldest_version, dek_version, created_at, updated_at, created_by,
               expires_at, deleted_at, purge_after, mac FROM project_secrets WHERE id = token()",
            "INSERT INTO secret_versions SELECT project_id, other(), version, dek_version, value,
               created_at, created_by, expires_at FROM secret_versions WHERE secret_id = token()",
        ],
        refused: &[here("COPY"), here("COPY").version(1)],
        works: &[(here("TOKEN"), "third")],
    },
    Concerted {
        what: "the data key of another project copied over",
        statements: &[
            "DELETE FROM data_keys WHERE project_id = project()",
            "INSERT INTO data_keys SELECT project(), dek_version, kek_id, dek_encrypted, status
             FROM data_keys WHERE project_id = other()",
        ],
        refused: &[here("TOKEN"), here("BYSTANDER")],
        works: &[(there("BYSTANDER"), "there")],
    },
    Concerted {
        what: "two projects' data keys swapped",
        statements: &[
            "UPDATE data_keys d SET dek_encrypted = s.dek_encrypted FROM saved.data_keys s
             WHERE s.project_id <> d.project_id",
        ],
        refused: &[here("TOKEN"), here("BYSTANDER"), there("BYSTANDER")],
        works: &[],
    },
    Concerted {
        what: "a data key removed",
        statements: &["DELETE FROM data_keys WHERE project_id = project()"],
        refused: &[here("TOKEN"), here("BYSTANDER")],
        works: &[(there("BYSTANDER"), "there")],
    },
    Concerted {
        what: "a data key renumbered everywhere",
        statements: &[
            "UPDATE data_keys SET dek_version = 2 WHERE project_id = project()",
            "UPDATE project_secrets SET dek_version = 2 WHERE project_id = project()",
            "UPDATE secret_versions SET dek_version = 2 WHERE project_id = project()",
        ],
        refused: &[here("TOKEN"), here("BYSTANDER")],
        works: &[(there("BYSTANDER"), "there")],
    },
    Concerted {
        what: "a KEK renumbered everywhere",
        statements: &["UPDATE kek_storage SET kek_id = 2", "UPDATE data_keys SET kek_id = 2"],
        refused: &[here("TOKEN"), there("BYSTANDER")],
        works: &[],
    },
    Concerted {
        what: "the KEK removed",
        statements: &["DELETE FROM kek_storage"],
        refused: &[here("TOKEN"), there("BYSTANDER")],
        works: &[],
    },
];

#[test]
fn the_kek_of_another_database_does_not_fit() {
    let mut scene = Scene::new(Cluster::shared());
    let mut other = Scene::new(Cluster::shared());
    let query = "SELECT kek_encrypted FROM kek_storage";
    let kek: Vec<u8> = other.admin.query_one(query, &[]).unwrap().get(0);
    // Same root key, same id, same status: it opens, but not these data keys.
    scene.admin.execute("UPDATE kek_storage SET kek_encrypted = $1", &[&kek]).unwrap();
    scene.refuses(&here("TOKEN"), "foreign KEK");
    let get_many = scene.get_many(false, &["TOKEN", "BYSTANDER"]);
    assert_eq!(get_many, [bad("TOKEN"), bad("BYSTANDER")]);
    scene.restore();
    assert_eq!(scene.get(&here("TOKEN")).unwrap(), "third");
    assert_eq!(other.get(&here("TOKEN")).unwrap(), "third");
}

// --- deletion and expiry undone by editing ----------------------------------------------

#[test]
fn a_deletion_cannot_be_undone_by_editing() {
    let mut scene = Scene::new(Cluster::shared());
    let (project, backend) = (scene.project, backend_pid(&mut scene.user));
    scene.call_as_user("secret_delete", "TOKEN").unwrap();
    scene.save();
    expect_error(scene.get(&here("TOKEN")), "PT410");
    for edit in [
        "deleted_at = NULL",
        "deleted_at = NULL, purge_after = NULL",
        "deleted_at = deleted_at + interval '1 day'",
        "deleted_at = deleted_at - interval '1 microsecond'",
        "purge_after = purge_after + interval '1 microsecond'",
        "purge_after = 'infinity'",
        "purge_after = NULL",
        "purge_after = now() - interval '1 day'",
        "name = 'RENAMED'",
        "current_version = 2",
        "mac = ''",
    ] {
        scene.apply(&[&format!("UPDATE project_secrets SET {edit} WHERE id = token()")]);
        let name = if edit.contains("RENAMED") { "RENAMED" } else { "TOKEN" };
        scene.refuses(&here(name), edit);
        let before = scene.contents();
        assert_corrupted(scene.call_as_user("secret_undelete", name), edit);
        assert_eq!(scene.contents(), before, "{edit}");
        scene.restore();
    }
    scene.call_as_user("secret_undelete", "TOKEN").unwrap();
    assert_eq!(scene.get(&here("TOKEN")).unwrap(), "third");

    // A recovery window that has passed cannot be lengthened either.
    let mut admin = scene.db.superuser();
    admin.batch_execute("SET meshhook_secrets.recovery_window = 0").unwrap();
    admin.query("SELECT meshhook_secrets.secret_delete($1, 'TOKEN')", &[&project]).unwrap();
    expect_error(scene.call_as_user("secret_undelete", "TOKEN"), "PT410");
    scene.apply(&["UPDATE project_secrets SET purge_after = now() + interval '1 day'
         WHERE id = token()"]);
    assert_corrupted(scene.call_as_user("secret_undelete", "TOKEN"), "window lengthened");
    scene.nothing_crashed(backend);
}

#[test]
fn an_expired_secret_cannot_be_revived_by_editing() {
    let mut scene = Scene::new(Cluster::shared());
    let project = scene.project;
    let expire = "SELECT meshhook_secrets.secret_expire($1, 'TOKEN', now())";
    scene.user.query(expire, &[&project]).unwrap();
    scene.save();
    expect_error(scene.get(&here("TOKEN")), "PT410");
    let metadata = "UPDATE project_secrets SET expires_at = NULL WHERE id = token()";
    let version = "UPDATE secret_versions SET expires_at = NULL
        WHERE secret_id = token() AND version = 3";
    for edits in [vec![metadata], vec![version], vec![metadata, version]] {
        scene.apply(&edits);
        scene.refuses(&here("TOKEN"), "expiry lifted");
        scene.restore();
    }
    expect_error(scene.get(&here("TOKEN")), "PT410");
}

#[test]
fn a_destroyed_version_cannot_be_brought_back_by_editing() {
    let mut scene = Scene::new(Cluster::shared());
    let project = scene.project;
    let mut admin = scene.db.superuser();
    admin.batch_execute("SET meshhook_secrets.max_versions = 2").unwrap();
    let put = "SELECT meshhook_secrets.secret_put($1, 'TOKEN', 'fourth')";
    admin.query(put, &[&project]).unwrap();
    expect_error(scene.get(&here("TOKEN").version(1)), "PT410");

    let back = "INSERT INTO secret_versions SELECT * FROM saved.secret_versions
        WHERE secret_id = token() AND version = 1";
    scene.apply(&[back]);
    expect_error(scene.get(&here("TOKEN").version(1)), "PT410");
    assert_eq!(scene.get(&here("TOKEN")).unwrap(), "fourth");
    scene.apply(&["UPDATE project_secrets SET oldest_version = 1 WHERE id = token()"]);
    scene.refuses(&here("TOKEN").version(1), "oldest version set back");
}

// --- what can still be done with a bad secret ----------------------------------------------

/// Ways to spoil TOKEN, and the version that it has after being overwritten: a row that cannot be
/// trusted starts anew, a bad value is merely followed by a good one.
const SPOILED: &[(&str, i32)] = &[
    ("UPDATE project_secrets SET mac = '' WHERE id = token()", 1),
    ("UPDATE project_secrets SET current_version = 2 WHERE id = token()", 1),
    ("UPDATE project_secrets SET dek_version = 7 WHERE id = token()", 1),
    ("UPDATE project_secrets SET deleted_at = now() WHERE id = token()", 1),
    ("UPDATE project_secrets SET expires_at = NULL WHERE id = token()", 1),
    ("DELETE FROM data_keys WHERE project_id = project()", 1),
    ("UPDATE secret_versions SET value = '' WHERE secret_id = token()", 4),
    ("UPDATE secret_versions SET expires_at = NULL WHERE secret_id = token() AND version = 3", 4),
    ("UPDATE secret_versions SET dek_version = 7 WHERE secret_id = token()", 4),
    ("DELETE FROM secret_versions WHERE secret_id = token()", 4),
];

#[test]
fn a_bad_secret_can_be_overwritten() {
    let mut scene = Scene::new(Cluster::shared());
    let (project, backend) = (scene.project, backend_pid(&mut scene.user));
    for (spoil, version) in SPOILED {
        scene.apply(&[spoil]);
        scene.refuses(&here("TOKEN"), spoil);
        let put = "SELECT version FROM meshhook_secrets.secret_put($1, 'TOKEN', 'good',
            previous_valid_for => '1 hour')";
        let row = scene.user.query_one(put, &[&project]).expect(spoil);
        assert_eq!(row.get::<_, i32>(0), *version, "{spoil}");
        assert_eq!(scene.get(&here("TOKEN")).unwrap(), "good");
        // What was bad stays bad.
        if *version == 4 {
            assert_corrupted(scene.get(&here("TOKEN").version(3)), spoil);
        }
        scene.restore();
    }
    scene.nothing_crashed(backend);
}

#[test]
fn a_bad_secret_can_be_deleted_and_purged() {
    let mut scene = Scene::new(Cluster::shared());
    let (project, backend) = (scene.project, backend_pid(&mut scene.user));
    let spoiled_keys =
        ["UPDATE data_keys SET dek_encrypted = ''", "UPDATE kek_storage SET kek_encrypted = ''"];
    for spoil in SPOILED.iter().map(|(spoil, _)| *spoil).chain(spoiled_keys) {
        scene.apply(&[spoil]);
        scene.call_as_user("secret_delete", "TOKEN").expect(spoil);
        let list = "SELECT name FROM meshhook_secrets.secret_list($1)";
        let names: Vec<String> =
            scene.user.query(list, &[&project]).unwrap().iter().map(|row| row.get(0)).collect();
        assert_eq!(names, ["BYSTANDER"], "{spoil}");
        scene
            .user
            .query("SELECT meshhook_secrets.secret_purge($1, 'TOKEN', 'TOKEN')", &[&project])
            .expect(spoil);
        expect_error(scene.get(&here("TOKEN")), "PT404");
        let left = "SELECT count(*) FROM secret_versions WHERE secret_id = token()";
        assert_eq!(scene.admin.query_one(left, &[]).unwrap().get::<_, i64>(0), 0, "{spoil}");
        scene.restore();
    }
    scene.nothing_crashed(backend);
}

#[test]
fn nothing_that_is_done_with_a_bad_secret_makes_it_good() {
    let mut scene = Scene::new(Cluster::shared());
    let project = scene.project;
    for (spoil, version) in SPOILED {
        scene.apply(&[spoil]);
        let before = scene.contents();
        for call in [
            "SELECT meshhook_secrets.secret_expire($1, 'TOKEN', now() + interval '1 day')",
            "SELECT meshhook_secrets.secret_expire($1, 'TOKEN', NULL)",
            "SELECT meshhook_secrets.secret_rollback($1, 'TOKEN', 3)",
        ] {
            assert_corrupted(scene.user.query(call, &[&project]), &format!("{spoil}; {call}"));
        }
        assert_eq!(scene.contents(), before, "{spoil}");

        scene.call_as_user("secret_delete", "TOKEN").expect(spoil);
        let undeleted = scene.call_as_user("secret_undelete", "TOKEN");
        if *version == 1 {
            // The row is what is bad.
            assert_corrupted(undeleted, spoil);
        } else {
            undeleted.expect(spoil);
        }
        scene.refuses(&here("TOKEN"), spoil);
        scene.restore();
    }
}

#[test]
fn a_bad_data_key_or_kek_is_not_written_with() {
    let mut scene = Scene::new(Cluster::shared());
    let projects = [scene.project, scene.other, scene.db.project(scene.alice)];
    for (spoil, reached) in [
        ("UPDATE data_keys SET dek_encrypted = '' WHERE project_id = project()", 1),
        ("UPDATE data_keys SET status = 'retiring' WHERE project_id = project()", 1),
        ("UPDATE data_keys SET kek_id = 2", 2),
        ("UPDATE kek_storage SET kek_encrypted = ''", 3),
        ("UPDATE kek_storage SET root_key_id = ''", 3),
    ] {
        scene.apply(&[spoil]);
        let before = scene.contents();
        for project in &projects[..reached] {
            for name in ["TOKEN", "NEW"] {
                let put = "SELECT meshhook_secrets.secret_put($1, $2, 'value')";
                assert_corrupted(scene.user.query(put, &[project, &name]), spoil);
            }
        }
        assert_eq!(scene.contents(), before, "{spoil}");
        scene.restore();
    }
}

// --- keys that were switched off -------------------------------------------------------------

#[test]
fn a_sealed_project_cannot_be_unsealed_by_editing() {
    let mut scene = Scene::new(Cluster::shared());
    let project = scene.project;
    let mut admin = scene.db.superuser();
    admin.query("SELECT meshhook_secrets.seal($1)", &[&project]).unwrap();
    scene.save();
    expect_error(scene.get(&here("TOKEN")), "PT503").detail("project is sealed").hint("unseal");

    let put = "SELECT meshhook_secrets.secret_put($1, 'NEW', 'value')";
    for status in ["active", "retiring"] {
        let edit = format!("UPDATE data_keys SET status = '{status}' WHERE project_id = project()");
        scene.apply(&[&edit]);
        let before = scene.contents();
        scene.refuses(&here("TOKEN"), &edit);
        assert_corrupted(scene.user.query(put, &[&project]), &edit);
        // The regular way does not take the edit for good either.
        assert_corrupted(admin.query("SELECT meshhook_secrets.unseal($1)", &[&project]), &edit);
        assert_eq!(scene.contents(), before);
        scene.restore();
    }
    expect_error(scene.get(&here("TOKEN")), "PT503");
    admin.query("SELECT meshhook_secrets.unseal($1)", &[&project]).unwrap();
    assert_eq!(scene.get(&here("TOKEN")).unwrap(), "third");
}

#[test]
fn a_disabled_kek_cannot_be_enabled_by_editing() {
    let mut scene = Scene::new(Cluster::shared());
    scene.rewrap_kek(KekStatus::Disabled);
    scene.save();
    expect_error(scene.get(&here("TOKEN")), "PT503").detail("KEK 1 is disabled");
    let projects = [scene.project, scene.db.project(scene.alice)];
    let put = "SELECT meshhook_secrets.secret_put($1, 'NEW', 'value')";
    for status in ["active", "retiring", "retired", "compromised"] {
        let edit = format!("UPDATE kek_storage SET status = '{status}'");
        scene.apply(&[&edit]);
        let before = scene.contents();
        scene.refuses(&here("TOKEN"), &edit);
        assert_corrupted(scene.user.query(put, &[&projects[0]]), &edit);
        let new_project = scene.user.query(put, &[&projects[1]]);
        if status == "active" {
            assert_corrupted(new_project, &edit);
        } else {
            expect_error(new_project, "PT503").detail("No KEK is active");
        }
        assert_eq!(scene.contents(), before);
        scene.restore();
    }
    scene.rewrap_kek(KekStatus::Active);
    assert_eq!(scene.get(&here("TOKEN")).unwrap(), "third");
}

#[test]
fn a_wrong_root_key_is_refused_before_any_write() {
    let cluster = Cluster::builder().start();
    let mut scene = Scene::new(&cluster);
    let right = scene.current_root_key().unwrap();
    cluster.write_root_key(KEY_B);
    cluster.reload();
    eventually("the wrong root key is loaded", || {
        scene.current_root_key().is_some_and(|id| id != right)
    });
    let wrong = scene.current_root_key().unwrap();

    let before = scene.contents();
    let new_project = scene.db.project(scene.alice);
    let put = "SELECT meshhook_secrets.secret_put($1, $2, 'value')";
    for project in [scene.project, scene.other, new_project] {
        for name in ["TOKEN", "NEW"] {
            for client in [&mut scene.user, &mut scene.service] {
                expect_error(client.query(put, &[&project, &name]), "PT503")
                    .detail(&right)
                    .detail(&wrong)
                    .hint(&right)
                    .hides(KEY_A)
                    .hides(KEY_B);
            }
        }
    }
    let generate = "SELECT meshhook_secrets.secret_generate($1, 'NEW')";
    expect_error(scene.user.query(generate, &[&new_project]), "PT503").detail(&right);
    expect_error(scene.get(&here("TOKEN")), "PT503").detail(&right).hint(&right);
    let get_many = "SELECT * FROM meshhook_secrets.secret_get_many($1)";
    expect_error(scene.user.query(get_many, &[&scene.project]), "PT503").detail(&right);
    assert_eq!(scene.contents(), before);

    cluster.write_root_key(KEY_A);
    cluster.reload();
    eventually("the right root key is loaded", || scene.current_root_key() == Some(right.clone()));
    assert_eq!(scene.get(&here("TOKEN")).unwrap(), "third");
    scene.user.query(put, &[&new_project, &"NEW"]).unwrap();
}

// --- the scene -------------------------------------------------------------------------------

/// Where a secret is looked for.
struct At {
    there: bool,
    name: &'static str,
    version: Option<i32>,
}

/// In the project that TOKEN belongs to.
const fn here(name: &'static str) -> At {
    At { there: false, name, version: None }
}

/// In the other project.
const fn there(name: &'static str) -> At {
    At { there: true, name, version: None }
}

impl At {
    const fn version(mut self, version: i32) -> Self {
        self.version = Some(version);
        self
    }
}

/// Two projects of one owner. The first has TOKEN with three versions, the last of which expires
/// some day, and BYSTANDER; the second has a BYSTANDER of its own.
struct Scene<'c> {
    db: Database<'c>,
    alice: Uuid,
    project: Uuid,
    other: Uuid,
    /// A superuser, without triggers and foreign keys in the way.
    admin: Client,
    user: Client,
    service: Client,
}

const TABLES: [&str; 4] = ["kek_storage", "data_keys", "project_secrets", "secret_versions"];

impl<'c> Scene<'c> {
    fn new(cluster: &'c Cluster) -> Self {
        let db = cluster.database();
        let alice = Uuid::new_v4();
        let (project, other) = (db.project(alice), db.project(alice));
        let (admin, user, service) = (db.superuser(), db.user(alice), db.service());
        let mut scene = Self { db, alice, project, other, admin, user, service };
        scene.put("TOKEN", "first");
        scene.put("TOKEN", "second");
        let put = "SELECT meshhook_secrets.secret_put($1, 'TOKEN', 'third',
            expires_at => now() + interval '30 days')";
        scene.user.query(put, &[&project]).unwrap();
        scene.put("BYSTANDER", "unharmed");
        let put = "SELECT meshhook_secrets.secret_put($1, 'BYSTANDER', 'there')";
        scene.user.query(put, &[&other]).unwrap();

        scene.call("CREATE SCHEMA saved");
        scene.call("SET search_path = meshhook_secrets, saved");
        let id = "SELECT id FROM project_secrets WHERE project_id = $1 AND name = $2";
        let mut id =
            |name: &str| -> Uuid { scene.admin.query_one(id, &[&project, &name]).unwrap().get(0) };
        for (function, id) in [
            ("token", id("TOKEN")),
            ("bystander", id("BYSTANDER")),
            ("project", project),
            ("other", other),
        ] {
            scene.call(&format!(
                "CREATE FUNCTION saved.{function}() RETURNS uuid IMMUTABLE LANGUAGE sql
                 AS $$ SELECT '{id}'::uuid $$"
            ));
        }
        let second = root_key::parse(KEY_B.as_bytes()).unwrap()[0].fingerprint();
        scene.call(&format!(
            "CREATE FUNCTION saved.second_root_key() RETURNS text IMMUTABLE LANGUAGE sql
             AS $$ SELECT '{second}' $$"
        ));
        scene.call("SET session_replication_role = replica");
        scene.save();
        scene
    }

    fn put(&mut self, name: &str, value: &str) {
        let put = "SELECT meshhook_secrets.secret_put($1, $2, $3)";
        self.user.query(put, &[&self.project, &name, &value]).unwrap();
    }

    /// Runs something as superuser.
    fn call(&mut self, sql: &str) {
        self.admin.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Calls a function of two arguments as the user.
    fn call_as_user(&mut self, function: &str, name: &str) -> Result<(), postgres::Error> {
        let call = format!("SELECT meshhook_secrets.{function}($1, $2)");
        self.user.query(&call, &[&self.project, &name]).map(drop)
    }

    /// Takes the rows as they are for what [`Scene::restore`] goes back to.
    fn save(&mut self) {
        for table in TABLES {
            self.call(&format!(
                "DROP TABLE IF EXISTS saved.{table};
                 CREATE TABLE saved.{table} AS TABLE meshhook_secrets.{table}"
            ));
        }
    }

    fn restore(&mut self) {
        let restore = TABLES.map(|table| {
            format!(
                "DELETE FROM meshhook_secrets.{table};
                 INSERT INTO meshhook_secrets.{table} TABLE saved.{table};"
            )
        });
        self.call(&restore.concat());
    }

    /// Alters rows; each statement must find one.
    fn apply(&mut self, statements: &[&str]) {
        for statement in statements {
            match self.admin.execute(*statement, &[]) {
                Ok(changed) => assert!(changed > 0, "changes nothing: {statement}"),
                Err(error) => panic!("{statement}: {error:?}"),
            }
        }
    }

    /// Puts each value of [`AUTHENTICATED`] into each column of a table, and looks. `again` makes
    /// another situation, in which the same must hold.
    fn alter_each_column(&mut self, table: &str, bystander: &str, again: impl Fn(&mut Self)) {
        let row = match table {
            "project_secrets" => "id = token()",
            "secret_versions" => "secret_id = token() AND version = 3",
            "data_keys" => "project_id = project()",
            "kek_storage" => "kek_id = 1",
            _ => panic!("unknown table"),
        };
        let mut count = 0;
        for (_, column, values) in AUTHENTICATED.iter().filter(|(of, ..)| *of == table) {
            for value in *values {
                let edit = format!("UPDATE {table} SET {column} = {value} WHERE {row}");
                self.apply(&[&edit]);
                let at = match (table, *column) {
                    ("project_secrets", "project_id") => there("TOKEN"),
                    ("project_secrets", "name") => here(value.trim_matches('\'')),
                    _ => here("TOKEN"),
                };
                self.refuses(&at, &edit);
                self.only_this_one_is_bad(&at, bystander, &edit);
                self.can_be_looked_at(&edit);
                again(self);
                self.refuses(&at, &edit);
                self.restore();
                assert_eq!(self.get(&here("TOKEN")).unwrap(), "third");
                count += 1;
            }
        }
        assert!(count > 0, "nothing to alter in {table}");
    }

    // --- looking ---

    fn get(&mut self, at: &At) -> Result<String, postgres::Error> {
        let get = "SELECT meshhook_secrets.secret_get($1, $2, $3)";
        let project = if at.there { self.other } else { self.project };
        self.user.query_one(get, &[&project, &at.name, &at.version]).map(|row| row.get(0))
    }

    fn get_many(&mut self, there: bool, names: &[&str]) -> Vec<Item> {
        let get = "SELECT name, value, status FROM meshhook_secrets.secret_get_many($1, $2)";
        let project = if there { self.other } else { self.project };
        let rows = self.user.query(get, &[&project, &names]).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    }

    /// All that can be read of the unspoiled scene.
    fn everything(&self) -> [(At, &'static str); 5] {
        [
            (here("TOKEN"), "third"),
            (here("TOKEN").version(2), "second"),
            (here("TOKEN").version(1), "first"),
            (here("BYSTANDER"), "unharmed"),
            (there("BYSTANDER"), "there"),
        ]
    }

    /// Every way to reveal this one, by whomever, fails with the same error.
    fn refuses(&mut self, at: &At, what: &str) {
        let project = if at.there { self.other } else { self.project };
        let arguments: [&(dyn ToSql + Sync); 3] = [&project, &at.name, &at.version];
        for function in ["secret_get", "secret_get_bytes"] {
            let get = format!("SELECT meshhook_secrets.{function}($1, $2, $3)");
            for client in [&mut self.user, &mut self.service] {
                assert_corrupted(client.query(&get, &arguments), what);
            }
        }
    }

    /// Revealed together with another, it fails alone.
    fn only_this_one_is_bad(&mut self, at: &At, bystander: &str, what: &str) {
        let items = self.get_many(at.there, &["BYSTANDER", at.name]);
        assert_eq!(items.len(), 2, "{what}");
        assert_eq!(
            (&*items[1].0, &items[1].1, &*items[1].2),
            (at.name, &None, "corrupted"),
            "{what}"
        );
        let value = match (bystander, at.there) {
            ("ok", false) => Some(String::from("unharmed")),
            ("ok", true) => Some(String::from("there")),
            _ => None,
        };
        assert_eq!(items[0], (String::from("BYSTANDER"), value, bystander.to_owned()), "{what}");
    }

    /// What needs no key goes on whatever the rows hold.
    fn can_be_looked_at(&mut self, what: &str) {
        for look in [
            "SELECT l::text FROM meshhook_secrets.secret_list($1, include_deleted => true) l",
            "SELECT d::text FROM meshhook_secrets.secret_due($1, interval '100 years') d",
            "SELECT v::text FROM meshhook_secrets.secret_versions($1, 'BYSTANDER') v",
        ] {
            self.user.query(look, &[&self.project]).expect(what);
        }
        for look in [
            "SELECT d::text FROM meshhook_secrets.secret_describe($1, 'TOKEN') d",
            "SELECT v::text FROM meshhook_secrets.secret_versions($1, 'TOKEN') v",
        ] {
            if let Err(error) = self.user.query(look, &[&self.project]) {
                // It may have another name or project by now.
                assert_eq!(error.code().unwrap().code(), "PT404", "{what}");
            }
        }
    }

    /// The rows of all tables, with the transactions that wrote them: any write shows.
    fn contents(&mut self) -> String {
        let tables = TABLES.map(|table| {
            format!(
                "SELECT string_agg(concat(ctid, xmin, t.*), E'\\n' ORDER BY ctid)
                 FROM meshhook_secrets.{table} t"
            )
        });
        let sql = tables.join(" UNION ALL ");
        let rows = self.admin.query(&sql, &[]).unwrap();
        rows.iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or_default()).collect()
    }

    /// The same backend still serves, and the server knows of no crash.
    fn nothing_crashed(&mut self, backend: i32) {
        assert_eq!(backend_pid(&mut self.user), backend);
        assert_eq!(self.get(&there("BYSTANDER")).unwrap(), "there");
        let log = self.db.cluster().log();
        for sign in ["terminated by signal", "PANIC", "internal error", "panicked"] {
            assert!(!log.contains(sign), "{sign} in the log");
        }
    }

    // --- keys ---

    fn current_root_key(&mut self) -> Option<String> {
        let status = "SELECT root_key_id FROM meshhook_secrets.root_key_status() WHERE is_current";
        self.admin.query_opt(status, &[]).unwrap().map(|row| row.get(0))
    }

    /// What the KEK functions will do: wraps the KEK anew with another status.
    fn rewrap_kek(&mut self, status: KekStatus) {
        let query = "SELECT root_key_id, status, kek_encrypted FROM kek_storage";
        let row = self.admin.query_one(query, &[]).unwrap();
        let (root_key_id, before, wrapped): (&str, &str, &[u8]) =
            (row.get(0), row.get(1), row.get(2));
        let root = root_key::parse(KEY_A.as_bytes()).unwrap().remove(0);
        let before = before.parse().unwrap();
        let identity = |status| KekIdentity { kek_id: 1, root_key_id, status };
        let kek = root.unwrap(wrapped, &identity(before)).unwrap();
        let wrapped = root.wrap(&kek, &identity(status)).unwrap();
        let update = "UPDATE kek_storage SET status = $1, kek_encrypted = $2";
        self.admin.execute(update, &[&status.as_str(), &wrapped]).unwrap();
    }
}

/// Name, value and status out of `secret_get_many`.
type Item = (String, Option<String>, String);

fn ok(name: &str, value: &str) -> Item {
    (name.to_owned(), Some(value.to_owned()), String::from("ok"))
}

fn bad(name: &str) -> Item {
    (name.to_owned(), None, String::from("corrupted"))
}

/// The one error of all tampering: it says nothing about what was altered.
#[track_caller]
fn assert_corrupted<T>(result: Result<T, postgres::Error>, what: &str) {
    let Err(error) = result else { panic!("not refused: {what}") };
    let Some(db) = error.as_db_error() else { panic!("{what}: {error:?}") };
    assert_eq!(db.code().code(), "XX001", "{what}: {db:?}");
    assert_eq!(db.message(), "stored secret failed authentication", "{what}");
    assert_eq!(db.detail(), None, "{what}");
    assert_eq!(db.where_(), None, "{what}");
    assert!(db.hint().is_some_and(|hint| hint.contains("backup")), "{what}: {db:?}");
}

/// The right root key, and another that is loaded as well.
fn both_keys() -> support::RootKey {
    support::RootKey::File(format!("{KEY_A}\n{KEY_B}"))
}
